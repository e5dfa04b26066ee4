#!/usr/bin/env bash
# Runs the commands of docs/provisioning.md as they stand there: a domain of two
# simulated machines, made, used and changed.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/markdown.sh
mkdir "$tmp/bin"
go build -o "$tmp/bin/" ./cmd/...
export PATH="$tmp/bin:$PATH"
root=$PWD

part() { blocks "$root/docs/provisioning.md" "$1"; }

setsid scripts/postgres.sh 5433 > "$tmp/postgres.log" 2>&1 &
pids+=("-$!")
{
	part machines; part draft; part init; part nodes; echo wait
} > "$tmp/site.sh"
grep -q 'ehsm-dkeyserver init' "$tmp/site.sh"
(cd "$tmp" && exec setsid bash -eu "$tmp/site.sh") > "$tmp/site.log" 2>&1 &
pids+=("-$!")
for n in 1 2; do reachable "https://127.0.0.1:900$n"; done

cd "$HOME/site"
{ echo 'set -euo pipefail'; part use; } > "$tmp/use.sh"
bash "$tmp/use.sh" > "$tmp/use.txt"
grep -qx "any machine" "$tmp/use.txt"
{ echo 'set -euo pipefail'; part change; } > "$tmp/change.sh"
bash "$tmp/change.sh"
for _ in $(seq 100); do
	[ "$(grep -c 'ehsm-core: serves domain .* under manifest 2' "$tmp/site.log")" -lt 2 ] || break
	sleep 0.1
done
[ "$(grep -c 'ehsm-core: serves domain .* under manifest 2' "$tmp/site.log")" = 2 ] || { cat "$tmp/site.log" >&2; exit 1; }
[ -f a/domain/manifest-2.json ]
echo "docs/provisioning.md: all commands work"
