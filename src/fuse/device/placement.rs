//! Where the thread runs that serves requests: on the processor of the program that waits for it.
//!
//! A request and its reply are two wake-ups. Across processors each costs an interrupt, and where idle ones
//! sleep deeply, as in virtual machines, a multiple of what most requests need. While one program sends request
//! after request, a thread therefore moves to its processor; and while it replies it counts as idle, so that
//! the program wakes up where it was, takes the processor over at once, and gives it back with the next
//! request. One thread does so; the others wait for requests that come meanwhile.

use crate::fuse::thread::{all_processors, may_yield, usual_policy};
use crate::proc;
use crate::system::set_policy;
use rustix::thread::{CpuSet, sched_setaffinity};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

/// Requests of one program in a row after which it is followed.
const BURST: u32 = 16;
/// Bytes of a request from which on it is better served beside its client than in its place.
const LARGE: usize = 64 << 10;
/// Requests after which it is looked at again where it runs.
const LOOK_AGAIN: u32 = 32;

static ALLOWED: AtomicBool = AtomicBool::new(false);
/// Whether some thread of this process follows its clients.
static TAKEN: AtomicBool = AtomicBool::new(false);

thread_local! {
    static FOLLOWER: RefCell<Option<Follower>> = const { RefCell::new(None) };
    static IS_FOLLOWER: std::cell::OnceCell<bool> = const { std::cell::OnceCell::new() };
}

#[derive(Default)]
struct Follower {
    client: u32,
    requests: u32,
    /// The processor that this thread is bound to.
    bound: Option<usize>,
}

/// While it lives, this thread counts as idle.
pub struct Yielding(bool);

impl Drop for Yielding {
    fn drop(&mut self) {
        if self.0 {
            set_policy(usual_policy());
        }
    }
}

/// Lets one of the serving threads follow its clients. There have to be others: this one does not run
/// while programs that compute want all processors.
pub fn allow() {
    ALLOWED.store(true, Ordering::Relaxed);
}

/// Called with each request that moves so many bytes.
pub fn moving(client: u32, bytes: usize) {
    if bytes < LARGE {
        return serving(client);
    }
    FOLLOWER.with_borrow_mut(|follower| {
        if let Some(follower) = follower {
            follower.leave();
            follower.requests = 0;
        }
    });
}

/// Called with each request.
pub fn serving(client: u32) {
    let may_follow = || ALLOWED.load(Ordering::Relaxed) && may_yield() && !TAKEN.swap(true, Ordering::Relaxed);
    let is_follower = IS_FOLLOWER.with(|is| *is.get_or_init(may_follow));
    if !is_follower {
        return;
    }
    FOLLOWER.with_borrow_mut(|follower| follower.get_or_insert_default().serve(client));
}

/// Called with each reply.
pub fn yielding() -> Yielding {
    let is_bound = FOLLOWER.with_borrow(|follower| follower.as_ref().is_some_and(|follower| follower.bound.is_some()));
    Yielding(is_bound && set_policy(libc::SCHED_IDLE))
}

impl Follower {
    fn serve(&mut self, client: u32) {
        if client != self.client {
            self.leave();
            *self = Follower { client, ..Follower::default() };
            return;
        }
        self.requests += 1;
        if self.requests == BURST || self.requests.is_multiple_of(LOOK_AGAIN) {
            match processor_of(client) {
                Some(processor) if self.bound != Some(processor) => {
                    let mut only = CpuSet::new();
                    only.set(processor);
                    self.bound = sched_setaffinity(None, &only).ok().map(|()| processor);
                }
                Some(_) => {}
                None => self.leave(),
            }
        }
    }

    fn leave(&mut self) {
        if self.bound.take().is_some()
            && let Some(all) = all_processors()
            && let Err(errno) = sched_setaffinity(None, all)
        {
            log::warn!("a thread stays on one processor: {errno}");
        }
    }
}

/// The processor on which a thread runs or ran last.
fn processor_of(thread: u32) -> Option<usize> {
    proc::field(thread, proc::PROCESSOR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::sched_getaffinity;

    #[test]
    fn the_processor_of_a_thread_is_found() {
        let mut only = CpuSet::new();
        let here = rustix::thread::sched_getcpu();
        only.set(here);
        sched_setaffinity(None, &only).unwrap();
        let thread = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        assert_eq!(processor_of(thread), Some(here));
        assert_eq!(processor_of(u32::MAX), None);
    }

    #[test]
    fn only_a_program_that_goes_on_asking_is_followed() {
        let me = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        let mut follower = Follower::default();
        for _ in 0..=BURST {
            follower.serve(me);
        }
        assert!(follower.bound.is_some());
        follower.serve(1);
        assert!(follower.bound.is_none());
        assert_eq!(sched_getaffinity(None).unwrap().count(), all_processors().unwrap().count());
    }
}
