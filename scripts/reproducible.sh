#!/usr/bin/env bash
# Builds the measured binaries twice and compares the bytes: from two copies of the
# tree under different paths, with different umask, home, environment and time.
#
# Usage: scripts/reproducible.sh [cold]
#
# Both builds share the caller's build cache, which takes seconds; what they share
# is keyed without paths, so a path that got in would still differ in what is
# linked. With "cold" each compiles everything in a cache of its own, which takes
# minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
trap 'chmod -R u+w "$tmp"; rm -rf "$tmp"' EXIT
modules=$(go env GOMODCACHE)
cache=$(go env GOCACHE)

copy() { # DIR
	mkdir -p "$1"
	git ls-files -z --cached --others --exclude-standard -- ':!test/*' |
		while IFS= read -r -d '' f; do [ ! -e "$f" ] || printf '%s\0' "$f"; done |
		tar -c --null -T - -f - | tar -x -C "$1" -f -
}

build() { # DIR CACHE
	GOMODCACHE=$modules GOCACHE=$2 "$1/scripts/build-core.sh" "$1/out"
}

a=$tmp/a b=$tmp/another/place/with-a-longer-name
copy "$a"
copy "$b"
[ "${1:-}" != cold ] || cache=
echo "first build"
(umask 022; HOME=$tmp/home-a USER=a TZ=UTC LC_ALL=C build "$a" "${cache:-$tmp/cache-a}")
find "$b" -type f -exec touch -d 2001-02-03 {} +
echo "second build, elsewhere"
(umask 077; HOME=$tmp/home-b USER=b TZ=Asia/Tokyo LC_ALL=C.UTF-8 GOFLAGS=-tags=unwanted GOAMD64=v3 CGO_ENABLED=1 \
	build "$b" "${cache:-$tmp/cache-b}")

for f in $(cd "$a/out" && find . -name "ehsm-*"); do
	cmp "$a/out/$f" "$b/out/$f"
	for path in "$tmp" "$PWD" "$modules"; do
		if grep -qaF "$path" "$a/out/$f"; then
			echo "$f contains the path $path" >&2
			exit 1
		fi
	done
done
cmp "$a/out/measurements.json" "$b/out/measurements.json"
echo "two builds in different places are the same, byte for byte"
