#!/bin/sh
# The file system stressors of stress-ng in a directory: `stress.sh DIR`. One line for each.
set -eu

# Left out are those that concern no directory (binderfs, dup, eventfd, ioprio, procfs), make mounts of their own
# (bind-mount) or sync the whole machine (io). The last line is of other classes.
stressors='access chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dnotify fallocate fanotify fcntl fiemap
    file-ioctl filename flock fpunch fsize fstat getdent handle hdd inode-flags inotify iomix lease link locka lockf
    lockofd mknod open rename symlink sync-file touch utime verity xattr
    aio aiol mmap msync readahead revio seek sendfile'
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for stressor in $stressors; do
    case $stressor in
    copy-file) more='--copy-file-bytes 128M' ;;
    fallocate | fiemap | hdd | iomix | msync | readahead | sync-file) more="--$stressor-bytes 32M" ;;
    mmap) more='--mmap-bytes 16M --mmap-file' ;;
    *) more= ;;
    esac
    code=0
    # shellcheck disable=SC2086
    stress-ng "--$stressor" 1 $more --timeout "$SECONDS_EACH" --verify --temp-path "$1" >"$log" 2>&1 || code=$?
    case $code in
    0) if grep -q 'skipping stress' "$log"; then echo "skip $stressor"; else echo "pass $stressor"; fi ;;
    3 | 4) echo "skip $stressor" ;;
    *) echo "fail $stressor" ;;
    esac
    { echo "== $stressor: $code" && cat "$log"; } >&2
done
