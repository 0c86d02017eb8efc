//! What the daemon does by itself: named workers that take turns, so that no long piece of work starves another.
//!
//! ```text
//! look ─▶ settle ─▶ delete ─▶ reap ─▶ copy ─▶ look …      a step each; who has nothing to do passes
//!      └─ between two of them: what is dirty is flushed, room is made, and a commit when it is due
//! ```
//!
//! A worker that fails rests for a while, and the others go on. A store that has stopped has nothing for any of them.

use crate::error::{Errno, Error, Result};
use crate::limits::COMMIT_INTERVAL;
use crate::view::Views;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a worker rests after a failure, so that a broken store does not burn a core.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Work of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worker {
    /// Looks whether segments lie where nothing else does.
    Look,
    /// Gives bases records of their own for what they show from elsewhere.
    Settle,
    /// Gives the room of snapshots and bases back that were deleted.
    Delete,
    /// Removes inodes without a name.
    Reap,
    /// Gives tracks of copies places of their own.
    Copy,
}

impl Worker {
    const ALL: [Worker; 5] = [Worker::Look, Worker::Settle, Worker::Delete, Worker::Reap, Worker::Copy];

    fn name(self) -> &'static str {
        match self {
            Worker::Look => "look",
            Worker::Settle => "settle",
            Worker::Delete => "delete",
            Worker::Reap => "reap",
            Worker::Copy => "copy",
        }
    }

    /// Does a piece; whether there was any.
    fn step(self, views: &Views) -> Result<bool> {
        let tree = views.tree();
        match self {
            Worker::Look => tree.device().check_places_step(),
            Worker::Settle => tree.settle_step(),
            Worker::Delete => tree.device().removal().step(),
            Worker::Reap if tree.held().rest().is_some_and(|rest| !rest.is_zero()) => Ok(false),
            Worker::Reap => tree.reap_step(),
            Worker::Copy => views.bases().copy_step(),
        }
    }

    /// What it waits for, if it has work and cannot do it.
    fn waits_for(self, views: &Views) -> Result<Option<&'static str>> {
        let device = views.tree().device();
        Ok(match self {
            Worker::Delete if device.removal().is_held_up()? => Some("a snapshot that is being read"),
            Worker::Copy if device.separation().is_held_up()? => Some("room"),
            _ => None,
        })
    }
}

/// What there is to be said of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerInfo {
    pub name: String,
    /// Its last turn found something to do.
    pub is_working: bool,
    /// Turns in which it did something, since the store was opened.
    pub turns: u64,
    pub waits_for: Option<String>,
    /// Why its last turn failed, if it did.
    pub failure: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct State {
    is_working: bool,
    turns: u64,
    failure: Option<String>,
    /// It has failed, and is not asked before.
    rests_until: Option<Instant>,
}

/// All that is done in the background.
#[derive(Default)]
pub(super) struct Agenda {
    states: [Mutex<State>; Worker::ALL.len()],
    stop: AtomicBool,
}

impl Agenda {
    /// Ends [`Agenda::work`] after the step under way.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    fn has_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Works until [`Agenda::stop`].
    pub(super) fn work(&self, views: &Views) {
        let tree = views.tree();
        let mut last_commit = Instant::now();
        let mut has_more = true;
        while !self.has_stopped() {
            if !has_more {
                let until_commit = COMMIT_INTERVAL.saturating_sub(last_commit.elapsed());
                tree.device().wait_for_work(tree.held().rest().map_or(until_commit, |rest| rest.min(until_commit)));
            }
            has_more = false;
            for (worker, state) in Worker::ALL.into_iter().zip(&self.states) {
                if self.has_stopped() {
                    return;
                }
                if let Err(error) = Error::of_panic(|| keep_house(views, &mut last_commit)) {
                    has_failed("background work", &error);
                    std::thread::sleep(PAUSE_AFTER_FAILURE);
                    break;
                }
                has_more |= turn(worker, &mut state.lock(), views);
            }
        }
    }

    pub(super) fn info(&self, views: &Views) -> Result<Vec<WorkerInfo>> {
        let info = |(worker, state): (Worker, &Mutex<State>)| {
            // Not while it is looked what it waits for.
            let State { is_working, turns, failure, .. } = state.lock().clone();
            let waits_for = worker.waits_for(views)?.map(str::to_string);
            Ok(WorkerInfo { name: worker.name().into(), is_working, turns, waits_for, failure })
        };
        Worker::ALL.into_iter().zip(&self.states).map(info).collect()
    }
}

/// What cannot wait for the end of anybody's work.
fn keep_house(views: &Views, last_commit: &mut Instant) -> Result<()> {
    let (tree, device) = (views.tree(), views.tree().device());
    device.relieve()?;
    if device.is_full() && views.room().make_room()? {
        device.wake();
    }
    if last_commit.elapsed() >= COMMIT_INTERVAL {
        *last_commit = Instant::now();
        tree.commit()?;
    }
    Ok(())
}

/// One step of a worker; whether it may have more to do.
fn turn(worker: Worker, state: &mut State, views: &Views) -> bool {
    if state.rests_until.is_some_and(|until| Instant::now() < until) {
        return false;
    }
    state.rests_until = None;
    match Error::of_panic(|| worker.step(views)) {
        Ok(is_working) => {
            state.turns += u64::from(is_working);
            (state.is_working, state.failure) = (is_working, None);
            is_working
        }
        Err(error) => {
            has_failed(worker.name(), &error);
            (state.is_working, state.failure) = (false, Some(error.to_string()));
            state.rests_until = Some(Instant::now() + PAUSE_AFTER_FAILURE);
            false
        }
    }
}

fn has_failed(what: &str, error: &Error) {
    if !matches!(error, Error::Stopped(_) | Error::Posix(Errno::NOSPC)) {
        log::error!("{what}: {error}");
    }
}

/// Begins working in a thread of its own.
pub(super) fn begin(agenda: &Arc<Agenda>, views: &Arc<Views>) -> Result<std::thread::JoinHandle<()>> {
    let (agenda, views) = (agenda.clone(), views.clone());
    std::thread::Builder::new()
        .name("background".into())
        .spawn(move || agenda.work(&views))
        .map_err(|error| Error::media("starting the background thread", error))
}
