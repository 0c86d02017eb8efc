//! What a file costs on the way through the kernel: requests by kind, system calls, switches, seconds of processors. Counted by
//! perf, apart from what is timed.

use crate::command::{drop_caches, has, is_root, ok, shell};
use crate::files::Input;
use crate::place::{PITFS, Places, RINGS};
use crate::report::{Table, number};
use crate::{Bench, Result};
use pitfs::fuse::ring::wire::opcode;
use pitfs::proc;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// Requests that are told apart.
const KINDS: [(&str, u32); 12] = [
    ("LOOKUP", opcode::LOOKUP),
    ("CREATE", opcode::CREATE),
    ("MKDIR", opcode::MKDIR),
    ("WRITE", opcode::WRITE),
    ("SETATTR", opcode::SETATTR),
    ("GETATTR", opcode::GETATTR),
    ("GETXATTR", opcode::GETXATTR),
    ("OPEN", opcode::OPEN),
    ("RELEASE", opcode::RELEASE),
    ("READDIRPLUS", opcode::READDIRPLUS),
    ("UNLINK", opcode::UNLINK),
    ("RMDIR", opcode::RMDIR),
];
const SENT: &str = "fuse:fuse_request_send";
const CALLS: &str = "raw_syscalls:sys_enter";
const SWITCHES: &str = "context-switches";
const TRACING: &str = "/sys/kernel/tracing";

/// The kernel's file system for tracing, for as long as it is needed.
struct Tracing(bool);

impl Tracing {
    fn begin() -> Result<Tracing> {
        if Path::new(TRACING).join("events").exists() {
            return Ok(Tracing(false));
        }
        shell(&format!("mount -t tracefs none {TRACING}")).map(|()| Tracing(true))
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        if self.0
            && let Err(error) = shell(&format!("umount {TRACING}"))
        {
            eprintln!("bench: {error}");
        }
    }
}

/// What one piece of work cost, each by its name.
type Costs = Vec<(String, f64)>;

/// Counts what `line` costs, a file of so many.
fn count(bench: &Bench, directory: &Path, daemon: u32, line: &str, files: f64) -> Result<Costs> {
    let [requests, of_daemon, of_client] = ["requests", "daemon", "client"].map(|name| bench.work.file(name));
    // The number of the connection is the smaller part of that of the device.
    let connection = rustix::fs::minor(fs::metadata(directory)?.dev());
    let mut all = Command::new("perf");
    all.args(["stat", "-x,", "-a", "-o"]).arg(&requests);
    for condition in KINDS.iter().map(|(_, code)| format!(" && opcode == {code}")).chain([String::new()]) {
        all.args(["-e", SENT, "--filter", &format!("connection == {connection}{condition}")]);
    }
    all.args(["--", "perf", "stat", "-x,", "-e", &format!("{CALLS},{SWITCHES}"), "-p", &daemon.to_string(), "-o"]);
    all.arg(&of_daemon).args(["--", "perf", "stat", "-x,", "-e", &format!("{CALLS},{SWITCHES},task-clock"), "-o"]);
    all.arg(&of_client).args(["--", "sh", "-c", line]);
    drop_caches();
    let before = seconds_of(daemon)?;
    ok(&mut all)?;
    let seconds = seconds_of(daemon)? - before;
    let requests = counted(&requests)?;
    let (of_kinds, total) = requests.split_at(KINDS.len());
    let mut costs: Costs = vec![("requests a file".into(), total.first().unwrap_or(&f64::NAN) / files)];
    let kinds = KINDS.iter().zip(of_kinds).filter(|(_, count)| **count >= files / 100.0);
    costs.extend(kinds.map(|((name, _), count)| (format!("- {name}"), count / files)));
    let [of_daemon, of_client] = [counted(&of_daemon)?, counted(&of_client)?];
    for (what, at) in [("system calls", 0), ("switches", 1)] {
        costs.push((format!("{what} a file, program"), of_client.get(at).unwrap_or(&f64::NAN) / files));
        costs.push((format!("{what} a file, daemon"), of_daemon.get(at).unwrap_or(&f64::NAN) / files));
    }
    costs.push(("seconds of processors, program".into(), of_client.get(2).unwrap_or(&f64::NAN) / 1000.0));
    costs.push(("seconds of processors, daemon".into(), seconds));
    Ok(costs)
}

/// The numbers that perf counted, in their order. The clock is in milliseconds.
fn counted(path: &Path) -> Result<Vec<f64>> {
    let text = fs::read_to_string(path)?;
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let number = |line: &str| line.split(',').next().and_then(|field| field.parse().ok()).unwrap_or(f64::NAN);
    Ok(lines.map(number).collect())
}

/// Seconds that a process has used processors.
fn seconds_of(process: u32) -> Result<f64> {
    let ticks = |field| proc::field::<f64>(process, field).ok_or("the daemon is gone");
    Ok((ticks(proc::USER_TICKS)? + ticks(proc::SYSTEM_TICKS)?) / rustix::param::clock_ticks_per_second() as f64)
}

pub fn run(bench: &mut Bench, places: &Places, input: &Input) -> Result<()> {
    if !is_root() || !has("perf") {
        eprintln!("bench: what a file costs is counted by perf, as root");
        return Ok(());
    }
    let _tracing = Tracing::begin()?;
    for (title, is_removal) in [("unpacking a tree", false), ("removing it", true)] {
        let mut columns: Vec<(&str, Costs)> = Vec::new();
        for (name, directory, daemon) in places.daemons().filter(|(name, ..)| [PITFS, RINGS].contains(name)) {
            bench.report.doing(&format!("files: what {title} costs, {name}"));
            let at = directory.join(format!("costs.{}", std::process::id()));
            std::fs::create_dir(&at)?;
            let (remove, unpack) = (format!("rm -rf '{}'", at.display()), input.untar(&at));
            if is_removal {
                shell(&unpack)?;
                shell(&format!("find '{}' -printf '%s'", at.display()))?;
            }
            let files = input.names()?;
            let counted = count(bench, directory, daemon, if is_removal { &remove } else { &unpack }, files)?;
            columns.push((name, counted));
            shell(&remove)?;
        }
        table(bench, &format!("What {title} costs"), &columns)?;
    }
    Ok(())
}

fn table(bench: &mut Bench, title: &str, columns: &[(&str, Costs)]) -> Result<()> {
    let header: Vec<&str> = std::iter::once("cost").chain(columns.iter().map(|(name, _)| *name)).collect();
    let mut table = Table::new(title, &header);
    let mut rows: Vec<&String> = Vec::new();
    for name in columns.iter().flat_map(|(_, costs)| costs.iter().map(|(name, _)| name)) {
        if !rows.contains(&name) {
            rows.push(name);
        }
    }
    for row in rows {
        let value = |costs: &Costs| costs.iter().find(|(name, _)| name == row).map_or(f64::NAN, |(_, value)| *value);
        table.row(std::iter::once(row.clone()).chain(columns.iter().map(|(_, costs)| number(value(costs)))));
    }
    bench.report.table(&table)
}
