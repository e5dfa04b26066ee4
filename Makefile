# Everything a maintainer types. `make test` is what the gate runs.
.PHONY: build hsm measured test long mutants bench fuzz

build:
	go build -trimpath -ldflags '-s -w' -o bin/ ./cmd/...

# The sidecar of HSMs, which takes a C compiler; that of build only says so.
hsm:
	CGO_ENABLED=1 go build -tags pkcs11 -trimpath -ldflags '-s -w' -o bin/ ./cmd/ehsm-hsm

# What a TEE measures: the same bytes for everybody, and bin/measured/measurements.json.
measured:
	scripts/build-core.sh

test:
	scripts/test.sh

# What takes longer than the gate may: kill loops, long fuzzing, large stores.
long:
	scripts/long.sh

mutants:
	go test -tags mutants -run TestMutants -timeout 20m ./internal/trusted/core ./internal/trusted/channel ./internal/trusted/provision ./internal/trusted/hsmroot ./internal/trusted/facts ./internal/trusted/recovery ./internal/wire/overview ./cmd/ehsm-dkeyserver

bench: build
	bin/ehsm bench
