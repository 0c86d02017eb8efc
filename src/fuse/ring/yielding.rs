//! A queue's thread that counts as idle while one program asks it request after request.
//!
//! Who is woken while this thread runs is moved to another processor, which costs more than most requests. A processor whose
//! thread counts as idle is free: the program wakes up where it was and takes it over at once, and its next request lets this
//! thread go on.
//!
//! ```text
//! usual ──the same program asks on──▶ yielding ──another one asks, or much is moved──▶ usual
//!                                        ├──nothing to do──▶ rested ──a request──▶ usual
//!                                        └──no progress, and ready to run──▶ held off ──a request and a moment──▶ usual
//! ```
//!
//! A program that moves large amounts works on one while the next is fetched. It is served beside it, so that both go on at once.
//!
//! Programs that compute could keep such a thread from running, and with it whoever waits for what it holds. A watch looks at it
//! as long as it yields, and makes it a usual one again; nothing wakes up where no queue yields.

use crate::fuse::thread::{self, may_yield, usual_policy};
use crate::proc;
use crate::system::{set_policy, set_policy_of};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// Requests of one program in a row after which a queue yields to it.
const BURST: u32 = 16;
/// Requests in a row that move much, after which a queue yields to nobody.
const STREAM: u32 = 3;
/// How often the watch looks while some queue yields: one that is kept from running is so for a few times that at most.
const LOOK: Duration = Duration::from_millis(5);
/// Looks in a row that find a queue ready to run, and no further, after which it is kept from running. The first may be the moment
/// at which a request came: the watch itself wakes a processor, and the kernel moves programs to one that is awake.
const HELD_LOOKS: u32 = 2;
/// How long a queue does not yield that was kept from running.
const HELD_OFF: Duration = Duration::from_millis(100);
/// Looks without a request after which a queue yields no more.
const QUIET_LOOKS: u32 = 20;

const USUAL: u8 = 0;
const YIELDING: u8 = 1;
/// The watch has made the thread a usual one: it had nothing to do.
const RESTED: u8 = 2;
/// The same: it was kept from running, or its program computes, which looks alike.
const HELD: u8 = 3;

/// What a queue's thread and the watch know of each other. Only the thread returns to USUAL, after it has made itself a usual one,
/// and the watch looks on until then.
struct Seat {
    state: AtomicU8,
    /// The thread, as the kernel numbers it.
    thread: i32,
    /// Counts requests.
    progress: AtomicU64,
}

/// Looks at queues that yield.
pub(super) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// With what the watch saw last. A seat that is in it is that of a thread that is there.
    seats: Mutex<Vec<(Arc<Seat>, Seen)>>,
    is_asleep: AtomicBool,
    is_over: AtomicBool,
}

impl Watch {
    /// Without it, or without the right to, no queue yields.
    pub fn new() -> Watch {
        let shared = Arc::new(Shared::default());
        let watched = shared.clone();
        let spawn = || thread::begin("ring-watch", move || watched.run());
        let warn = |error: &io::Error| log::warn!("no thread to watch rings, which are slower without: {error}");
        let thread = if may_yield() { spawn().inspect_err(warn).ok() } else { None };
        Watch { shared, thread }
    }

    /// For the thread of a queue, which calls it.
    pub fn seat(&self) -> Yielding {
        let thread = rustix::thread::gettid().as_raw_pid();
        let seat = Arc::new(Seat { thread, state: AtomicU8::new(USUAL), progress: AtomicU64::new(0) });
        self.shared.seats.lock().push((seat.clone(), Seen::default()));
        let watch = self.thread.as_ref().map(|thread| thread.thread().clone());
        Yielding { seat, shared: self.shared.clone(), watch, process: 0, requests: 0, large: 0, not_before: None }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let Some(thread) = self.thread.take() else { return };
        thread.thread().unpark();
        if thread.join().is_err() {
            log::error!("the watch of rings ended with a panic");
        }
    }
}

impl Shared {
    fn run(&self) {
        while !self.is_over.load(Ordering::SeqCst) {
            if self.look() {
                std::thread::sleep(LOOK);
                continue;
            }
            self.is_asleep.store(true, Ordering::SeqCst);
            // One may have begun since it was looked at.
            if !self.begins() {
                std::thread::park();
            }
            self.is_asleep.store(false, Ordering::SeqCst);
        }
    }

