#!/bin/sh
# fio in a directory: `fio.sh DIR`. Writes in every way there is and verifies each block. One line for each way.
set -eu

dir=$1
way() {
    name=$1
    shift
    for pattern in write randwrite randrw; do
        if ! fio --name="$name-$pattern" --directory="$dir" --rw="$pattern" --size=24m --numjobs=2 --group_reporting \
            --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed="$SEED" --unlink=1 --verify_state_save=0 "$@" >&2; then
            echo "fail $name"
            return
        fi
    done
    echo "pass $name"
}
odd='--bsrange=512-160k --bs_unaligned=1'
# shellcheck disable=SC2086
{
    way psync --ioengine=psync $odd
    way psync-direct --ioengine=psync --direct=1 --bsrange=4k-128k
    way pvsync2 --ioengine=pvsync2 $odd
    way pvsync2-direct --ioengine=pvsync2 --direct=1 --bs=64k
    way sync-fsync --ioengine=sync --bsrange=4k-64k --fsync=32
    way sync-fdatasync --ioengine=sync --bsrange=4k-64k --fdatasync=32
    way sync-end-fsync --ioengine=sync $odd --end_fsync=1
    way sync-o-sync --ioengine=sync --bs=256k --sync=1
    way sync-range --ioengine=sync --bsrange=4k-64k --sync_file_range=write:16
    way libaio --ioengine=libaio --iodepth=16 --bsrange=4k-64k
    way libaio-direct --ioengine=libaio --iodepth=16 --direct=1 --bs=4k
    way io_uring --ioengine=io_uring --iodepth=16 --bsrange=4k-64k
    way io_uring-direct --ioengine=io_uring --iodepth=16 --direct=1 --bs=16k
    way posixaio --ioengine=posixaio --iodepth=8 --bsrange=4k-64k
    way mmap --ioengine=mmap --bsrange=4k-64k
    way mmap-fsync --ioengine=mmap --bs=8k --fsync=64
    way splice --ioengine=splice --bs=64k
    way backlog --ioengine=psync --bs=4k --verify_backlog=64
    way preallocated --ioengine=psync --bsrange=4k-64k --fallocate=posix
    way invalidated --ioengine=psync --bsrange=4k-64k --invalidate=1 --fadvise_hint=random
}
