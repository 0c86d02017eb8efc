#!/bin/bash
# Real programs in a directory, while snapshots are taken: `real.sh DIR MOUNT`. One line for each thing that must hold of them.
set -eu

here=$(dirname "$0")
for program in git crate sqlite postgres image; do
    mkdir "$1/$program"
    case $program in
    image | postgres) [ "$(id -u)" = 0 ] || { echo "skip $program"; continue; } ;;
    esac
    echo "== $program" >&2
    "$here/$program.sh" "$1/$program" "$2" || echo "fail $program.sh"
done
