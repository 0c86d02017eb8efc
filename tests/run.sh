#!/bin/sh
# `make run` and `make stop`: a store from a real directory, shown at a mount point, with a first snapshot.
set -eu

store="$RUN_DIR/store"
case "${1:-}" in
start)
    if [ -e "$store" ]; then
        echo "there is a store at $store already; \`make stop\` ends and removes it" >&2
        exit 1
    fi
    if [ ! -d "$FROM" ]; then
        echo "FROM=$FROM is not a directory" >&2
        exit 1
    fi
    mkdir -p "$RUN_DIR" "$SNAP"
    "$BIN" create "$store" --from "$FROM" --exclude /target --exclude .git --exclude "/${SNAP#./}" --exclude "/${RUN_DIR#./}"
    "$BIN" mount "$store" "$SNAP"
    name=$("$BIN" -s "$SNAP" snap first)
    echo
    echo "$FROM is stored in $store and shown at $SNAP:"
    ls "$SNAP"
    echo
    echo "Try next:"
    # As it is typed from here.
    shown=${BIN#"$PWD"/}
    try() { printf '  %-52s # %s\n' "$1" "$2"; }
    try "echo new > $SNAP/live/NEW" "work in live"
    try "mkdir $SNAP/second" "take another snapshot"
    try "diff -r $SNAP/$name $SNAP/live" "compare"
    try "$shown -s $SNAP diff $name" "the same, in time that follows the change"
    try "$shown -s $SNAP list" "the snapshots"
    try "$shown -s $SNAP status" "what takes how much room"
    try "$shown -s $SNAP check" "read and verify everything"
    try "make stop" "end it and remove the store"
    ;;
stop)
    if [ -e "$store" ]; then
        "$BIN" umount "$SNAP" || "$BIN" umount --lazy "$SNAP" || true
        rm -rf "$store"
        rmdir "$RUN_DIR" "$SNAP" 2>/dev/null || true
        echo "ended"
    else
        echo "nothing to end: there is no store at $store"
    fi
    ;;
*)
    echo "usage: run.sh start|stop" >&2
    exit 2
    ;;
esac
