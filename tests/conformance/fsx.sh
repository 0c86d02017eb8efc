#!/bin/bash
# fsx in a directory: `fsx.sh DIR [MOUNT]`. Random operations on a file, each read compared with what was written; three
# kinds at once. With MOUNT, snapshots are taken and deleted meanwhile.
set -eu

dir=$1
mount=${2:-}
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# kind, size of the file, size of an operation, weight of mapped operations, share of the operations in percent.
kind() {
    cat >"$work/$1.toml" <<END
flen = $2
[opsize]
# fallocate(2) refuses a length of 0.
min = 1
max = $3
[weights]
close_open = 1
invalidate = 1
read = 10
write = 10
mapread = $4
mapwrite = $4
truncate = 5
fsync = 0.05
fdatasync = 0.05
posix_fallocate = 1
punch_hole = 3
sendfile = 3
posix_fadvise = 1
copy_file_range = 3
END
    echo "$1: $((OPS * $5 / 100)) operations, seed $SEED" >&2
    fsx -f "$work/$1.toml" -N $((OPS * $5 / 100)) -S "$SEED" -P "$work" "$dir/fsx.$1" >"$work/$1.log" 2>&1
}
declare -A runs
kind small 300000 5000 0 55 & runs[small]=$!
kind large 4000000 150000 0 30 & runs[large]=$!
kind mapped 300000 30000 10 15 & runs[mapped]=$!
if [ -n "$mount" ]; then
    below=${dir#"$mount/live/"}
    "$here/snapshots.sh" "$mount" "$below/fsx.small" "$below/fsx.large" "$below/fsx.mapped" & snapshots=$!
fi
for kind in small large mapped; do
    if wait "${runs[$kind]}"; then echo "pass $kind"; else echo "fail $kind"; fi
    tail -50 "$work/$kind.log" >&2
done
if [ -n "$mount" ]; then
    kill "$snapshots"
    wait "$snapshots"
fi
rm -f "$dir"/fsx.*
