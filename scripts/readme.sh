#!/usr/bin/env bash
# Runs the commands of README.md as they stand there, as a new user would: in a
# copy of the tree, with an empty home.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/markdown.sh
mkdir "$tmp/clone"
git ls-files -z --cached --others --exclude-standard | tar -c --null -T - -f - | tar -x -C "$tmp/clone" -f -
cd "$tmp/clone"

# background runs a block in a process group of its own, as its last command may
# start others.
background() { # NAME
	blocks README.md "$1" > "$tmp/$1.sh"
	setsid bash -eu "$tmp/$1.sh" > "$tmp/$1.log" 2>&1 &
	pids+=("-$!")
}

# stop_last ends what runs in the background.
stop_last() {
	kill -- "${pids[0]}"
	wait 2>/dev/null || true
	pids=()
}

url=https://127.0.0.1:9000
if curl -sk "$url/healthz" >/dev/null 2>&1; then
	echo "something else listens on $url; stop it first" >&2
	exit 1
fi
echo "README: dev"
background dev
reachable "$url"

# The next step that `ehsm dev` prints, a moment later, works when pasted.
for _ in $(seq 100); do
	next=$(sed -n 's/^ *next: *//p' "$tmp/dev.log" | head -n 1)
	[ -z "$next" ] || break
	sleep 0.1
done
cat "$tmp/dev.log"
[ -n "$next" ] || { echo "ehsm dev printed no next step" >&2; exit 1; }
echo "README: next step: $next"
bash -eu -c "$next"

echo "README: run"
{ echo 'set -euo pipefail'; blocks README.md run; } > "$tmp/run.sh"
bash "$tmp/run.sh"

stop_last
echo "README: split"
export PATH="$tmp/clone/bin:$PATH"
{ blocks README.md split; echo wait; } > "$tmp/split.sh"
setsid bash -eu "$tmp/split.sh" > "$tmp/split.log" 2>&1 &
pids+=("-$!")
reachable "$url"
KEY=$(ehsm --profile dev key create)
echo "split" | ehsm --profile dev encrypt --key "$KEY" | ehsm --profile dev decrypt

stop_last
echo "README: cluster"
{ echo 'trap : TERM'; blocks README.md cluster; } > "$tmp/cluster.sh" # which ends when all that it has started has ended
setsid bash -eu "$tmp/cluster.sh" > "$tmp/cluster.log" 2>&1 &
pids+=("-$!")
for n in 0 1 2; do reachable "https://127.0.0.1:900$n"; done
for _ in $(seq 100); do
	! grep -q 'eHSM-KMS is ready' "$tmp/cluster.log" || break # and has written the profiles
	sleep 0.1
done
cat "$tmp/cluster.log"
{ echo 'set -euo pipefail'; blocks README.md cluster-use; } > "$tmp/cluster-use.sh"
timeout 180 bash "$tmp/cluster-use.sh" > "$tmp/use.txt" 2> "$tmp/use.log" || { cat "$tmp"/{use.txt,use.log,cluster.log} >&2; exit 1; }
cat "$tmp/use.txt"
grep -Eqx ' *30 any node' "$tmp/use.txt" && grep -qx "refused, as it should be" "$tmp/use.txt"
[ "$(tail -n 1 "$tmp/use.txt")" = "any node" ]
grep -q 'restored the DomainKey, versions \[1 2\]' "$tmp/use.log"

stop_last
echo "README: hsm"
{ echo 'set -euo pipefail'; blocks README.md hsm; } > "$tmp/hsm.sh"
bash "$tmp/hsm.sh"
echo "README: all commands work"
