#!/usr/bin/env bash
# Runs the examples of docs/api.md as they stand there: in their order, in one
# shell, against a fresh `ehsm dev` on a free port.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/markdown.sh
{ echo 'set -euo pipefail'; blocks docs/api.md; } > "$tmp/api.sh"
[ "$(grep -c '^ehsm ' "$tmp/api.sh")" -ge 20 ] || { echo "docs/api.md: its examples were not found" >&2; exit 1; }
go build -o "$tmp/bin/" ./cmd/ehsm
export PATH="$tmp/bin:$PATH"
mkdir "$tmp/work"
cd "$tmp/work"

setsid ehsm dev --listen 127.0.0.1:0 > "$tmp/dev.log" 2>&1 &
pids+=("-$!")
for _ in $(seq 600); do
	url=$(sed -n 's/^ *url: *//p' "$tmp/dev.log")
	[ -z "$url" ] || break
	sleep 0.1
done
[ -n "$url" ] || { echo "ehsm dev did not start:" >&2; cat "$tmp/dev.log" >&2; exit 1; }
reachable "${url%/ehsm}"
bash "$tmp/api.sh" > "$tmp/api.log" 2>&1 || { cat "$tmp/api.log" >&2; echo "docs/api.md: an example failed" >&2; exit 1; }
echo "docs/api.md: all examples work"
