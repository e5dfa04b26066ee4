#!/usr/bin/env bash
# Runs the commands of README.md as they stand there, as a new user would: in a
# copy of the tree, with an empty home.
set -euo pipefail
cd "$(dirname "$0")/.."
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
unset EHSM_ADDR EHSM_SERVER_URL EHSM_APPID EHSM_APIKEY EHSM_INSECURE
mkdir -p "$HOME" "$tmp/clone"
git ls-files -z --cached --others --exclude-standard | tar -c --null -T - -f - | tar -x -C "$tmp/clone" -f -
cd "$tmp/clone"

# blocks prints the shell blocks of README.md that follow a marker.
blocks() {
	awk -v mark="<!-- $1 -->" '$0 == mark {on=1; next} on && /^```sh/ {code=1; next} /^```/ {if (code) on=0; code=0} code' README.md
}

# background runs a block in a process group of its own, as its last command may
# start others.
background() { # NAME
	blocks "$1" > "$tmp/$1.sh"
	setsid bash -eu "$tmp/$1.sh" > "$tmp/$1.log" 2>&1 &
	pids+=("-$!")
}

# reachable waits until the service answers.
reachable() {
	for _ in $(seq 600); do
		curl -sk https://127.0.0.1:9000/readyz 2>/dev/null | grep -q '"ready":true' && return
		sleep 0.1
	done
	echo "the service does not answer; its output:" >&2
	cat "$tmp"/*.log >&2
	exit 1
}

if curl -sk https://127.0.0.1:9000/healthz >/dev/null 2>&1; then
	echo "something else listens on 127.0.0.1:9000; stop it first" >&2
	exit 1
fi
echo "README: dev"
background dev
reachable
cat "$tmp/dev.log"

# The next step that `ehsm dev` prints works when pasted.
next=$(sed -n 's/^ *next: *//p' "$tmp/dev.log" | head -n 1)
[ -n "$next" ] || { echo "ehsm dev printed no next step" >&2; exit 1; }
echo "README: next step: $next"
bash -eu -c "$next"

echo "README: run"
{ echo 'set -euo pipefail'; blocks run; } > "$tmp/run.sh"
bash "$tmp/run.sh"

kill -- "${pids[0]}"
wait 2>/dev/null || true
pids=()
echo "README: split"
export PATH="$tmp/clone/bin:$PATH"
{ blocks split; echo wait; } > "$tmp/split.sh"
setsid bash -eu "$tmp/split.sh" > "$tmp/split.log" 2>&1 &
pids+=("-$!")
reachable
KEY=$(ehsm key create)
echo "split" | ehsm encrypt --key "$KEY" | ehsm decrypt
echo "README: all commands work"