    /// Looks at all; whether some are to be looked at again.
    fn look(&self) -> bool {
        let mut seats = self.seats.lock();
        seats.iter_mut().map(|(seat, seen)| seen.look(seat)).fold(false, |any, one| any | one)
    }

    fn begins(&self) -> bool {
        self.seats.lock().iter().any(|(seat, _)| seat.state.load(Ordering::SeqCst) == YIELDING)
    }
}

/// What the watch saw of a seat when it looked last.
#[derive(Default)]
struct Seen {
    progress: u64,
    /// Looks in a row without progress.
    still: u32,
    /// Of these, the last in a row that found it ready to run.
    ready: u32,
}

impl Seen {
    /// Whether it is to be looked at again.
    fn look(&mut self, seat: &Seat) -> bool {
        let state = seat.state.load(Ordering::SeqCst);
        if state == USUAL {
            (self.still, self.ready) = (0, 0);
            return false;
        }
        let progress = seat.progress.load(Ordering::Relaxed);
        self.still = if progress == self.progress { self.still + 1 } else { 0 };
        self.progress = progress;
        self.ready = if self.still > 0 && is_ready_to_run(seat.thread) { self.ready + 1 } else { 0 };
        let is_ready = self.ready >= HELD_LOOKS;
        if !is_ready && (self.still < QUIET_LOOKS || state != YIELDING) {
            return state == YIELDING;
        }
        // Its policy first: from then on it goes on by itself. And again, until it says that it has seen it.
        if set_policy_of(seat.thread, usual_policy()) {
            seat.state.store(if is_ready { HELD } else { RESTED }, Ordering::SeqCst);
        }
        is_ready
    }
}

/// Whether a thread of this process could run.
fn is_ready_to_run(thread: i32) -> bool {
    proc::field(thread as u32, proc::STATE) == Some('R')
}

/// Of one queue, for its thread.
pub(super) struct Yielding {
    seat: Arc<Seat>,
    shared: Arc<Shared>,
    /// To be woken; without it nothing yields.
    watch: Option<Thread>,
    process: u32,
    /// Of that one, in a row.
    requests: u32,
    /// Requests that move much, in a row, of whoever.
    large: u32,
    not_before: Option<Instant>,
}

impl Yielding {
    /// Called with each request, and whether it moves much. What the kernel asks for by itself, as 0, nobody waits for.
    pub fn asked(&mut self, process: u32, is_large: bool) {
        let progress = self.seat.progress.load(Ordering::Relaxed);
        self.seat.progress.store(progress.wrapping_add(1), Ordering::Relaxed);
        let state = self.seat.state.load(Ordering::Relaxed);
        let is_another = process != 0 && process != self.process;
        if state == HELD {
            self.not_before = Some(Instant::now() + HELD_OFF);
        }
        self.large = if is_large { self.large.saturating_add(1) } else { 0 };
        let is_stream = self.large >= STREAM;
        if matches!(state, HELD | RESTED) || (state == YIELDING && (is_another || is_stream)) {
            self.end();
        }
        if is_another || is_stream {
            (self.process, self.requests) = (process, 0);
        } else if process != 0 {
            self.requests = self.requests.wrapping_add(1);
        }
        // The clock is asked for once in so many requests.
        let is_due = self.requests > 0 && self.requests.is_multiple_of(BURST);
        if is_due && matches!(state, USUAL | RESTED) && self.may_again() {
            self.begin();
        }
    }

    fn may_again(&mut self) -> bool {
        if self.not_before.is_some_and(|moment| Instant::now() < moment) {
            return false;
        }
        self.not_before = None;
        true
    }

    fn begin(&self) {
        let Some(watch) = &self.watch else { return };
        self.seat.state.store(YIELDING, Ordering::SeqCst);
        if self.shared.is_asleep.load(Ordering::SeqCst) {
            watch.unpark();
        }
        // The watch may have come between.
        if !set_policy(libc::SCHED_IDLE) || self.seat.state.load(Ordering::SeqCst) != YIELDING {
            self.end();
        }
    }

