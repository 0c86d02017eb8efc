#!/bin/bash
# Takes and deletes snapshots until it is told to end: `snapshots.sh MOUNT FILE...`, files below live. What a snapshot shows
# of them must be the same right after it was taken and before it is deleted.
set -eu

mount=$1
shift
ended=
trap 'ended=1' TERM
taken=0
changed=0
declare -A was

# Not from the kernel's memory: O_DIRECT asks the daemon.
sums() {
    local file
    for file in "$@"; do
        if [ -e "$file" ]; then dd if="$file" iflag=direct bs=64K status=none | sha256sum; else echo none; fi
    done
}
in_snapshot() { (cd "$mount/$1" && shift && sums "$@"); }
finish() {
    now=$(in_snapshot "$1" "${files[@]}")
    if [ "$now" != "${was[$1]}" ]; then
        changed=$((changed + 1))
        echo "snapshot $1 changed from ${was[$1]} to $now" >&2
    fi
    pitfs -s "$mount" delete "$1" || changed=$((changed + 1))
}
files=("$@")
# The comparison can fail: files that are written to have other sums in the end.
control=$(cd "$mount/live" && sums "${files[@]}")
while [ -z "$ended" ]; do
    taken=$((taken + 1))
    pitfs -s "$mount" snap "s$taken" >/dev/null || changed=$((changed + 1))
    was[s$taken]=$(in_snapshot "s$taken" "${files[@]}")
    if [ $taken -gt 5 ]; then finish "s$((taken - 5))"; fi
    sleep 0.3
done
last=$((taken > 5 ? taken - 4 : 1))
for number in $(seq $last $taken); do finish "s$number"; done
echo "$taken snapshots" >&2
if [ "$changed" = 0 ]; then echo "pass snapshots"; else echo "fail snapshots"; fi
if [ "$control" != "${was[s$taken]}" ]; then echo "pass snapshots-control"; else echo "fail snapshots-control"; fi
