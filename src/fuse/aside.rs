//! Requests that take long are carried out aside, one after the other by a thread of their own: what one user asks for waits
//! for each other, and nobody else for it.

use parking_lot::Mutex;
use std::sync::mpsc::{Sender, channel};

type Work = Box<dyn FnOnce() + Send>;

/// Users have threads of their own, up to so many; further ones share them.
const THREADS: usize = 16;

/// The threads, each of which is there from the first such request until this is dropped.
#[derive(Default)]
pub(super) struct Aside([Mutex<Option<Sender<Work>>>; THREADS]);

impl Aside {
    /// Does something aside for a user; where no thread can be had, at once.
    pub(super) fn run(&self, user: u32, work: impl FnOnce() + Send + 'static) {
        if let Some(work) = self.hand_over(user, Box::new(work)) {
            work();
        }
    }

    /// Does something aside, or, where no thread can be had, not at all: what waits for the kernel is nothing for threads that
    /// it waits for.
    pub(super) fn run_aside_only(&self, work: impl FnOnce() + Send + 'static) {
        if self.hand_over(0, Box::new(work)).is_some() {
            log::warn!("the kernel is not told of a change: no thread can be had");
        }
    }

    /// The work, where nobody takes it.
    fn hand_over(&self, user: u32, work: Work) -> Option<Work> {
        let mut thread = self.0[user as usize % THREADS].lock();
        if thread.is_none() {
            *thread = begin();
        }
        match &*thread {
            Some(sender) => sender.send(work).err().map(|refused| refused.0),
            None => Some(work),
        }
    }
}

fn begin() -> Option<Sender<Work>> {
    let (sender, receiver) = channel::<Work>();
    let work = move || receiver.into_iter().for_each(|work| super::contained("aside", work));
    let begun = super::thread::begin("aside", work);
    begun.inspect_err(|error| log::warn!("no thread for requests that take long: {error}")).ok().map(|_| sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_what_another_user_asked_for() {
        let aside = Aside::default();
        let (go_on, waits) = channel::<()>();
        let (tell, told) = channel();
        aside.run(1, move || waits.recv().unwrap());
        for user in [1, 2] {
            let tell = tell.clone();
            aside.run(user, move || tell.send(user).unwrap());
        }
        assert_eq!(told.recv().unwrap(), 2);
        go_on.send(()).unwrap();
        assert_eq!(told.recv().unwrap(), 1);
    }
}
