#!/usr/bin/env bash
# The tests of a change, with the time that each step takes. In CI (CI=true) a
# skipped test is a failure, unless it misses TEE hardware.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOFLAGS="${GOFLAGS:-} -buildvcs=false"

budget=()
step() { # NAME COMMAND...
	local name=$1 from=$SECONDS
	shift
	echo "== $name"
	"$@"
	budget+=("$(printf '%5d s  %s' $((SECONDS - from)) "$name")")
}

unformatted() {
	local files
	files=$(gofmt -l $(git ls-files '*.go'))
	[ -z "$files" ] || { echo "gofmt would change:" "$files" >&2; return 1; }
}

# postgres starts the server that all tests share, and ends it when this ends.
postgres() {
	exec {server}< <(exec setpriv --pdeathsig TERM scripts/postgres.sh 0)
	trap "kill $! && wait $! || true" EXIT
	read -r EHSM_TEST_POSTGRES <&"$server"
	export EHSM_TEST_POSTGRES
}

# failures prints of the output of go test what is about packages that have failed.
failures() {
	awk '/^(ok  |FAIL|[?]   )\t/ {if ($1 == "FAIL") {for (i = 0; i < n; i++) print line[i]; print}; n = 0; next}
		{line[n++] = $0}
		END {for (i = 0; i < n; i++) print line[i]}'
}

# go_test runs go test and refuses skips for any reason but missing hardware.
go_test() {
	local log
	log=$(mktemp)
	# Some tests print hostile bytes; what is read here is text.
	if ! go test "$@" -v -timeout 15m ./... 2>&1 | tr -cd '\11\12\40-\176' >"$log"; then
		failures <"$log" | grep -v -E '^(=== |PASS$)|^ *--- (PASS|SKIP)' | tail -n 1000
		echo "what failed:"
		grep -E '^ *--- FAIL|^FAIL.|^panic:' "$log" || true
		rm -f "$log"
		return 1
	fi
	grep -E '^(ok|FAIL)' "$log"
	local skipped
	# A skipped test prints its reason on the line before.
	skipped=$(awk '/^ *--- SKIP/ && before !~ /TEE hardware/ {print before; print} {before = $0}' "$log")
	passed=$(grep -c -E '^ *--- PASS' "$log")
	rm -f "$log"
	if [ -n "$skipped" ]; then
		echo "skipped for a reason other than missing TEE hardware:" "$skipped" >&2
		[ "${CI:-}" != true ] || return 1
	fi
}

step "programs" scripts/need.sh openssl:openssl curl:curl python3:python3 git:git node:nodejs npm:npm \
	gcc:gcc /usr/include/stdlib.h:libc6-dev softhsm2-util:softhsm2 '/usr/lib/softhsm/libsofthsm2.so|/usr/lib/*/softhsm/libsofthsm2.so:libsofthsm2' 'initdb|/usr/lib/postgresql/*/bin/initdb:postgresql'
step "gofmt" unformatted
step "vet" go vet ./...
step "vet, build tag tsm" go vet -tags tsm ./internal/trusted/... ./cmd/ehsm-core ./cmd/ehsm-dkeycache ./cmd/ehsm-dkeyserver
step "vet, build tag ego" env CGO_ENABLED=1 go vet -tags ego ./internal/trusted/... ./cmd/ehsm-core ./cmd/ehsm-dkeycache ./cmd/ehsm-dkeyserver
step "vet, build tag pkcs11" env CGO_ENABLED=1 go vet -tags pkcs11 ./internal/host/hsm ./cmd/ehsm-hsm
step "vet, build tag mutants" go vet -tags mutants ./internal/trusted/core ./internal/trusted/channel ./internal/trusted/provision ./internal/trusted/hsmroot ./internal/trusted/facts ./internal/trusted/recovery
step "vet, build tag long" go vet -tags long ./test/e2e
step "vet, build tag failpoints" go vet -tags failpoints ./internal/failpoint ./internal/trusted/domainkey ./internal/trusted/provision ./cmd/ehsm-dkeyserver
step "staticcheck" go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
step "staticcheck, build tag pkcs11" env CGO_ENABLED=1 go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 -tags pkcs11 ./internal/host/hsm ./cmd/ehsm-hsm
echo "== govulncheck: NOT RUN (its database is not reachable from here)"
step "PostgreSQL, for all tests" postgres
step "tests with the race detector" go_test -race -shuffle=on
step "tests, build tags tsm and ego" env CGO_ENABLED=1 go test -tags tsm,ego ./internal/trusted/tee/... ./internal/trusted/launch ./internal/trusted/channel ./internal/trusted/provision ./cmd/ehsm-core
step "tests on SoftHSM2, build tag pkcs11" env CGO_ENABLED=1 go test -race -shuffle=on -tags pkcs11 ./internal/host/hsm ./cmd/ehsm-hsm
step "slow vectors without the race detector" go test ./internal/trusted/primitive ./api/canon ./internal/attest/{dcap/verify,tdx,snp}
step "DCAP verification against another verifier" test/dcapdiff/run.sh
step "the measured binary, built twice" scripts/reproducible.sh
step "memory of keys, temporaries erased" env GOEXPERIMENT=runtimesecret go test -run "Keys|Home|Do" ./internal/trusted/secret ./internal/trusted/core
step "failpoints" go test -tags failpoints ./internal/failpoint
step "mutants" go test -tags mutants -run TestMutants -timeout 10m ./internal/trusted/core ./internal/trusted/hsmroot
step "fuzzing, a third of the targets" scripts/fuzz.sh 5s third
step "the README's commands, with those of docs/hsm.md" scripts/readme.sh
step "the examples of docs/api.md" scripts/docs.sh
step "the commands of docs/provisioning.md" scripts/provision.sh
step "the commands of docs/operations.md" scripts/operations.sh

echo
echo "budget:"
printf '%s\n' "${budget[@]}"
echo "total: $SECONDS s"
echo "$passed passed, 0 failed"
