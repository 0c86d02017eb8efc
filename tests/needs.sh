#!/bin/sh
# Makes sure that what building, mounting and testing need is there: installs it when root and a package
# manager is known, names the command when not. With `test`, also what a test can do without.
set -eu

missing=
command -v fusermount3 >/dev/null 2>&1 || missing="$missing fuse3"
command -v cc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
command -v setfacl >/dev/null 2>&1 || missing="$missing acl"
command -v setfattr >/dev/null 2>&1 || missing="$missing attr"
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "installing:$missing"
        apt-get update -qq
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing >/dev/null
    else
        echo "missing packages:$missing" >&2
        echo "install them with: sudo apt-get install$missing" >&2
        exit 1
    fi
fi
# Only root runs the test that needs it.
has_samba() {
    command -v smbclient >/dev/null 2>&1 &&
        [ -e "$(/usr/sbin/smbd -b 2>/dev/null | sed -n 's/^ *MODULESDIR: //p')/vfs/shadow_copy2.so" ]
}
if [ "${1-}" = test ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 && ! has_samba; then
    echo "installing: samba samba-vfs-modules smbclient"
    if apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends samba samba-vfs-modules smbclient >/dev/null; then
        # The package starts servers; nobody asked for those.
        systemctl disable --now smbd nmbd samba-ad-dc >/dev/null 2>&1 || true
    else
        echo "note: samba could not be installed; the test with it reports itself as not run" >&2
    fi
fi
if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
    echo "cargo fmt or cargo clippy is missing; install them with: rustup component add rustfmt clippy" >&2
    exit 1
fi
if [ ! -e /dev/fuse ]; then
    echo "note: /dev/fuse is missing; tests that mount report themselves as not run (try: modprobe fuse)" >&2
fi
