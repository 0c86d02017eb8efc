#!/bin/bash
# Clones, commits, repacks and collects garbage while snapshots are taken: `git.sh DIR MOUNT`. The repository of each snapshot
# must pass fsck and have the commits of before.
set -eu
. "$(dirname "$0")/shots.sh"

dir=$1
mount=$2
out=$(mktemp -d "$WORK/git.XXXXXX")
export GIT_CONFIG_GLOBAL=$out/config GIT_CONFIG_NOSYSTEM=1
git config --global safe.directory '*'
git config --global user.name conformance
git config --global user.email conformance@invalid
git config --global init.defaultBranch main

# Something large and real to clone: the sources of crates, as far as cargo has them.
git init -q "$out/source"
find "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/ -mindepth 1 -maxdepth 1 -type d 2>/dev/null | sort | head -60 |
    while read -r crate; do cp -r "$crate" "$out/source"; done
seq 200000 >"$out/source/numbers"
for half in '[a-m]*' '.'; do
    # shellcheck disable=SC2086
    (cd "$out/source" && git add -f $half && git commit -q -m "$half") || true
done

try clone git clone -q --no-local "$out/source" "$dir/repository"
cd "$dir/repository"
try fsck git fsck --full --no-dangling
try same diff -r --exclude=.git "$out/source" .

work() {
    local number=0
    until [ -e "$out/stop" ]; do
        number=$((number + 1))
        seq "$number" $((number + 2000)) >"file.$((number % 17))"
        git add -A
        git commit -q -m "$number"
        echo "$number" >>"$out/done"
        case $((number % 10)) in
        3) git repack -q -a -d ;;
        6) git gc -q --prune=now ;;
        9) git checkout -q -b "branch.$number" && git checkout -q main && git merge -q "branch.$number" ;;
        esac
    done
}
verify() {
    local commits
    git --git-dir="$1/.git" fsck --full --no-dangling &&
        commits=$(git --git-dir="$1/.git" rev-list --count HEAD) &&
        echo "$commits commits, $base of them from before" &&
        [ "$commits" -ge $((base + $2)) ] && [ "$commits" -le $((base + $3 + 1)) ]
}
base=$(git rev-list --count HEAD)
snapshots git "$mount" "$dir/repository" work
must_fail git-control-count verify "$dir/repository" 1000000 1000000
cp -a "$dir/repository" "$out/broken"
find "$out/broken/.git/objects" -name '*.pack' -exec chmod u+w {} + -exec truncate -s -5000 {} +
must_fail git-control-fsck verify "$out/broken" 0 1000000
rm -rf "$out"
