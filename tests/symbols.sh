#!/bin/sh
# symbols.sh BINARY UNSTRIPPED: puts the debug information of a binary that was built with it beside the one without, if
# both are the same code.
set -eu
binary=$1
unstripped=$2

code() {
    objcopy -O binary --only-section=.text "$1" "$binary.code"
    sha256sum <"$binary.code"
    rm -f "$binary.code"
}

if [ "$(code "$binary")" != "$(code "$unstripped")" ]; then
    echo "symbols.sh: $unstripped is other code than $binary" >&2
    exit 1
fi
objcopy --only-keep-debug "$unstripped" "$binary.debug"
echo "$binary.debug"
