#!/usr/bin/env bash
# Runs a PostgreSQL server to try things with: on loopback, without a password, not
# durable, and its data go when it ends. PostgreSQL refuses to run as root; then it
# runs as the user postgres.
#
# Usage: scripts/postgres.sh [PORT]
#
# It prints its URL when it serves: postgres://ehsm@127.0.0.1:PORT/postgres. The
# default port is 5433; 0 takes a free one.
set -euo pipefail
port=${1:-5433}
bin=$(for d in /usr/lib/postgresql/*/bin; do echo "$d"; done | sort -V | tail -n 1)
[ -x "$bin/initdb" ] || bin=$(dirname "$(command -v initdb || echo /none/initdb)")
[ -x "$bin/initdb" ] || { echo "postgres.sh: PostgreSQL is not installed; hint: apt-get install postgresql" >&2; exit 1; }
used() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
if [ "$port" -eq 0 ]; then
	# Below those that the kernel gives to others.
	port=$((20000 + RANDOM % 10000))
	while used "$port"; do port=$((port + 1)); done
fi
! used "$port" || { echo "postgres.sh: something else listens on port $port" >&2; exit 1; }
dir=$(mktemp -d)
as=()
if [ "$(id -u)" -eq 0 ]; then
	as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
	chown postgres "$dir"
fi
cd "$dir"
trap 'trap "" INT TERM; kill -INT "${pid:-}" 2>/dev/null || true; wait; rm -rf "$dir"' EXIT
trap exit INT TERM
"${as[@]}" "$bin/initdb" -D "$dir/data" -U ehsm -A trust -E UTF8 --locale=C -N >/dev/null
"${as[@]}" "$bin/postgres" -D "$dir/data" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
	-c max_connections=200 -c fsync=off -c full_page_writes=off 2>"$dir/log" &
pid=$!
until "$bin/pg_isready" -q -h 127.0.0.1 -p "$port"; do
	kill -0 "$pid" 2>/dev/null || { cat "$dir/log" >&2; exit 1; }
	sleep 0.1
done
echo "postgres://ehsm@127.0.0.1:$port/postgres"
wait "$pid"
