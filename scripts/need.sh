#!/usr/bin/env bash
# Installs the programs that the tests use beside Go, or says what is missing.
# Usage: scripts/need.sh COMMAND:DEBIAN-PACKAGE ...
set -euo pipefail
missing=()
for pair in "$@"; do
	command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
[ ${#missing[@]} -eq 0 ] && exit 0
sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo -n)
if ! command -v apt-get >/dev/null || ! "${sudo[@]}" true 2>/dev/null; then
	echo "ehsm: the tests need these programs: ${missing[*]}" >&2
	echo "hint: on Debian or Ubuntu: apt-get install ${missing[*]}" >&2
	exit 1
fi
echo "installing ${missing[*]}" >&2
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
