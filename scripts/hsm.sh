#!/usr/bin/env bash
# Runs the commands of docs/hsm.md as they stand there, and shows what the programs
# say: a domain whose root is an HSM, SoftHSM2, is made, its dkeyserver starts without
# the HSM in vain, and the key of the HSM is replaced.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/markdown.sh
mkdir "$tmp/bin"
go build -o "$tmp/bin/" ./cmd/...
CGO_ENABLED=1 go build -tags pkcs11 -o "$tmp/bin/" ./cmd/ehsm-hsm
export PATH="$tmp/bin:$PATH"
root=$PWD

part() { blocks "$root/docs/hsm.md" "$1"; }

# says waits until the log has a line, and shows it.
says() { # PATTERN TIMES
	for _ in $(seq 300); do
		[ "$(grep -c -- "$1" "$tmp/site.log")" -lt "$2" ] || { grep -- "$1" "$tmp/site.log" | tail -n 1; return 0; }
		sleep 0.1
	done
	cat "$tmp/site.log" >&2
	exit 1
}

{
	part machine; part token; part init
	echo 'until [ -f "$SITE/served" ]; do sleep 0.1; done'
	part pull
	echo 'until [ -f "$SITE/back" ]; do sleep 0.1; done'
	part replace
	echo 'until [ -f "$SITE/replaced" ]; do sleep 0.1; done'
	part after
	echo wait
} > "$tmp/site.sh"
grep -q 'hsm rewrap' "$tmp/site.sh"
(cd "$tmp" && exec setsid bash -eu "$tmp/site.sh") > "$tmp/site.log" 2>&1 &
pids+=("-$!")
says 'ehsm-dkeyserver: serves as root' 1
says 'warning: hsmWithoutTEE: no protection against this host' 2
touch "$HOME/site/served"
says 'ehsm-dkeyserver: .*the HSM does not give its half of the seal key' 1
says 'no HSM, no DomainKey' 1
says 'ehsm-dkeyserver: serves as root' 2
touch "$HOME/site/back"
says 'domainkey.sealed is wrapped with the key ehsm-2027 now' 1
says 'ehsm-dkeyserver: serves as root' 3
touch "$HOME/site/replaced"
says 'ehsm-hsm: serves token ehsm' 4
! grep -F -- "$(cat "$HOME/site/pin")" "$tmp/site.log" >&2
echo "docs/hsm.md: all commands work"
