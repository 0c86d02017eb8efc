//! The thread of one queue: it takes requests, carries out those that are light, and gives answers back.

use super::dispatch::moves_much;
use super::helpers::Helpers;
use super::memory::{Completion, Entry, Ring};
use super::yielding::{Watch, Yielding};
use super::{Serves, Weight};
use crate::fuse::aside::Aside;
use rustix::event::{EventfdFlags, eventfd};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// What a queue needs to serve.
pub(super) struct Begin {
    pub server: Arc<dyn Serves>,
    pub device: Arc<File>,
    pub helpers: Arc<Helpers>,
    pub watch: Arc<Watch>,
}

/// While the kernel has not taken in yet that it was told of rings.
const NOT_YET: Duration = Duration::from_millis(1);

type Told = Sender<Result<(), String>>;

/// Makes the ring, says so, waits for what to serve, and serves until the connection ends.
pub(super) fn run(processor: usize, entries: usize, payload_bytes: usize, begin: &Receiver<Begin>, tell: &Told) {
    let mut only = CpuSet::new();
    if processor < CpuSet::MAX_CPU {
        only.set(processor);
        // One that is not there now may come; until then nobody makes a request there.
        if let Err(error) = sched_setaffinity(None, &only) {
            log::debug!("the thread of queue {processor} is not bound: {error}");
        }
    }
    let made = u16::try_from(processor).map_err(io::Error::other).and_then(|queue| Ring::new(queue, entries));
    let made = made.map_err(|error| format!("a ring for processor {processor}: {error}"));
    let ring = match made {
        Ok(ring) => ring,
        Err(error) => return say(tell, Err(error)),
    };
    let memory: io::Result<Vec<Entry>> = (0..entries).map(|index| Entry::new(index, payload_bytes)).collect();
    let memory = match memory {
        Ok(memory) => memory,
        Err(error) => return say(tell, Err(format!("memory for a ring: {error}"))),
    };
    say(tell, Ok(()));
    // Nothing comes where rings are not used after all.
    let Ok(begin) = begin.recv() else { return };
    let mut queue = match Queue::new(ring, begin) {
        Ok(queue) => queue,
        Err(error) => return say(tell, Err(error.to_string())),
    };
    match queue.register(memory) {
        Ok(()) => say(tell, Ok(())),
        Err(error) => return say(tell, Err(format!("queue {processor}: {error}"))),
    }
    let served = crate::fault::contained(|| queue.serve());
    let why = match served {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(what) => what,
    };
    // Requests of this processor would wait for ever: better that all get an error.
    log::error!("the ring of processor {processor} ended, and the mount with it: {why}");
    queue.server.end_connection();
}

fn say(tell: &Told, what: Result<(), String>) {
    // Whoever waited for it may have given up.
    tell.send(what).unwrap_or_default();
}

struct Queue {
    ring: Ring,
    server: Arc<dyn Serves>,
    device: Arc<File>,
    helpers: Arc<Helpers>,
    /// For what takes long, user by user.
    aside: Aside,
    /// Entries whose answers helpers have put into them.
    done: (Sender<Entry>, Receiver<Entry>),
    /// Written to by helpers.
    bell: Arc<File>,
    is_over: bool,
    yielding: Yielding,
}

impl Queue {
    fn new(ring: Ring, Begin { server, device, helpers, watch }: Begin) -> io::Result<Queue> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (done, bell) = (channel(), Arc::new(File::from(bell)));
        let yielding = watch.seat();
        let mut queue =
            Queue { ring, server, device, helpers, aside: Aside::default(), done, bell, is_over: false, yielding };
        queue.ring.watch(queue.bell.as_raw_fd())?;
        Ok(queue)
    }

    /// Registers all entries. The kernel completes one at once only to refuse it.
    fn register(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        for entry in entries {
            self.ring.register(self.device.as_raw_fd(), entry)?;
        }
        self.ring.submit()?;
        while let Some(completion) = self.ring.next() {
            match completion {
                Completion::Entry(entry, Err(libc::EAGAIN)) => {
                    std::thread::sleep(NOT_YET);
                    self.ring.register(self.device.as_raw_fd(), entry)?;
                    self.ring.submit()?;
                }
                Completion::Entry(_, Err(error)) => return Err(io::Error::from_raw_os_error(error)),
                // The first requests are there already.
                Completion::Entry(entry, Ok(())) => self.take(entry)?,
                Completion::Woken => self.collect()?,
            }
        }
        Ok(())
    }

    fn serve(&mut self) -> io::Result<()> {
        while self.ring.lent() > 0 || !self.is_over {
            self.ring.wait()?;
            while let Some(completion) = self.ring.next() {
                match completion {
                    Completion::Entry(entry, Ok(())) => self.take(entry)?,
                    Completion::Woken => self.collect()?,
                    // The connection has ended. Anything else would leave a queue without entries, and whoever asks it waiting.
                    Completion::Entry(_, Err(libc::ENOTCONN | libc::ENODEV | libc::ECONNABORTED | libc::ECANCELED)) => {
                        self.is_over = true;
                    }
                    Completion::Entry(_, Err(error)) => return Err(io::Error::from_raw_os_error(error)),
                }
            }
        }
        Ok(())
    }

    /// A request has come.
    fn take(&mut self, mut entry: Entry) -> io::Result<()> {
        let (process, is_large) =
            entry.incoming().map_or((0, false), |request| (request.header.pid, moves_much(&request)));
        self.yielding.asked(process, is_large);
        // What looks at the store can fail as what changes it can.
        let found = crate::fault::contained(|| self.server.weight(&entry)).unwrap_or(Weight::Waits);
        let work = match found {
            Weight::Light => {
                self.server.answer(&mut entry);
                return self.give_back(entry);
            }
            weight => weight,
        };
        let (server, done, bell) = (self.server.clone(), self.done.0.clone(), self.bell.clone());
        let carry_out = move || {
            server.answer(&mut entry);
            // The queue may have ended.
            if done.send(entry).is_ok()
                && let Err(error) = (&*bell).write_all(&1u64.to_ne_bytes())
            {
                log::error!("a queue is not told of an answer: {error}");
            }
        };
        match work {
            Weight::Long(user) => self.aside.run(user, carry_out),
            Weight::Light | Weight::Waits => self.helpers.run(carry_out),
        }
        Ok(())
    }

    /// Gives back what helpers have answered.
    fn collect(&mut self) -> io::Result<()> {
        let mut rung = [0; 8];
        match (&*self.bell).read(&mut rung) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        while let Ok(entry) = self.done.1.try_recv() {
            self.give_back(entry)?;
        }
        self.ring.watch(self.bell.as_raw_fd())
    }

    fn give_back(&mut self, entry: Entry) -> io::Result<()> {
        let Some(commit_id) = entry.incoming().map(|request| request.commit_id) else {
            return Err(io::Error::other("a request that makes no sense"));
        };
        self.ring.commit(self.device.as_raw_fd(), entry, commit_id)
    }
}
