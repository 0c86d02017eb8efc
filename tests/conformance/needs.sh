#!/bin/sh
# Makes sure that what the suites need is there: installs it when root and a package manager is known, names the
# command when not. The test programs that come as crates go to $TOOLS.
set -eu

missing=
# A file that comes with the package, and the package.
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
need fusermount3 fuse3
need stress-ng stress-ng
need fio fio
need mkfs.ext4 e2fsprogs
need git git
need sqlite3 sqlite3
need setfattr attr
need setfacl acl
ls -d /usr/lib/postgresql/*/bin/pgbench >/dev/null 2>&1 || missing="$missing postgresql"
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "installing:$missing"
        apt-get update -qq
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing >/dev/null
        case $missing in
        # The package makes a server and starts it; nobody asked for that one.
        *postgresql*) pg_lsclusters -h | while read -r version name _; do pg_dropcluster --stop "$version" "$name"; done ;;
        esac
    else
        echo "missing packages:$missing" >&2
        echo "install them with: sudo apt-get install$missing" >&2
        exit 1
    fi
fi
for crate in pjdfstest fsx; do
    if [ ! -x "$TOOLS/bin/$crate" ]; then
        ${CARGO:-cargo} install --quiet --locked --root "$TOOLS" "$crate"
    fi
done
