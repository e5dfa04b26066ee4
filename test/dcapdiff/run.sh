#!/usr/bin/env bash
# Compares our verification of SGX quotes with that of @phala/dcap-qvl, which is
# installed into a temporary folder in the version and with the hashes of
# package-lock.json, from npm's cache where it has them. Says NOT RUN if it
# cannot be had, which in CI (CI=true) is a failure.
set -euo pipefail
cd "$(dirname "$0")"
retries=0
[ "${CI:-}" != true ] || retries=4
not_run() {
	echo "dcapdiff: NOT RUN ($1)"
	[ "${CI:-}" != true ] || exit 1
	exit 0
}
command -v node >/dev/null && command -v npm >/dev/null || not_run "node and npm are not installed"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cp package.json package-lock.json "$tmp"
(cd "$tmp" && npm ci --prefer-offline --ignore-scripts --no-audit --no-fund --fetch-retries=$retries --fetch-timeout=20000 >npm.log 2>&1) ||
	not_run "npm has no @phala/dcap-qvl and cannot fetch it: $(grep -m 1 -E 'npm (error|ERR!) code' "$tmp/npm.log" || echo 'see npm ci')"
DCAPDIFF_MODULES=$tmp go test -count=1 -tags dcapdiff -v -run TestNeverLaxer .
