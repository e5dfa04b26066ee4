#!/usr/bin/env bash
# Runs the commands of docs/operations.md as they stand there: a domain is made, backed
# up, its DomainKey is rotated, found compromised and forgotten, it gets another
# custodian, is lost, and is restored.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/markdown.sh
mkdir "$tmp/bin"
go build -o "$tmp/bin/" ./cmd/ehsm ./cmd/ehsm-simtee ./cmd/ehsm-dkeyserver
export PATH="$tmp/bin:$PATH"
root=$PWD
{
	echo 'set -euo pipefail'
	for part in machines people init backup rotate compromise forget custodian lost release; do blocks "$root/docs/operations.md" "$part"; done
} > "$tmp/operations.sh"
grep -q 'ehsm domain custodian release' "$tmp/operations.sh"
cd "$tmp"
setsid timeout 90 bash "$tmp/operations.sh" > "$tmp/operations.txt" 2>&1 &
pids+=("-$!")
for _ in $(seq 800); do
	if grep -q '^recovery .*2 of dave, erin, gus restore versions 2, 3' "$tmp/operations.txt"; then
		grep -q 'has 2 of 2 shares: dave, gus\|restored the DomainKey' "$tmp/operations.txt"
		echo "docs/operations.md: all commands work"
		exit 0
	fi
	kill -0 "$!" 2> /dev/null || break
	sleep 0.1
done
cat "$tmp/operations.txt" >&2
exit 1
