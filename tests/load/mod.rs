//! Load on a mount by several writers, each in a directory of its own, with a record of what happened when:
//! so that what is found later can be held against the history.
//!
//! A writer knows its model of the directory and draws operations that have to succeed, one request
//! each. At any moment its directory is the model after some number of its operations: in a snapshot no fewer
//! than had returned when it began and no more than had begun when it returned. After a crash it is that, no
//! older than the last snapshot, and over it what an fsync has made durable since: one file as it was then.
#![allow(dead_code, reason = "each test file uses its part")]

mod ledger;
mod model;
mod operation;
#[path = "../store/common/rng.rs"]
mod rng;
mod snapshots;

use ledger::differences;
pub use ledger::{Ledger, Survivor};
use model::Content;
pub use model::look;
use operation::Kind;
pub use rng::Rng;
pub use snapshots::{Found, Snapshots};

use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};

/// Whether an error is what a user of a mount sees when its daemon or its disk is gone.
pub fn is_end(error: &io::Error) -> bool {
    let number = Errno::from_io_error(error);
    // What was handed over through rings is canceled with the process that had them.
    let gone = [Errno::NOTCONN, Errno::CONNABORTED, Errno::CANCELED, Errno::NODEV];
    gone.into_iter().chain([Errno::IO, Errno::STALE, Errno::INTR]).any(|errno| number == Some(errno))
}

/// What a writer does when an operation fails.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The disk is gone, or the mount: whether the operation took effect is not known.
    Stop,
    /// The operation did not take effect; the next one may. Other errors than these end it all.
    GoOn(&'static [Errno]),
}

impl OnError {
    fn stops(self, error: &io::Error) -> bool {
        match self {
            OnError::Stop => true,
            OnError::GoOn(expected) => !Errno::from_io_error(error).is_some_and(|error| expected.contains(&error)),
        }
    }
}

pub fn directory(view: &Path, writer: usize) -> PathBuf {
    view.join(format!("w{writer}"))
}

/// Operations and fsyncs until `ends` says so or the first that fails; the error, and what it was.
pub fn work(
    ledger: &Ledger,
    live: &Path,
    writer: usize,
    rng: &mut Rng,
    on_error: OnError,
    ends: impl Fn() -> bool,
) -> Option<(String, io::Error)> {
    let root = directory(live, writer);
    let mut model = ledger.model(writer);
    let kind = Kind::of(writer);
    while !ends() {
        if rng.percent(kind.syncs()) {
            let path = model.any(rng, |content| !matches!(content, Content::Symlink(_))).unwrap_or_default();
            let path = if rng.percent(10) { String::new() } else { path };
            ledger.start_sync(writer, model.number(&path));
            match std::fs::File::open(root.join(&path)).and_then(|file| file.sync_all()) {
                Ok(()) => ledger.finish_sync(writer),
                Err(error) if on_error.stops(&error) => return Some((format!("fsync {path:?}"), error)),
                Err(_) => {}
            }
            continue;
        }
        let operation = operation::draw(&model, kind, rng);
        ledger.start(writer, operation.clone());
        match operation.carry_out(&root) {
            Ok(done) => {
                // Only where something fails a part is done.
                assert!(done == operation || on_error != OnError::Stop, "{done:?} instead of {operation:?}");
                model.apply(&done);
                ledger.finish(writer, done);
            }
            Err(error) if on_error.stops(&error) => {
                let shown = look(&root).map(|seen| differences(&model.seen(), &seen));
                return Some((format!("{operation:?}, where the model and the mount differ in {shown:?}"), error));
            }
            Err(_) => ledger.take_back(writer),
        }
    }
    None
}
