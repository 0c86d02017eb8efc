//! Threads of the mount that run anywhere.
//!
//! What serves requests may be bound to one processor, and may count as idle while it yields to a program. A thread has both from
//! the one that begins it: so each takes them off first, and nothing in this layer begins one in another way.

use crate::proc;
use crate::system::set_policy;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io;
use std::sync::OnceLock;
use std::thread::{Builder, JoinHandle};

/// Begins a thread of this name.
pub(super) fn begin<R: Send + 'static>(
    name: impl Into<String>,
    work: impl FnOnce() -> R + Send + 'static,
) -> io::Result<JoinHandle<R>> {
    let run = move || {
        run_anywhere();
        work()
    };
    Builder::new().name(name.into()).spawn(run)
}

/// The same of one that nobody waits for; where none can be had, what it was to answer fails.
pub(super) fn begin_or_tell<R: Send + 'static>(name: &str, work: impl FnOnce() -> R + Send + 'static) {
    if let Err(error) = begin(name, work) {
        log::error!("no thread to {name}: {error}");
    }
}

/// Nothing of where the thread that began this one runs.
fn run_anywhere() {
    if let Some(all) = all_processors()
        && let Err(error) = sched_setaffinity(None, all)
    {
        log::debug!("a thread stays where it was begun: {error}");
    }
    set_policy(usual_policy());
}

/// The policy that the process was started with, which is that of whoever runs it to choose.
pub(super) fn usual_policy() -> i32 {
    static USUAL: OnceLock<i32> = OnceLock::new();
    *USUAL.get_or_init(|| {
        let process = rustix::process::getpid().as_raw_nonzero().get() as u32;
        proc::field(process, proc::POLICY).unwrap_or(libc::SCHED_OTHER)
    })
}

/// The processors that the process was started with.
pub(super) fn all_processors() -> Option<&'static CpuSet> {
    static ALL: OnceLock<Option<CpuSet>> = OnceLock::new();
    ALL.get_or_init(|| sched_getaffinity(Some(rustix::process::getpid())).ok()).as_ref()
}

/// Whether a thread that counts as idle may count as a usual one again.
pub(super) fn may_yield() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    *MAY.get_or_init(|| {
        let try_it = || set_policy(libc::SCHED_IDLE) && set_policy(usual_policy());
        all_processors().is_some() && std::thread::spawn(try_it).join().unwrap_or(false)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_nothing_of_where_the_one_runs_that_begins_it() {
        let begins = || {
            let mut only = CpuSet::new();
            only.set(rustix::thread::sched_getcpu());
            sched_setaffinity(None, &only).unwrap();
            let yields = may_yield() && set_policy(libc::SCHED_IDLE);
            let look = || {
                let me = rustix::thread::gettid().as_raw_nonzero().get() as u32;
                (sched_getaffinity(None).unwrap().count(), proc::field(me, proc::POLICY).unwrap())
            };
            let here = look();
            (yields, here, begin("test", look).unwrap().join().unwrap())
        };
        let (yields, here, there) = std::thread::spawn(begins).join().unwrap();
        assert_eq!(here, (1, if yields { libc::SCHED_IDLE } else { libc::SCHED_OTHER }));
        assert_eq!(there, (all_processors().unwrap().count(), libc::SCHED_OTHER));
    }
}
