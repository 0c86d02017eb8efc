//! Snapshots as streams: sent through a pipe as sets, and received into a target.

use super::backup::{BackupOptions, BackupReport, Written, check_level, chosen, write_alone};
use super::targets::{KeptBy, open_target};
use super::{OnProgress, Progress};
use crate::error::{Errno, Error, Result};
use crate::set::{Key, Seal, Sets};
use crate::target::{Incoming, Keys, Received, StreamShelf, Target};
use crate::view::Views;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// What seals a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealedBy {
    /// The key that the store has at a target, by its name.
    Target(String),
    /// A key of its own.
    Own(KeptBy),
}

/// Writes a snapshot to a stream, in full.
pub fn send(
    views: &Views,
    out: &Arc<File>,
    sealed: &SealedBy,
    options: &BackupOptions,
    progress: OnProgress<'_>,
) -> Result<BackupReport> {
    check_level(options.level)?;
    let snapshot = chosen(views, options.snapshot.as_deref())?;
    let store = views.targets().store()?;
    let (keys, key) = match sealed {
        SealedBy::Target(name) => {
            let (target, key) = open_target(views, Some(name))?;
            (target.keys(store)?, key)
        }
        SealedBy::Own(lock) => match lock.opens()? {
            None => (None, None),
            Some(opens) => {
                let key = Key::random().map_err(|problem| Error::Refused(Errno::IO, problem))?;
                (Some(Keys::create(store, &key, &opens)?), Some(key))
            }
        },
    };
    let failed = |error| Error::media("writing the stream", error);
    let shelf = Arc::new(StreamShelf::begin(out.try_clone().map_err(failed)?, store).map_err(failed)?);
    if let Some(keys) = &keys {
        keys.write(&*shelf)?;
    }
    let sets = Sets::new(shelf.clone(), key.as_ref().map_or_else(Seal::plain, Seal::with));
    let Written { summary, kind, bytes, added, missing } =
        write_alone(views, (&sets, store), &snapshot, options, progress)?;
    shelf.end().map_err(failed)?;
    let (snapshot, set) = (snapshot.record.name, summary.id);
    Ok(BackupReport { snapshot, set, was_there: false, kind, bytes, added, missing })
}

/// Takes a stream into a directory, which is made a target if it is an empty one.
pub fn receive_into(directory: &Path, input: &mut dyn Read, progress: OnProgress<'_>) -> Result<Received> {
    let incoming = Incoming::begin(input)?;
    let target = if Target::is_one(directory) { Target::open(directory, None)? } else { Target::create(directory)? };
    incoming.receive(&target, &mut |bytes| progress(&Progress { files: 0, bytes, total_bytes: 0 }))
}
