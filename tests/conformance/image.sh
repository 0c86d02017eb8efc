#!/bin/bash
# An ext4 image, mounted and written to while snapshots are taken: `image.sh DIR MOUNT`. A snapshot of it is a power cut: the
# journal is replayed by mounting a copy, then e2fsck finds nothing and every file that was synced before is there.
set -eu
. "$(dirname "$0")/shots.sh"

dir=$1
mount=$2
out=$(mktemp -d "$WORK/image.XXXXXX")
mkdir "$out/fs" "$out/copied"
truncate -s 200M "$dir/image"
mkfs.ext4 -q -F "$dir/image"
mount -o loop "$dir/image" "$out/fs"

content() { seq "$1" $(($1 + 1500)); }
work() {
    local number=0 in
    until [ -e "$out/stop" ]; do
        number=$((number + 1))
        in=$out/fs/$((number % 20))
        mkdir -p "$in"
        content "$number" >"$in/new"
        sync "$in/new"
        mv "$in/new" "$in/$number"
        sync "$in"
        echo "$number" >>"$out/done"
        rm -f "$out/fs"/*/$((number - 400))
        [ $((number % 30)) != 0 ] || { rm -rf "$in.copy" && cp -r "$in" "$in.copy"; }
    done
}
verify() {
    local number is=0
    cp --sparse=always "$1" "$out/copy"
    # Only the journal may be in the way: it was cut off while mounted.
    dumpe2fs -h "$out/copy" 2>&1 | grep '^Filesystem features' | grep needs_recovery || echo "nothing to replay"
    mount -o loop "$out/copy" "$out/copied" || return 1
    for number in $(seq $(($2 > 300 ? $2 - 300 : 1)) "$2"); do
        if ! content "$number" | cmp - "$out/copied/$((number % 20))/$number"; then
            echo "$number of $2 is missing or wrong"
            is=1
        fi
    done
    umount "$out/copied"
    e2fsck -fn "$out/copy" 2>&1 || is=1
    return $is
}
snapshots image "$mount" "$dir/image" work
umount "$out/fs"
try image-e2fsck e2fsck -fn "$dir/image"
must_fail image-control-files verify "$dir/image" 1000000 1000000
dd if=/dev/zero of="$dir/image" bs=4096 seek=2 count=30 conv=notrunc status=none
must_fail image-control-e2fsck verify "$dir/image" 0 0
rm -rf "$out"
