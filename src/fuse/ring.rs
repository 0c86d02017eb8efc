//! The transport over the kernel's rings (FUSE over io_uring, Linux 6.14): one queue for each possible processor, with a
//! thread that is bound there. A request comes where it was made, and its answer and the next request are one call.
//!
//! ```text
//! prepared ──INIT is answered with the flag──▶ registering ──each queue has entries──▶ serving ──the connection ends──▶ over
//! ```
//!
//! Invariants:
//! - everything that can fail is there before the kernel is told that rings are wanted: from then on it waits for them;
//! - there are as many queues as there can be processors; one whose number is higher than that, where numbers have gaps, is served
//!   by the first queue, as the kernel has it;
//! - a thread of a queue waits for nothing but short locks: what may wait for the disk, a commit or the kernel is carried out
//!   by a helper, and its answer comes back to the queue that has the entry;
//! - INTERRUPT, notifications and most of FORGET go over the device.

mod dispatch;
mod helpers;
mod memory;
mod queue;
pub mod wire;
mod yielding;

use super::REQUEST_BYTES;
use crate::error::{Errno, Error, Result};
pub(super) use dispatch::Requests;
use helpers::Helpers;
pub use memory::Entry;
use queue::Begin;
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use yielding::Watch;

/// Requests that one processor can have under way; more wait in the kernel.
const ENTRIES: usize = 8;
/// How long registering may take.
const REGISTERING: Duration = Duration::from_secs(10);

const PARAMETER: &str = "/sys/module/fuse/parameters/enable_uring";
const POSSIBLE: &str = "/sys/devices/system/cpu/possible";

/// By whom a request is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// By the thread that took it: it waits for nothing but short locks.
    Light,
    /// By another one: it waits for the disk, for a commit, or for the kernel.
    Waits,
    /// By one that does such things for this user, one after the other.
    Long(u32),
}

/// What answers requests that come through rings.
pub trait Serves: Send + Sync {
    fn weight(&self, entry: &Entry) -> Weight;

    /// Carries a request out, and leaves the answer in the entry.
    fn answer(&self, entry: &mut Entry);

    /// Nobody can take requests any more: whoever waits for an answer gets an error.
    fn end_connection(&self);
}

/// Rings that are there, and of which the kernel does not know yet.
pub struct Prepared {
    begin: Vec<Sender<Begin>>,
    threads: Vec<JoinHandle<()>>,
    ready: Receiver<std::result::Result<(), String>>,
}

/// Rings that serve; their threads end with the connection.
pub struct Rings {
    threads: Vec<JoinHandle<()>>,
    _watch: Arc<Watch>,
}

/// Whether the kernel has rings, switched on.
pub fn is_enabled() -> bool {
    std::fs::read_to_string(PARAMETER).is_ok_and(|text| matches!(text.trim(), "Y" | "1"))
}

/// Has the kernel offer rings, as root may.
pub(super) fn enable() -> Result<()> {
    let refused = |error: std::io::Error| match Errno::from_io_error(&error) {
        Some(Errno::NOENT) => {
            let text = "this kernel has no rings for FUSE: they came with Linux 6.14, and CONFIG_FUSE_IO_URING";
            Error::Refused(Errno::OPNOTSUPP, text.into())
        }
        _ => {
            let text =
                format!("rings for FUSE are off, and only root can switch them on: `echo Y > {PARAMETER}` ({error})");
            Error::Refused(Errno::PERM, text)
        }
    };
    std::fs::write(PARAMETER, "Y").map_err(refused)
}

/// How many processors there can be: the kernel has as many queues, numbered without gaps.
fn processors() -> usize {
    let listed = std::fs::read_to_string(POSSIBLE).unwrap_or_default();
    count(listed.trim()).unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// How many numbers a list of ranges has, such as `0-3,8`.
fn count(list: &str) -> Option<usize> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        Some(last.checked_sub(first)? + 1)
    };
    list.split(',').map(range).sum()
}

impl Prepared {
    /// Makes a ring and the memory of its entries for each processor.
    pub fn new() -> Result<Prepared> {
        let failed = |error: String| Error::Refused(Errno::OPNOTSUPP, format!("rings cannot be used: {error}"));
        let (tell, ready) = channel();
        let (mut begin, mut threads) = (Vec::new(), Vec::new());
        let count = processors();
        for processor in 0..count {
            let (sender, receiver) = channel();
            let tell = tell.clone();
            let run = move || queue::run(processor, ENTRIES, REQUEST_BYTES as usize, &receiver, &tell);
            let spawned = super::thread::begin(format!("ring-{processor}"), run);
            threads.push(spawned.map_err(|error| failed(error.to_string()))?);
            begin.push(sender);
        }
        let prepared = Prepared { begin, threads, ready };
        prepared.wait_for_all().map_err(failed)?;
        Ok(prepared)
    }

    fn wait_for_all(&self) -> std::result::Result<(), String> {
        for _ in 0..self.begin.len() {
            self.ready.recv_timeout(REGISTERING).map_err(|_| "a queue did not begin".to_string())??;
        }
        Ok(())
    }

    /// Registers all entries; the kernel, which was told that there would be rings, serves nobody before.
    pub fn begin(self, server: &Arc<dyn Serves>, device: &Arc<File>) -> Result<Rings> {
        let helpers = Arc::new(Helpers::new(ENTRIES * self.begin.len()));
        let watch = Arc::new(Watch::new());
        for begin in &self.begin {
            let (helpers, watch) = (helpers.clone(), watch.clone());
            let told = begin.send(Begin { server: server.clone(), device: device.clone(), helpers, watch });
            told.map_err(|_| Error::Fault("a queue's thread has ended".into()))?;
        }
        let failed = |error| Error::Refused(Errno::IO, format!("rings could not be registered: {error}"));
        self.wait_for_all().map_err(failed)?;
        Ok(Rings { threads: self.threads, _watch: watch })
    }
}

impl Rings {
    /// Waits for the threads, once the connection has ended.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                log::error!("the thread of a ring ended with a panic");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_whatever_their_numbers() {
        assert_eq!([count("0-1"), count("0"), count("0-3,8-11,64"), count("")], [Some(2), Some(1), Some(9), None]);
    }
}
