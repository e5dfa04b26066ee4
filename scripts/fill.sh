#!/usr/bin/env bash
# Puts many keys into a service of its own and measures encryption before and
# after. Usage: scripts/fill.sh [TENANTS] [KEYS]   (default 10000 and 1000000)
set -euo pipefail
cd "$(dirname "$0")/.."
tenants=${1:-10000} keys=${2:-1000000}
tmp=$(mktemp -d)
trap 'kill "$pid" 2>/dev/null; wait; rm -rf "$tmp"' EXIT
go build -trimpath -ldflags '-s -w' -o "$tmp/" ./cmd/ehsm
export HOME=$tmp/home XDG_CONFIG_HOME=$tmp/home XDG_STATE_HOME=$tmp/home
"$tmp/ehsm" dev --data "$tmp/data" --listen 127.0.0.1:0 >"$tmp/log" 2>&1 &
pid=$!
for _ in $(seq 100); do
	url=$(grep -o -m 1 'https://127.0.0.1:[0-9]*' "$tmp/log" | head -n 1 || true)
	[ -z "$url" ] || break
	sleep 0.1
done
[ -n "$url" ] || { cat "$tmp/log" >&2; exit 1; }
export EHSM_CA_FILE=$tmp/data/tls/cert.pem
"$tmp/ehsm" enroll --url "$url" >/dev/null
bench() { "$tmp/ehsm" bench --profile default --pid "$pid" --op encrypt,decrypt --conns 16 --rounds 3 --duration 1s 2>>"$tmp/log"; }
echo "== before"
bench
"$tmp/ehsm" bench fill --profile default --tenants "$tenants" --keys "$keys" --conns 32
echo "== after"
bench
du -sh "$tmp/data" | cut -f 1 | sed 's/^/on disk: /'
grep VmRSS "/proc/$pid/status"
