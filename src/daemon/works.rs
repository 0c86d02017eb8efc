//! What is under way in this process and takes long: how far it has come, and what somebody else wants of it.
//!
//! Whoever does it calls [`Work::step`] at each step, which returns an error where it is to end, and waits where it is to pause.

use super::{OnProgress, Progress};
use crate::clock::Timestamp;
use crate::error::{Errno, Error, Result};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::Duration;

/// While it is paused, it is looked so often whether whoever asked is still there.
const ROUND: Duration = Duration::from_millis(100);

/// What is wanted of a work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    GoesOn,
    Pauses,
    Cancelled,
    /// The daemon ends.
    Ends,
}

#[derive(Debug)]
struct State {
    wanted: Wanted,
    progress: Progress,
    /// It has been told that it takes long.
    has_begun: bool,
    /// For what it was broken off.
    left_for: Option<Wanted>,
}

/// One piece of work.
#[derive(Debug)]
pub(super) struct Work {
    pub number: u64,
    pub what: String,
    pub by: u32,
    pub begun: Timestamp,
    /// The job that it is for, as the store has it.
    pub job: Option<u64>,
    /// It is broken off to pause, and begun again later; otherwise it waits where it is.
    pub leaves_to_pause: bool,
    state: Mutex<State>,
    changed: Condvar,
}

impl Work {
    pub fn wanted(&self) -> Wanted {
        self.state.lock().wanted
    }

    /// For what it was broken off, if it was.
    pub fn left_for(&self) -> Option<Wanted> {
        self.state.lock().left_for
    }

    pub fn progress(&self) -> Progress {
        self.state.lock().progress.clone()
    }

    fn want(&self, wanted: Wanted) {
        let mut state = self.state.lock();
        // Nothing goes on that is to end, and what leaves to pause is paused when the daemon ends as well.
        let stays = match state.wanted {
            Wanted::Cancelled => true,
            Wanted::Ends => wanted != Wanted::Cancelled,
            Wanted::Pauses => wanted == Wanted::Ends && self.leaves_to_pause,
            Wanted::GoesOn => false,
        };
        if !stays {
            state.wanted = wanted;
        }
        self.changed.notify_all();
    }

    /// Notes how far it has come, and tells whoever asked for it.
    pub fn step(&self, progress: &Progress, tell: OnProgress<'_>) -> Result<()> {
        tell(progress)?;
        loop {
            let mut state = self.state.lock();
            (state.progress, state.has_begun) = (progress.clone(), true);
            let why = match state.wanted {
                Wanted::GoesOn => return Ok(()),
                Wanted::Pauses if !self.leaves_to_pause => {
                    let _wanted_or_not = self.changed.wait_for(&mut state, ROUND);
                    drop(state);
                    tell(progress)?;
                    continue;
                }
                Wanted::Pauses => "it is paused",
                Wanted::Cancelled => "it was cancelled; what was done so far stays",
                Wanted::Ends => "the daemon ends; what was done so far stays",
            };
            state.left_for = Some(state.wanted);
            return Err(Error::Refused(Errno::INTR, why.into()));
        }
    }
}

#[derive(Debug, Default)]
struct All {
    under_way: Vec<Arc<Work>>,
    last: u64,
    ends: bool,
}

/// All that is under way.
#[derive(Debug, Default)]
pub(super) struct Works {
    all: Mutex<All>,
}

/// A piece of work, listed for as long as this lives.
pub struct UnderWay {
    works: Arc<Works>,
    work: Arc<Work>,
}

impl UnderWay {
    pub(super) fn work(&self) -> &Work {
        &self.work
    }

    /// Notes how far it has come, and tells whoever asked for it; an error if it is to end.
    pub fn step(&self, progress: &Progress, tell: OnProgress<'_>) -> Result<()> {
        self.work.step(progress, tell)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.works.all.lock().under_way.retain(|other| !Arc::ptr_eq(other, &self.work));
    }
}

impl Works {
    pub fn begin(self: &Arc<Works>, what: String, by: u32, job: Option<u64>, leaves_to_pause: bool) -> UnderWay {
        let mut all = self.all.lock();
        all.last += 1;
        let wanted = if all.ends { Wanted::Ends } else { Wanted::GoesOn };
        let state = State { wanted, progress: Progress::default(), has_begun: false, left_for: None };
        let (number, begun) = (all.last, Timestamp::now());
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let work = Arc::new(Work { number, what, by, begun, job, leaves_to_pause, state, changed });
        all.under_way.push(work.clone());
        UnderWay { works: self.clone(), work }
    }

    /// What takes long of what is under way.
    pub fn all(&self) -> Vec<Arc<Work>> {
        let all = self.all.lock();
        all.under_way.iter().filter(|work| work.job.is_some() || work.state.lock().has_begun).cloned().collect()
    }

    /// Wants something of one of them; whether it is there.
    pub fn want(&self, is_meant: impl Fn(&Work) -> bool, wanted: Wanted) -> bool {
        let found = self.all.lock().under_way.iter().find(|work| is_meant(work)).cloned();
        found.inspect(|work| work.want(wanted)).is_some()
    }

    pub fn has_ended(&self) -> bool {
        self.all.lock().ends
    }

    /// Lets all end soon, and everything that begins from now on.
    pub fn end(&self) {
        let mut all = self.all.lock();
        all.ends = true;
        all.under_way.iter().for_each(|work| work.want(Wanted::Ends));
    }
}
