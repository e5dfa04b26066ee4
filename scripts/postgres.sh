#!/usr/bin/env bash
# Runs a PostgreSQL server to try things with: on loopback, without a password, and
# its data go when it ends. PostgreSQL refuses to run as root; then it runs as the
# user postgres.
#
# Usage: scripts/postgres.sh [PORT]
#
# It serves postgres://ehsm@127.0.0.1:PORT/postgres; the default port is 5433.
set -euo pipefail
port=${1:-5433}
bin=$(for d in /usr/lib/postgresql/*/bin; do echo "$d"; done | sort -V | tail -n 1)
[ -x "$bin/initdb" ] || bin=$(dirname "$(command -v initdb || echo /none/initdb)")
[ -x "$bin/initdb" ] || { echo "postgres.sh: PostgreSQL is not installed; hint: apt-get install postgresql" >&2; exit 1; }
dir=$(mktemp -d)
as=()
if [ "$(id -u)" -eq 0 ]; then
	as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
	chown postgres "$dir"
fi
cd "$dir"
trap 'kill -INT "${pid:-}" 2>/dev/null || true; wait; rm -rf "$dir"' EXIT
trap exit INT TERM
"${as[@]}" "$bin/initdb" -D "$dir/data" -U ehsm -A trust -E UTF8 --locale=C >/dev/null
"${as[@]}" "$bin/postgres" -D "$dir/data" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= &
pid=$!
wait "$pid"
