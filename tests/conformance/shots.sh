# What the real programs share, to be sourced: one line for each thing tried, and snapshots while a program works.
# shellcheck shell=bash

# try NAME COMMAND...
try() {
    if "${@:2}" >&2; then echo "pass $1"; else echo "fail $1"; fi
}
# A check that cannot fail shows nothing: must_fail NAME COMMAND...
must_fail() {
    if "${@:2}" >&2; then echo "fail $1"; else echo "pass $1"; fi
}

# snapshots NAME MOUNT PATH WORKER: takes $SNAPSHOTS of them while the worker, a function, works below PATH until there is a file
# $out/stop and adds a line to $out/done for each step that is finished. Then, for each, calls
# `verify PATH-IN-THE-SNAPSHOT BEFORE AFTER` with the number of steps that were finished before and after it was taken.
snapshots() {
    local name=$1 mount=$2 path=$3 number snapshot before after worker
    : >"$out/done"
    "$4" >&2 &
    worker=$!
    for number in $(seq "$SNAPSHOTS"); do
        sleep 2
        snapshot=$name.$number
        before=$(wc -l <"$out/done")
        pitfs -s "$mount" snap "$snapshot" >&2 || true
        after=$(wc -l <"$out/done")
        echo "$snapshot: $before to $after steps" >&2
        try "$snapshot" verify "$mount/$snapshot/${path#"$mount/live/"}" "$before" "$after"
    done
    touch "$out/stop"
    try "$name.worker" wait "$worker"
    pitfs -s "$mount" delete $(seq -f "$name.%.0f" "$SNAPSHOTS") >&2
}
