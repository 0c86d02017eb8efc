#!/bin/bash
# cargo builds a crate with its dependencies: `crate.sh DIR MOUNT`. What was built runs and counts as up to date, and a copy of
# the half-built directory from a snapshot can be built on.
set -eu
. "$(dirname "$0")/shots.sh"

dir=$1
mount=$2
out=$(mktemp -d "$WORK/crate.XXXXXX")
source=$(find "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/ -mindepth 1 -maxdepth 1 -name 'fsx-*' 2>/dev/null | tail -1)
if [ -z "$source" ]; then
    echo "skip crate"
    exit 0
fi
cp -r "$source" "$dir/crate"
cd "$dir/crate"
build() { CARGO_TARGET_DIR=$1 cargo build --release --locked -j2; }
build "$dir/target" >&2 &
sleep 10
pitfs -s "$mount" snap crate >&2
try crate wait "$!"
try runs "$dir/target/release/fsx" --version
fresh() { build "$1" 2>"$out/said" && cat "$out/said" && ! grep -q Compiling "$out/said"; }
try fresh fresh "$dir/target"
touch src/main.rs
must_fail fresh-control fresh "$dir/target"
cp -a "$mount/crate/${dir#"$mount/live/"}/target" "$out/target"
try crate-of-snapshot build "$out/target"
try runs-of-snapshot "$out/target/release/fsx" --version
pitfs -s "$mount" delete crate >&2
rm -rf "$out"
