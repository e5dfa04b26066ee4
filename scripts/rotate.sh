#!/usr/bin/env bash
# Rotates the DomainKey of three nodes that have many keys, and measures how long
# all records take to be wrapped anew, and what is left of the traffic meanwhile.
# It needs the ports 9000 to 9002. Usage: scripts/rotate.sh [TENANTS] [KEYS]
# (default 100 and 100000)
set -euo pipefail
cd "$(dirname "$0")/.."
tenants=${1:-100} keys=${2:-100000} node=https://127.0.0.1:9000
tmp=$(mktemp -d)
trap 'kill "$pid" 2>/dev/null; wait; rm -rf "$tmp"' EXIT
go build -trimpath -ldflags '-s -w' -o "$tmp/" ./cmd/...
PATH=$tmp:$PATH
export HOME=$tmp/home XDG_CONFIG_HOME=$tmp/home XDG_STATE_HOME=$tmp/home
data=$tmp/data
export EHSM_DKEYSERVER_DOMAIN=$data/node1/domain
ehsm dev --nodes 3 --data "$data" --listen 127.0.0.1:9000 >"$tmp/log" 2>&1 &
pid=$!

die() { cat "$tmp/log" >&2; echo "$1" >&2; exit 1; }

# until_said TEXT SECONDS: waits until a manager has logged it.
until_said() {
	for _ in $(seq $(($2 * 10))); do
		! grep -qs "$1" "$data"/node*/*.log || return 0
		sleep 0.1
	done
	die "no manager said in $2 s: $1"
}
# load ROUNDS: Encrypt at one node from 16 connections; requests per second of
# each round of 4 s. A request that fails ends it.
load() {
	ehsm bench --profile dev-1 --nodes "$node" --op encrypt --conns 16 --rounds "$1" --duration 4s --output json 2>>"$tmp/log" |
		python3 -c 'import json, sys
for row in json.load(sys.stdin)["rows"]:
    assert row["errors"] == 0, row
    print(*(round(r["rate"]) for r in row["rounds"]))'
}
# at TEXT: when a manager logged it last, in Unix milliseconds.
at() { date -d "$(grep -h "$1" "$data"/node*/*.log | sed 's/^time=\([^ ]*\).*/\1/' | sort | tail -n 1)" +%s%3N; }

for _ in $(seq 300); do
	! grep -q 'ehsm key create' "$tmp/log" || break
	kill -0 "$pid" 2>/dev/null || die "the nodes did not start"
	sleep 0.1
done
ehsm bench fill --profile dev-1 --tenants "$tenants" --keys "$keys" --conns 32
before=$(load 3)
ehsm domain rotate --key "$data/operator.key" --out "$tmp/manifest-2.json"
until_said '"records are wrapped anew"' 60
during=$(load 2)
busy=$(ehsm domain status 2>/dev/null | grep '^records' || true)
until_said '"all records are wrapped anew"' 600
echo "Encrypt, requests/s before:        $before"
echo "while records were wrapped anew:   $during"
echo "status after that:                 ${busy#records }"
echo "records of $keys keys wrapped anew in $(($(at '"all records are') - $(at '"records are'))) ms; no request failed"
