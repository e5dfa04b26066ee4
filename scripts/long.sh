#!/usr/bin/env bash
# What takes longer than the gate may: kill loops, crash tests, long fuzzing,
# known bad paths with many rounds. Prints what ran and how long it took.
# EHSM_FUZZ_TIME sets the time of each fuzz target (default 60s).
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/need.sh openssl:openssl curl:curl python3:python3 git:git gcc:gcc /usr/include/stdlib.h:libc6-dev \
	'initdb|/usr/lib/postgresql/*/bin/initdb:postgresql' ip:iproute2 'nft|/usr/sbin/nft:nftables'
# One server for all tests, which ends when this ends.
exec {server}< <(exec setpriv --pdeathsig TERM scripts/postgres.sh 0)
trap "kill $! && wait $! || true" EXIT
read -r EHSM_TEST_POSTGRES <&"$server"
export EHSM_TEST_POSTGRES
run() {
	local from=$SECONDS
	echo "== $*"
	"$@"
	echo "== done in $((SECONDS - from)) s"
}
export EHSM_LONG=1
# Domains whose machines are network namespaces need a kernel that has them, and its root.
if ip netns add ehsm-probe 2>/dev/null && ip netns exec ehsm-probe nft add table inet probe; then
	export EHSM_NETNS=1
else
	echo "== TestDomainNetwork/namespaces: NOT RUN (it needs root, network namespaces and nftables)"
fi
ip netns del ehsm-probe 2>/dev/null || true
run go test -count=1 -tags long -timeout 60m ./test/e2e
run go test -count=1 -timeout 30m ./internal/host/store/sqlite
run go test -count=1 -race -shuffle=on -timeout 60m ./internal/... ./api/... ./client/... ./cmd/...
run go test -tags mutants -run TestMutants -timeout 20m ./internal/trusted/core ./internal/trusted/channel ./internal/trusted/provision ./internal/trusted/hsmroot ./internal/trusted/facts ./internal/trusted/recovery
run scripts/reproducible.sh cold
run scripts/fill.sh
run scripts/rotate.sh
run go run ./cmd/ehsm bench noisy
run scripts/fuzz.sh "${EHSM_FUZZ_TIME:-60s}"
echo "all long tests passed in $SECONDS s"
