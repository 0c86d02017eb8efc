#!/bin/bash
# pgbench runs on PostgreSQL while snapshots are taken: `postgres.sh DIR MOUNT`. The cluster of each snapshot, copied and
# started, must recover, be free of corruption and have all its sums equal.
set -eu
. "$(dirname "$0")/shots.sh"

mount=$2
out=$(mktemp -d "$WORK/postgres.XXXXXX")
# A server refuses a directory that others may look into, and does not run as root.
bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -1)
cluster=$1/cluster
mkdir "$cluster" "$out/socket"
chown -R postgres: "$cluster" "$out"
chmod 700 "$cluster"
db() { (cd "$out" && setpriv --reuid postgres --regid postgres --init-groups --inh-caps=-all -- "$@"); }
start() { db "$bin/pg_ctl" -D "$1" -w -t 120 -l "$out/log.$2" -o "-p $2 -k $out/socket -c listen_addresses= \
    -c dynamic_shared_memory_type=mmap -c checkpoint_timeout=30s -c max_wal_size=64MB" start; }
stop() { db "$bin/pg_ctl" -D "$1" -m "$2" stop; }
sql() { db "$bin/psql" -h "$out/socket" -p "$1" -X -A -t -v ON_ERROR_STOP=1 -d postgres -c "$2"; }

work() {
    # It says how many were done, every second and at the end; what counts here is in the table.
    db "$bin/pgbench" -h "$out/socket" -p 54321 -n -c 4 -j 2 -P 5 -T 600 postgres &
    until [ -e "$out/stop" ]; do
        sql 54321 'select count(*) from pgbench_history' >"$out/count"
        yes | head -n "$(cat "$out/count")" >"$out/done.new"
        mv "$out/done.new" "$out/done"
        sleep 0.3
    done
    sql 54321 "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'pgbench'"
    wait "$!" || true
}
sums='select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
    (select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history), (select count(*) from pgbench_history)'
verify() {
    local accounts tellers branches history count is=1
    rm -rf "$out/copy"
    cp -a "$1" "$out/copy"
    rm -f "$out/copy/postmaster.pid"
    start "$out/copy" 54322 || { cat "$out/log.54322"; return 1; }
    db "$bin/pg_amcheck" -h "$out/socket" -p 54322 --install-missing --heapallindexed -d postgres &&
        sql 54322 "$sums" >"$out/sums" && cat "$out/sums" &&
        IFS='|' read -r accounts tellers branches history count <"$out/sums" &&
        [ "$accounts" = "$tellers" ] && [ "$tellers" = "$branches" ] && [ "$branches" = "$history" ] &&
        [ "$count" -ge "$2" ] && is=0
    stop "$out/copy" fast
    grep -E 'redo (starts|done)|not properly shut down|PANIC|FATAL' "$out/log.54322" || true
    rm -f "$out/log.54322"
    return $is
}
try initdb db "$bin/initdb" -D "$cluster" -A trust
try start start "$cluster" 54321
try pgbench-init db "$bin/pgbench" -h "$out/socket" -p 54321 -q -i -s 3 postgres
snapshots postgres "$mount" "$cluster" work
sql 54321 'update pgbench_tellers set tbalance = tbalance + 1 where tid = 1' >&2
try stop stop "$cluster" fast
must_fail postgres-control-sums verify "$cluster" 0 0
rm -rf "$out"
