#!/usr/bin/env bash
# Fuzzes each target for a time. Usage: scripts/fuzz.sh TIME [third]
# "third" takes those whose turn it is today.
set -euo pipefail
cd "$(dirname "$0")/.."
time=$1 only=${2:-all}
n=0 ran=0
today=$(($(date +%s) / 86400))
while read -r file target; do
	n=$((n + 1))
	if [ "$only" = third ] && [ $(((n + today) % 3)) -ne 0 ]; then
		continue
	fi
	ran=$((ran + 1))
	if ! out=$(go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 1x "./$(dirname "$file")"); then
		printf '%s\n' "$target:" "$out" | cut -c 1-2000 >&2
		# The input, for a machine that is gone when somebody reads this.
		git ls-files --others --exclude-standard -- "$(dirname "$file")/testdata/fuzz" | head -n 1 | xargs -r head -c 16000 >&2
		exit 1
	fi
	printf '%s\n' "$out" | tail -n 1
done < <(git grep -n -o -E '^func Fuzz[A-Za-z0-9_]+' -- '*_test.go' | sed -E 's/:[0-9]+:func /\t/' | sort)
echo "fuzzed $ran of $n targets for $time each"
[ "$ran" -gt 0 ]
