#!/bin/bash
# `make conformance`: public test suites and real programs over pitfs, over the device and, as root and where the kernel has them,
# over rings; and the suites over ext4 as a control.
#
#   SUITES         which to run: pjdfstest fio stress fsx real
#   OPS            operations of fsx as root; a quarter of them as a normal user, a tenth on ext4
#   SECONDS_EACH   for each stressor of stress-ng
#   SNAPSHOTS      how many each of the real programs is put through
#   SEED           of what is random
#
# Results and logs go to $OUT/log, SUITE.USER.PLACE each. Fails if something passes on ext4, does not on pitfs, and is not in
# known.txt. Nothing else is left behind.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
OUT=${OUT:-target/conformance}
rm -rf "$OUT/log"
mkdir -p "$OUT/log"
OUT=$(cd "$OUT" && pwd)
BIN=$(realpath "${BIN:-target/release/pitfs}")
export TOOLS=${TOOLS:-$OUT/tools} OPS=${OPS:-2000000} SECONDS_EACH=${SECONDS_EACH:-2} SNAPSHOTS=${SNAPSHOTS:-6}
export SEED=${SEED:-$RANDOM}
SUITES=${SUITES:-pjdfstest fio stress fsx real}
root=
if [ "$(id -u)" = 0 ]; then root=1; fi

sh "$here/needs.sh"
if [ ! -e /dev/fuse ]; then
    echo "not run: /dev/fuse is missing" >&2
    exit 1
fi
work=$(mktemp -d "${TMPDIR:-/var/tmp}/pitfs.XXXXXX")
# shellcheck source=tests/conformance/places.sh
. "$here/places.sh"
trap clear_away EXIT
trap 'exit 130' INT TERM HUP

# Copies, since a normal user may not be able to look into the source tree.
mkdir "$work/bin" "$work/second" "$work/tmp"
cp "$BIN" "$work/bin/pitfs"
cp "$TOOLS"/bin/* "$here"/*.sh "$work/bin"
# mount(8) hands the remounting of FUSE to a helper; pjdfstest wants the system call.
printf '#!/bin/sh\nexec %s -i "$@"\n' "$(command -v mount)" >"$work/bin/mount"
chmod -R go+rX "$work" "$work/bin"
chmod 755 "$work/bin/mount"
chmod 1777 "$work/second" "$work/tmp"
export WORK=$work SECOND=$work/second TMPDIR=$work/tmp PATH=$work/bin:$PATH

# suite NAME USER PLACE ARGUMENT...: runs NAME.sh there and keeps what it says.
suite() {
    local name=$1 who=$2 at=$3 label=user
    shift 3
    case " $SUITES " in *" $name "*) ;; *) return 0 ;; esac
    if [ "$who" = root ]; then label=root; fi
    local result=$OUT/log/$name.$label.$at dir
    dir=$(place "$at")/$label
    as "$who" mkdir "$dir"
    run as "$who" "$work/bin/$name.sh" "$dir" "$@" >"$result" 2>"$result.log" || echo "fail $name.sh" >>"$result"
    as "$who" rm -rf "$dir"
    line "$result"
}
line() {
    local fields
    IFS=. read -ra fields <<<"${1##*/}"
    printf '%-10s %-5s %-6s' "${fields[@]:0:3}"
    printf '%5d %s' "$(grep -c '^pass' "$1")" passed "$(grep -c '^fail' "$1")" failed "$(grep -c '^skip' "$1")" skipped
    echo
}
names() { [ ! -e "$2" ] || awk -v word="$1" '$1 == word { print $2 }' "$2" | sort; }

# What passes on ext4 and does not here, and what fails here and is not tried there.
deviations() {
    local control=${1%.*}.ext4
    {
        comm -23 <(names pass "$control") <(names pass "$1")
        comm -23 <(names fail "$1") <(names fail "$control")
    } | sort -u
}

make_place ext4
make_place pitfs
rings=
if offer_rings; then rings=rings; fi
if [ "$root" ]; then
    make_user
    make_place own
    [ ! "$rings" ] || make_place rings
    for name in pjdfstest fio stress; do
        suite $name root ext4
        for at in pitfs $rings; do suite $name root "$at"; done
        suite $name "$user" ext4
        for at in pitfs $rings; do
            if [ $name = pjdfstest ]; then suite $name "$user" "$at"; fi
        done
        suite $name "$user" own
    done
    OPS=$((OPS / 10)) suite fsx root ext4
    for at in pitfs $rings; do suite fsx root "$at" "$work/$at"; done
    OPS=$((OPS / 4)) suite fsx "$user" own "$work/own"
    for at in pitfs $rings; do suite real root "$at" "$work/$at"; done
else
    me=$(id -un)
    for name in pjdfstest fio stress; do
        suite $name "$me" ext4
        suite $name "$me" pitfs
    done
    OPS=$((OPS / 10)) suite fsx "$me" ext4
    suite fsx "$me" pitfs "$work/pitfs"
    suite real "$me" pitfs "$work/pitfs"
fi

echo
echo 'suite      user  place    results'
bad=0
for result in "$OUT"/log/*; do
    case $result in *.log) continue ;; esac
    line "$result"
done
for result in "$OUT"/log/*.pitfs "$OUT"/log/*.rings "$OUT"/log/*.own; do
    [ -e "$result" ] || continue
    name=${result##*/}
    for deviation in $(deviations "$result"); do
        reason=$(awk -v suite="${name%%.*}" -v name="$deviation" \
            '$1 == suite && $2 == name { $1 = $2 = ""; print substr($0, 3) }' "$here/known.txt")
        if [ "$reason" ]; then
            echo "known: $name $deviation: $reason"
        else
            echo "DEVIATION: $name $deviation, see $result.log"
            bad=$((bad + 1))
        fi
    done
done
echo "$bad deviations, seed $SEED"
[ "$bad" = 0 ]
