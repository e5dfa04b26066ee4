#!/usr/bin/env bash
# Runs the commands of docs/operations.md as they stand there: a domain is made, backed
# up, its DomainKey is rotated, found compromised and forgotten, it gets another
# custodian, is lost, and is restored, at last on a machine without seal keys.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/markdown.sh
mkdir "$tmp/bin"
go build -o "$tmp/bin/" ./cmd/ehsm ./cmd/ehsm-simtee ./cmd/ehsm-dkeyserver
export PATH="$tmp/bin:$PATH"
root=$PWD
{
	echo 'set -euo pipefail'
	for part in machines people init backup rotate compromise forget custodian lost release sealless starts; do blocks "$root/docs/operations.md" "$part"; done
} > "$tmp/operations.sh"
grep -q 'ehsm domain custodian release' "$tmp/operations.sh"
cd "$tmp"
setsid timeout 120 bash "$tmp/operations.sh" > "$tmp/operations.txt" 2>&1 &
pids+=("-$!")
fail() {
	cat "$tmp/operations.txt" >&2
	exit 1
}
wait "$!" || fail
for said in '^recovery .*2 of dave, erin, gus restore versions 2, 3' 'restored the DomainKey, versions' '^DomainKey *not here: waits for 2 of dave, erin, gus' \
	'^DomainKey *version 3, in memory only'; do
	grep -q "$said" "$tmp/operations.txt" || fail
done
[ "$(grep -c 'has the DomainKey, versions .* from custodians' "$tmp/operations.txt")" = 2 ] || fail
echo "docs/operations.md: all commands work"
