#!/usr/bin/env bash
# Installs the programs that the tests use beside Go, or says what is missing.
# Usage: scripts/need.sh COMMAND:DEBIAN-PACKAGE ...
#
# COMMAND is a name in the PATH or the pattern of a path; several are separated by
# "|", of which one is enough.
set -euo pipefail
present() { # COMMAND
	local one all
	IFS='|' read -r -a all <<<"$1"
	for one in "${all[@]}"; do
		if [ "${one#/}" != "$one" ]; then
			! compgen -G "$one" >/dev/null || return 0
		else
			! command -v "$one" >/dev/null || return 0
		fi
	done
	return 1
}
missing=()
for pair in "$@"; do
	present "${pair%%:*}" || missing+=("${pair##*:}")
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
