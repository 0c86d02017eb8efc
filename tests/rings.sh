#!/bin/sh
# Runs the tests that mount, once more, with requests coming through the kernel's rings. Root has the kernel offer them for as long
# as that lasts; where it cannot, nothing is run, and that is said.
#
#   tests/rings.sh [NAME…]     only these files of tests/
set -u

parameter=/sys/module/fuse/parameters/enable_uring
if [ "$(id -u)" != 0 ] || ! [ -w "$parameter" ]; then
    echo "not run: rings for FUSE need Linux 6.14 with CONFIG_FUSE_IO_URING, and root"
    exit 0
fi
before=$(cat "$parameter")
trap 'echo "$before" > "$parameter"' EXIT
trap 'exit 1' INT TERM
echo Y > "$parameter" || exit 1

if [ $# = 0 ]; then
    # All that mount: they have this module.
    # shellcheck disable=SC2046
    set -- $(grep -rl --include='*.rs' '^ *mod mounted' tests | sed 's|^tests/||; s|/.*||; s|\.rs$||' | sort -u | grep -v '^soak$')
fi
names=""
for name in "$@"; do
    names="$names --test $name"
done
exec_status=0
# shellcheck disable=SC2086
${CARGO:-cargo} test --locked --no-fail-fast --config 'profile.dev.package.pitfs.opt-level=1' $names || exec_status=$?
exit $exec_status