    fn end(&self) {
        set_policy(usual_policy());
        self.seat.state.store(USUAL, Ordering::SeqCst);
    }
}

impl Drop for Yielding {
    fn drop(&mut self) {
        self.end();
        // The number of the thread may be another's soon: the watch does not use it while this waits for the lock, nor later.
        self.shared.seats.lock().retain(|(seat, _)| !Arc::ptr_eq(seat, &self.seat));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: u32 = 4711;
    const PATIENCE: Duration = Duration::from_secs(10);

    /// The scheduling policy of this thread, as /proc says it.
    fn policy() -> i32 {
        proc::field(rustix::thread::gettid().as_raw_nonzero().get() as u32, proc::POLICY).unwrap()
    }

    fn ask_on(yielding: &mut Yielding) {
        (0..=2 * BURST).for_each(|_| yielding.asked(ME, false));
    }

    /// In a thread of its own, since some may not leave the policy again.
    fn in_a_thread(test: impl FnOnce(&mut Yielding) + Send + 'static) {
        if !may_yield() {
            return;
        }
        let run = move || {
            let watch = Watch::new();
            test(&mut watch.seat());
        };
        std::thread::spawn(run).join().unwrap();
    }

    #[test]
    fn a_queue_yields_to_one_program_that_goes_on_asking_and_to_no_other() {
        in_a_thread(|yielding| {
            (0..BURST).for_each(|_| yielding.asked(ME, false));
            assert_eq!(policy(), libc::SCHED_OTHER);
            ask_on(yielding);
            assert_eq!(policy(), libc::SCHED_IDLE);
            yielding.asked(0, false);
            assert_eq!(policy(), libc::SCHED_IDLE);
            yielding.asked(ME + 1, false);
            assert_eq!(policy(), libc::SCHED_OTHER);
        });
    }

    #[test]
    fn a_queue_yields_to_nobody_who_moves_much() {
        in_a_thread(|yielding| {
            ask_on(yielding);
            (1..STREAM).for_each(|_| yielding.asked(ME, true));
            assert_eq!(policy(), libc::SCHED_IDLE, "one large file among small ones is no stream");
            yielding.asked(0, true);
            assert_eq!(policy(), libc::SCHED_OTHER);
            (0..4 * BURST).for_each(|_| yielding.asked(ME, true));
            assert_eq!(policy(), libc::SCHED_OTHER);
            ask_on(yielding);
            assert_eq!(policy(), libc::SCHED_IDLE);
        });
    }

    #[test]
    fn what_is_kept_from_going_on_is_made_a_usual_thread_and_stays_so_for_a_moment() {
        in_a_thread(|yielding| {
            ask_on(yielding);
            let start = Instant::now();
            // It could go on, and does not: as if others computed in its place.
            while policy() == libc::SCHED_IDLE && start.elapsed() < PATIENCE {}
            assert_eq!(policy(), libc::SCHED_OTHER);
            yielding.asked(ME, false);
            let held = Instant::now();
            ask_on(yielding);
            // A thread that was away for longer than that may again.
            assert!(policy() == libc::SCHED_OTHER || held.elapsed() >= HELD_OFF);
            std::thread::sleep(HELD_OFF);
            ask_on(yielding);
            assert_eq!(policy(), libc::SCHED_IDLE);
        });
    }

    #[test]
    fn what_has_nothing_to_do_rests_and_the_watch_with_it() {
        in_a_thread(|yielding| {
            ask_on(yielding);
            let start = Instant::now();
            // It may not have woken yet from the sleep of before.
            let rests =
                |yielding: &Yielding| yielding.shared.is_asleep.load(Ordering::SeqCst) && policy() == libc::SCHED_OTHER;
            while !rests(yielding) && start.elapsed() < PATIENCE {
                std::thread::sleep(2 * QUIET_LOOKS * LOOK);
            }
            assert!(yielding.shared.is_asleep.load(Ordering::SeqCst));
            assert_eq!(policy(), libc::SCHED_OTHER);
            // It may have looked kept from running when it was looked at between two naps.
            yielding.asked(ME, false);
            std::thread::sleep(HELD_OFF);
            ask_on(yielding);
            assert_eq!(policy(), libc::SCHED_IDLE);
        });
    }
}
