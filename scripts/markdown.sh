# What the scripts that run documentation have in common; sourced by them, from
# the root of the tree. It gives them a directory of their own, $tmp, with an
# empty home, and removes it and what they started at their end.
tmp=$(mktemp -d)
pids=()
stop() {
	for pid in "${pids[@]}"; do kill -- "$pid" 2>/dev/null || true; done
	wait 2>/dev/null || true
	chmod -R u+w "$tmp" 2>/dev/null || true
	rm -rf "$tmp"
}
trap stop EXIT

export GOMODCACHE=$(go env GOMODCACHE) GOCACHE=$(go env GOCACHE)
export HOME=$tmp/home XDG_STATE_HOME=$tmp/home/state XDG_CONFIG_HOME=$tmp/home/config
export DATA=$XDG_STATE_HOME/ehsm
unset "${!EHSM_@}"
mkdir -p "$HOME"

# blocks prints the shell blocks of a file, those that follow a marker if one is
# named.
blocks() { # FILE [MARKER]
	awk -v mark="${2:+<!-- $2 -->}" '
		mark == "" {on=1}
		$0 == mark {on=1; next}
		on && /^```sh/ {code=1; next}
		/^```/ {if (code) on=0; code=0}
		code' "$1"
}

# reachable waits until the service at a URL answers.
reachable() { # URL
	for _ in $(seq 600); do
		curl -sk "$1/readyz" 2>/dev/null | grep -q '"ready":true' && return
		sleep 0.1
	done
	echo "the service does not answer; its output:" >&2
	cat "$tmp"/*.log >&2
	exit 1
}
