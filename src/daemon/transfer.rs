//! Snapshots as streams: sent through a pipe as sets, and received into a target.

use super::backup::{BackupOptions, BackupReport, Written, check_level, chosen, write_alone};
use super::stream::Stream;
use super::targets::{KeptBy, open_target};
use super::{OnProgress, Progress};
use crate::error::{Errno, Error, Result};
use crate::set::{Key, Seal, Sets};
use crate::target::{Incoming, Keys, Received, StreamShelf, Target};
use crate::view::Views;
use parking_lot::Mutex;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// What seals a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealedBy {
    /// The key that the store has at a target, by its name.
    Target(String),
    /// A key of its own.
    Own(KeptBy),
}

/// How often it is looked whether anybody still wants what is sent.
const ROUND: Duration = Duration::from_millis(100);

/// Writes a snapshot to a stream, in full; breaks off where nobody wants it any more, also while the other side takes nothing.
pub fn send(
    views: &Views,
    out: &Arc<File>,
    sealed: &SealedBy,
    options: &BackupOptions,
    progress: OnProgress<'_>,
) -> Result<BackupReport> {
    let is_given_up = Arc::new(AtomicBool::new(false));
    let wanted = is_given_up.clone();
    let is_wanted = move || match wanted.load(Ordering::SeqCst) {
        true => Err(Error::Refused(Errno::INTR, "it is given up".into())),
        false => Ok(()),
    };
    let outgoing = Stream::new(out.clone(), {
        let is_wanted = is_wanted.clone();
        move |_| is_wanted()
    });
    let come = Mutex::new(Progress::default());
    let mut tell = |done: &Progress| {
        *come.lock() = done.clone();
        is_wanted()
    };
    let (ended, ends) = sync_channel::<()>(1);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            // Dropped with the thread's end, however it ends.
            let _ended = ended;
            Error::of_panic(|| send_to(views, outgoing, sealed, options, &mut tell))
        });
        let mut given_up = None;
        while let Err(RecvTimeoutError::Timeout) = ends.recv_timeout(ROUND) {
            let now = come.lock().clone();
            if given_up.is_none()
                && let Err(error) = progress(&now)
            {
                given_up = Some(error);
                is_given_up.store(true, Ordering::SeqCst);
            }
        }
        let sent = sending.join().unwrap_or_else(|_| Err(Error::Fault("sending ended with a panic".into())));
        let report = given_up.map_or(sent, Err)?;
        // What a file has is there whatever happens then, as at a target.
        if out.metadata().is_ok_and(|found| found.is_file()) {
            out.sync_all().map_err(|error| Error::media("writing the stream", error))?;
        }
        Ok(report)
    })
}

fn send_to(
    views: &Views,
    out: impl Write + Send + 'static,
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
            // Where these do not fit, nobody could open what is sent.
            target.repository(store, key.as_ref())?;
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
    let shelf = Arc::new(StreamShelf::begin(out, store).map_err(failed)?);
    if let Some(keys) = &keys {
        keys.write(&*shelf)?;
    }
    let sets = Sets::new(shelf.clone(), key.as_ref().map_or_else(Seal::plain, Seal::with));
    let Written { summary, kind, bytes, added, missing } =
        write_alone(views, (&sets, store), &snapshot, options, progress)?;
    shelf.end().map_err(failed)?;
    let (base, snapshot, set) = (views.base_name()?, snapshot.record.name, summary.id);
    Ok(BackupReport { base, snapshot, set, was_there: false, kind, bytes, added, missing })
}

/// Takes a stream into a directory, which is made a target if it is an empty one.
pub fn receive_into(directory: &Path, input: &mut dyn Read, progress: OnProgress<'_>) -> Result<Received> {
    let incoming = Incoming::begin(input)?;
    let target = if Target::is_one(directory) { Target::open(directory, None)? } else { Target::create(directory)? };
    incoming.receive(&target, &mut |bytes| progress(&Progress { files: 0, bytes, total_bytes: 0 }))
}
