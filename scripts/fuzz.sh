#!/usr/bin/env bash
# Fuzzes each target for a time. Usage: scripts/fuzz.sh TIME [third]
# "third" takes those whose turn it is today.
set -euo pipefail
cd "$(dirname "$0")/.."
time=$1 only=${2:-all}
n=0 ran=0

# late tells of go test's output that all that failed is the end of the time,
# which it may report as a failure: https://go.dev/issue/75804, mended in Go 1.27.
late() {
	[ "$(awk '/^--- FAIL/ {on = 1; next} /^FAIL/ {on = 0} on' <<<"$1")" = "    context deadline exceeded" ]
}

# found prints the input that a target has failed with, for a machine that is gone
# when somebody reads this.
found() { # DIR
	git ls-files --others --exclude-standard -- "$1/testdata/fuzz" | head -n 1 | xargs -r head -c 16000
}

today=$(($(date +%s) / 86400))
while read -r file target; do
	n=$((n + 1))
	if [ "$only" = third ] && [ $(((n + today) % 3)) -ne 0 ]; then
		continue
	fi
	ran=$((ran + 1))
	dir=$(dirname "$file")
	dir=$(dirname "$file")
	if ! out=$(go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 1x "./$dir"); then
		if ! late "$out" || [ -n "$(found "$dir")" ]; then
			printf '%s\n' "$target:" "$out" | cut -c 1-2000 >&2
			found "$dir" >&2
			exit 1
		fi
		out="ok  	$dir $target, which ended late"
	fi
	printf '%s\n' "$out" | tail -n 1
done < <(git grep -n -o -E '^func Fuzz[A-Za-z0-9_]+' -- '*_test.go' | sed -E 's/:[0-9]+:func /\t/' | sort)
echo "fuzzed $ran of $n targets for $time each"
[ "$ran" -gt 0 ]
