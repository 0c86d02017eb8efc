#!/bin/sh
# pjdfstest in a directory: `pjdfstest.sh DIR`. One line for each test: pass, fail or skip and its name.
set -eu

config=$(mktemp)
trap 'rm -f "$config"' EXIT
# Users that every system has; some tests become them.
entry() { echo "[\"$1\", \"$(id -gn "$1")\"]"; }
cat >"$config" <<END
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.02
allow_remount = true
[dummy_auth]
entries = [$(entry nobody), $(entry daemon)]
END
# It ends with an error if any test failed; the list says which.
RUST_BACKTRACE=0 pjdfstest -c "$config" -p "$1" -s "$SECOND" 2>&1 | tee /dev/stderr |
    awk '$2 == "ok" { print "pass", $1 } $2 == "FAILED" { print "fail", $1 } $2 == "skipped" { print "skip", $1 }'
