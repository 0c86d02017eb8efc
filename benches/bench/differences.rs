//! Comparing and deleting snapshots by how much changed between them.

use crate::command::seconds;
use crate::place::Ground;
use crate::report::{Table, number};
use crate::samples::Samples;
use crate::store::{Store, delete_snapshots};
use crate::{Bench, Result, fill};
use pitfs::daemon::Daemon;
use pitfs::device::{InodeNo, Moment};
use std::time::Instant;

const CHANGES: [f64; 4] = [0.0, 10.0, 1000.0, 100_000.0];
/// Large enough to have a track of its own, and not to be in the inode's record.
const FILE_BYTES: usize = 2048;

/// Three snapshots with the same number of changes between neighbours: what changed before the middle one and
/// again after it is held by that one and no other.
fn measure(daemon: &Daemon, files: &[InodeNo], seed: u64) -> Result<[f64; 3]> {
    let views = daemon.views();
    let tree = views.tree();
    let mut epochs = Vec::new();
    for (i, name) in ["before", "middle", "after"].iter().enumerate() {
        if i > 0 {
            let content = fill::noise(seed * 3 + i as u64, FILE_BYTES);
            files.iter().try_for_each(|number| fill::write(tree, *number, &content))?;
        }
        epochs.push(views.snapshots().take(Some(name.as_bytes()))?.epoch);
    }
    let start = Instant::now();
    let found = tree.comparison().diff(pitfs::device::LIVE, Moment::At(epochs[0]), Moment::At(epochs[1]))?;
    let compared = seconds(Ok(()), start);
    if found.len() != files.len() {
        return Err(format!("diff found {} of {} changes", found.len(), files.len()).into());
    }
    let start = Instant::now();
    delete_snapshots(daemon, &[b"middle"])?;
    let deleted = seconds(Ok(()), start);
    daemon.finish_deletions()?;
    tree.commit()?;
    let freed = seconds(Ok(()), start);
    delete_snapshots(daemon, &[b"before", b"after"])?;
    daemon.finish_deletions()?;
    tree.commit()?;
    Ok([compared, deleted, freed].map(|seconds| seconds * 1e3))
}

pub fn run(bench: &mut Bench) -> Result<()> {
    let ground = Ground::new(&bench.work)?;
    let changes = CHANGES.map(|changes| if changes == 0.0 { 0 } else { bench.scaled(changes) });
    let store = Store::create(&ground.dir.join("pitfs"))?;
    let daemon = store.open()?;
    bench.report.doing(&format!("snapshots: making {} files", changes[3]));
    let content = fill::noise(0, FILE_BYTES);
    let tree = daemon.views().tree();
    let files = fill::files(tree, changes[3], |_, number| fill::write(tree, number, &content))?;
    let mut samples = Samples::new(["diff", "delete", "freed"]);
    for round in 1..=bench.rounds {
        for changes in changes {
            bench.report.doing(&format!("snapshots: {changes} changes, round {round}"));
            let times = measure(&daemon, &files[..changes], round as u64)?;
            for (column, time) in ["diff", "delete", "freed"].iter().zip(times) {
                samples.add(column, &changes.to_string(), time);
            }
        }
    }
    daemon.close()?;
    let title = format!("Snapshots that differ, in a store of {} files, in the daemon", files.len());
    let header = ["files changed", "diff, ms", "delete until it returns, ms", "until its room is free, ms"];
    let mut table = Table::new(&title, &header);
    for row in samples.rows() {
        let numbers = ["diff", "delete", "freed"].map(|column| number(samples.median(column, row)));
        table.row(std::iter::once(row.to_string()).chain(numbers));
    }
    bench.report.table(&table)
}
