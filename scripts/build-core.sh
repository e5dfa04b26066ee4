#!/usr/bin/env bash
# Builds the programs that TEEs measure, ehsm-core, ehsm-dkeycache and
# ehsm-dkeyserver, so that whoever has this source gets the same bytes: the toolchain that go.mod names, pinned modules, no paths,
# no version control stamp, nothing of the caller's environment.
#
# Usage: scripts/build-core.sh [OUTDIR]     default: bin/measured
#
# Writes OUTDIR/VARIANT/PROGRAM and OUTDIR/measurements.json, and prints for each
# of them its SHA-256 and its measurement (MRENCLAVE) on the simulated platform.
# Those of SGX depend on the run-time and its configuration too; `gramine-sgx-sign`
# and `ego uniqueid` print them.
# Variants, of which EHSM_VARIANTS (default "default tsm") names some:
#   default  platforms gramine and sim: pure Go, position independent as Gramine
#            wants it
#   tsm      platforms tsm, gramine and sim, and the verifiers of guests: pure Go,
#            static
#   ego      platforms ego, gramine and sim: needs ego-go of EGo 1.9 and its C
#            compiler; the same bytes only where both are the same
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-bin/measured}
variants=${EHSM_VARIANTS:-default tsm}
programs="ehsm-core ehsm-dkeycache ehsm-dkeyserver"
toolchain=$(sed -n 's/^toolchain //p' go.mod)
[ -n "$toolchain" ] || { echo "go.mod names no toolchain" >&2; exit 1; }
ldflags="-s -w -buildid="

# What may differ between two builders: where things are, and where modules come
# from. go.sum decides what they contain.
clean=(env -i PATH="$PATH" HOME="${HOME:-/}" TMPDIR="${TMPDIR:-/tmp}" GOENV=off)
for name in GOPATH GOMODCACHE GOCACHE GOPROXY GONOPROXY GOPRIVATE GOSUMDB GONOSUMDB; do
	clean+=("$name=$(go env "$name")")
done
for name in HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy SSL_CERT_FILE; do
	[ -z "${!name:-}" ] || clean+=("$name=${!name}")
done
# What may not.
clean+=(GOTOOLCHAIN="$toolchain" GOOS=linux GOARCH=amd64 GOAMD64=v1 GOEXPERIMENT= GOFIPS140=off GODEBUG=
	GOWORK=off GOFLAGS=-mod=readonly LC_ALL=C TZ=UTC)

# measure prints what the simulated platform measures of a program.
measure() { # FILE
	"${clean[@]}" CGO_ENABLED=0 go run -buildvcs=false ./cmd/ehsm-simtee measure --output json "$1" |
		sed -n 's/.*"mrenclave": *"\([0-9a-f]\{64\}\)".*/\1/p'
}

flags() { # VARIANT
	case $1 in
	default) echo "-buildmode=pie" ;;
	tsm) echo "-tags=tsm" ;;
	ego) echo "-tags=ego" ;;
	*) echo "unknown variant $1" >&2; return 1 ;;
	esac
}

build() { # VARIANT
	local go=go cgo=0 own
	own=$(flags "$1")
	if [ "$1" = ego ]; then
		command -v ego-go >/dev/null || { echo "variant ego needs ego-go, of EGo 1.9, in the PATH" >&2; return 1; }
		go=ego-go cgo=1
	fi
	mkdir -p "$out/$1"
	local p packages=()
	for p in $programs; do packages+=("./cmd/$p"); done
	"${clean[@]}" CGO_ENABLED=$cgo "$go" build -trimpath -buildvcs=false -ldflags="$ldflags" "$own" -o "$out/$1/" "${packages[@]}"
	# Modes are no part of what is measured, but of archives.
	for p in $programs; do chmod 0755 "$out/$1/$p"; done
}

# source says what was built, where version control knows it.
commit=$(git rev-parse HEAD 2>/dev/null || true)
clean_tree=false
[ -z "$commit" ] || [ -n "$(git status --porcelain 2>/dev/null)" ] || clean_tree=true

entries= separator=
for v in $variants; do
	build "$v"
	for p in $programs; do
		sum=$(sha256sum "$out/$v/$p" | cut -d' ' -f1)
		built=$(go version "$out/$v/$p" | sed 's/.*: //')
		simulated=$(measure "$out/$v/$p")
		[ -n "$simulated" ] || { echo "ehsm-simtee measures nothing of $out/$v/$p" >&2; exit 1; }
		printf '%-8s %-16s SHA-256              %s\n%-8s %-16s simulated MRENCLAVE  %s\n' "$v" "$p" "$sum" "$v" "$p" "$simulated"
		entries+=$(cat <<END
$separator
    {
      "variant": "$v",
      "file": "$v/$p",
      "sha256": "$sum",
      "simulatedMRENCLAVE": "$simulated",
      "go": "$built",
      "flags": "-trimpath -buildvcs=false -ldflags='$ldflags' $(flags "$v")"
    }
END
		)
		separator=,
	done
done
cat > "$out/measurements.json" <<END
{
  "format": "ehsm-measurements/v1",
  "commit": "$commit",
  "clean": $clean_tree,
  "toolchain": "$toolchain",
  "binaries": [$entries
  ]
}
END
