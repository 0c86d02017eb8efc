#!/bin/bash
# SQLite writes transactions while snapshots are taken: `sqlite.sh DIR MOUNT`. The database of each snapshot, with its journal,
# must recover to a whole number of transactions, none that had returned missing.
set -eu
. "$(dirname "$0")/shots.sh"

dir=$1
mount=$2

transactions() {
    echo "pragma journal_mode=$mode; pragma synchronous=$synchronous; pragma cache_size=20;"
    local number=0
    until [ -e "$out/stop" ]; do
        number=$((number + 1))
        echo "begin; update counter set n = n + 1; insert into step select n, hex(randomblob(3000)) from counter;
            update step set bytes = hex(randomblob(2000)) where n % 7 = $((number % 7)) and n > $((number - 100));
            delete from step where n < $((number - 300)); commit; select n from counter;"
        # The pipe holds some in advance.
        sleep 0.002
    done
}
# Its own line for each commit; the first is the answer to the pragma.
work() { transactions | stdbuf -oL sqlite3 -bail database | grep --line-buffered '^[0-9]' >"$out/done"; }
verify() {
    local said integrity n last
    rm -f "$out"/copy*
    cp "$1" "$out/copy"
    for more in -journal -wal; do [ ! -e "$1$more" ] || cp "$1$more" "$out/copy$more"; done
    ls -l "$out"/copy*
    said=$(sqlite3 "$out/copy" 'pragma integrity_check; select n, (select max(n) from step) from counter') || return 1
    echo "$said"
    integrity=$(echo "$said" | head -1)
    IFS='|' read -r n last <<<"$(echo "$said" | tail -1)"
    # Between two commits some more can be done than was said.
    [ "$integrity" = ok ] && [ "$n" = "$last" ] && [ "$n" -ge "$2" ] && [ "$n" -le $(($3 + 5)) ]
}
for mode in delete wal; do
    case $mode in delete) synchronous=full ;; wal) synchronous=off ;; esac
    out=$(mktemp -d "$WORK/sqlite.XXXXXX")
    mkdir "$dir/$mode"
    cd "$dir/$mode"
    sqlite3 database 'create table counter (n integer); insert into counter values (0);
        create table step (n integer primary key, bytes text); create index bytes on step (bytes)'
    snapshots "sqlite-$mode" "$mount" "$dir/$mode/database" work
    must_fail "sqlite-$mode-control-count" verify database 1000000000 1000000000
    dd if=/dev/urandom of=database bs=4096 seek=7 count=3 conv=notrunc status=none
    must_fail "sqlite-$mode-control-damage" verify database 0 1000000000
    rm -rf "$out"
done
