# Directories for the suites, to be sourced: file systems, a user, and what ends them. All of it lies in $work.
# shellcheck shell=bash

user=pitfs-$$

# Runs a command in its own process group, so that an interruption can end all of it at once.
group=
run() {
    set -m
    "$@" &
    group=$!
    set +m
    wait "$group"
}

# as USER COMMAND...
as() {
    local who=$1
    shift
    if [ "$who" = "$(id -un)" ]; then
        "$@"
    else
        HOME=$work/home setpriv --reuid "$who" --regid "$(id -g "$who")" --init-groups --inh-caps=-all -- "$@"
    fi
}

# The user who is not root, for this run; /dev/fuse is closed to users on some machines and lent then.
lent=
make_user() {
    id "$user" >/dev/null 2>&1 || useradd --no-create-home --home-dir "$work/home" "$user"
    mkdir "$work/home" && chown "$user:" "$work/home"
    local mode
    mode=$(stat -c %a /dev/fuse)
    if [ $((0$mode & 6)) != 6 ]; then
        lent=$mode
        chmod 666 /dev/fuse
    fi
}

# Root has the kernel offer rings for as long as this lasts, if it has them.
parameter=/sys/module/fuse/parameters/enable_uring
were_on=
offer_rings() {
    if [ ! "$root" ] || [ ! -w $parameter ]; then
        echo "not run over rings: they need Linux 6.14 with CONFIG_FUSE_IO_URING, and root" >&2
        return 1
    fi
    were_on=$(cat $parameter)
    echo Y >$parameter
}

# make_place KIND: a mount at $work/KIND. The directory to work in is place KIND.
make_place() {
    local at=$work/$1
    mkdir "$at"
    case $1 in
    ext4)
        # Without root the control is the file system that $work is on.
        [ "$root" ] || return 0
        truncate -s 6G "$at.img"
        mkfs.ext4 -q -F "$at.img"
        mount -o loop "$at.img" "$at"
        chmod 1777 "$at"
        ;;
    pitfs | rings)
        local uring=off
        [ "$1" = pitfs ] || uring=on
        pitfs create "$at.store" >&2
        pitfs mount -o "io_uring=$uring${root:+,allow_other,suid,dev}" "$at.store" "$at"
        chmod 1777 "$at/live"
        ;;
    own)
        # Mounted by the normal user, through fusermount3, and over rings where there are some.
        chown "$user:" "$at"
        as "$user" pitfs create "$work/home/store" >&2
        as "$user" pitfs mount "$work/home/store" "$at"
        ;;
    esac
}
place() { if [ "$1" = ext4 ]; then echo "$work/ext4"; else echo "$work/$1/live"; fi; }

mounts() { awk -v work="$work/" 'index($5, work) == 1 { print $5 }' /proc/self/mountinfo | tac; }

# Processes that have their program, their directory or an argument in $work; the daemons end with their mounts.
workers() {
    local process
    for process in /proc/[0-9]*; do
        case $(readlink "$process/cwd" "$process/exe"; tr '\0' ' ' <"$process/cmdline") in
        *"pitfs mount "*) ;;
        *"$work/"*) echo "${process#/proc/}" ;;
        esac
    done 2>/dev/null
}

# Ends what runs and takes all of it away, however far it came.
clear_away() {
    trap '' INT TERM HUP
    cd /
    local dir try
    [ -z "$group" ] || kill -TERM -- "-$group" 2>/dev/null || true
    # A server of PostgreSQL takes its shared memory away at QUIT.
    for try in QUIT TERM KILL; do
        dir=$(workers)
        # shellcheck disable=SC2086
        [ -z "$dir" ] || kill "-$try" $dir 2>/dev/null || true
        [ -z "$dir" ] || sleep 1
    done
    for try in 1 2 3 4 5 6 7 8 9 10; do
        for dir in $(mounts); do
            umount "$dir" 2>/dev/null || fusermount3 -u "$dir" 2>/dev/null || [ "$try" -lt 9 ] || umount -l "$dir"
        done
        [ "$(mounts)" ] || break
        sleep 0.5
    done
    # A daemon holds its lock until it has ended.
    for dir in "$work"/*.store "$work/home/store"; do
        [ ! -d "$dir" ] || flock -w 20 "$dir/lock" true || echo "a daemon still runs: $(head -1 "$dir/lock")" >&2
    done
    rm -rf "$work"
    [ ! "$were_on" ] || echo "$were_on" >$parameter
    if [ "$root" ]; then
        ! id "$user" >/dev/null 2>&1 || userdel "$user" 2>/dev/null
        [ -z "$lent" ] || chmod "$lent" /dev/fuse
    fi
}
