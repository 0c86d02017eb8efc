//! The memory that entries of rings share with the kernel, and the rings themselves: the one place where these are touched
//! without a safe library between. An [`Entry`] is either here, and its buffers are ours, or with the kernel.

#![expect(unsafe_code, reason = "see above; each use says why it is sound")]

use super::wire::{HEADER_BYTES, Incoming};
use io_uring::squeue::Entry128;
use io_uring::{IoUring, cqueue, opcode, types};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;

/// What an entry is registered, and its answers are committed, by: `fuse_uring_cmd`.
const REGISTER: u32 = 1;
const COMMIT_AND_FETCH: u32 = 2;
/// Of the two buffers of an entry.
const SEGMENTS: u32 = 2;
/// Where an SQE has the length of what its address points to.
const SQE_LEN_AT: usize = 24;

/// Memory at the begin of a page, zeros at first: the system has it when it is touched.
struct Pages {
    start: NonNull<u8>,
    bytes: usize,
}

impl Pages {
    fn new(bytes: usize) -> io::Result<Pages> {
        let bytes = bytes.next_multiple_of(rustix::param::page_size());
        // SAFETY: new memory, at no address that anybody has.
        let start = unsafe {
            mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Pages { start, bytes })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped with this length, and by nobody else used any more.
        if let Err(error) = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) } {
            log::warn!("memory of a ring was not given back: {error}");
        }
    }
}

// SAFETY: nobody else has the memory, but for the kernel, which is given it and gives it back as a whole.
unsafe impl Send for Pages {}

/// An entry of a queue, with nobody else using its buffers.
pub struct Entry {
    pub index: usize,
    header: Pages,
    payload: Pages,
    /// What the kernel is given: where the two are.
    segments: Box<[libc::iovec; SEGMENTS as usize]>,
}

// SAFETY: the pointers are those of the pages, which may be sent.
unsafe impl Send for Entry {}

impl Entry {
    pub fn new(index: usize, payload_bytes: usize) -> io::Result<Entry> {
        let (header, payload) = (Pages::new(HEADER_BYTES)?, Pages::new(payload_bytes)?);
        let segment = |pages: &Pages, len| libc::iovec { iov_base: pages.start.as_ptr().cast(), iov_len: len };
        let segments = Box::new([segment(&header, HEADER_BYTES), segment(&payload, payload.bytes)]);
        Ok(Entry { index, header, payload, segments })
    }

    /// The request that it holds.
    pub fn incoming(&self) -> Option<Incoming<'_>> {
        // SAFETY: the memory is as long as that, initialized, and ours as long as the entry is here.
        let header = unsafe { self.header.start.cast::<[u8; HEADER_BYTES]>().as_ref() };
        // SAFETY: as above.
        let payload = unsafe { std::slice::from_raw_parts(self.payload.start.as_ptr(), self.payload.bytes) };
        Incoming::of(header, payload)
    }

    /// Its buffers, for the answer.
    pub fn parts(&mut self) -> (&mut [u8; HEADER_BYTES], &mut [u8]) {
        // SAFETY: the memory is as long as that, initialized, and ours alone as long as the entry is borrowed.
        let header = unsafe { self.header.start.cast::<[u8; HEADER_BYTES]>().as_mut() };
        // SAFETY: as above, and the two do not overlap.
        let payload = unsafe { std::slice::from_raw_parts_mut(self.payload.start.as_ptr(), self.payload.bytes) };
        (header, payload)
    }
}

/// What came back from the kernel.
pub enum Completion {
    /// An entry: with a request, or with an error number.
    Entry(Entry, Result<(), i32>),
    /// Somebody called [`Ring::watch`]'s descriptor.
    Woken,
}

/// One queue's ring, for the thread that made it.
pub struct Ring {
    ring: IoUring<Entry128, cqueue::Entry>,
    queue: u16,
    /// The entries that the kernel has. They are left to it, and never freed, if it does not give them back.
    lent: Vec<Option<std::mem::ManuallyDrop<Entry>>>,
}

const WAKE: u64 = u64::MAX;

impl Ring {
    pub fn new(queue: u16, entries: usize) -> io::Result<Ring> {
        let size = (2 * entries as u32 + 2).next_power_of_two();
        let build = |flags: fn(&mut io_uring::Builder<Entry128, cqueue::Entry>)| {
            let mut builder = IoUring::<Entry128, cqueue::Entry>::builder();
            flags(&mut builder);
            builder.build(size)
        };
        let ring = build(|builder| {
            builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all();
        })
        .or_else(|_| build(|_| {}))?;
        Ok(Ring { ring, queue, lent: (0..entries).map(|_| None).collect() })
    }

    /// Is told, by a completion, whenever something can be read from a descriptor; until then it stays open.
    pub fn watch(&mut self, descriptor: RawFd) -> io::Result<()> {
        let poll = opcode::PollAdd::new(types::Fd(descriptor), libc::POLLIN as u32).build().user_data(WAKE);
        self.push(poll.into())
    }

    /// Has the kernel put requests into an entry from now on.
    pub fn register(&mut self, device: RawFd, entry: Entry) -> io::Result<()> {
        self.lend(device, entry, REGISTER, 0)
    }

    /// Gives the kernel the answer that an entry holds; the next request comes in its place.
    pub fn commit(&mut self, device: RawFd, entry: Entry, commit_id: u64) -> io::Result<()> {
        self.lend(device, entry, COMMIT_AND_FETCH, commit_id)
    }

    fn lend(&mut self, device: RawFd, entry: Entry, what: u32, commit_id: u64) -> io::Result<()> {
        // `fuse_uring_cmd_req`: flags, the id, and the queue.
        let mut command = [0; 80];
        command[8..16].copy_from_slice(&commit_id.to_ne_bytes());
        command[16..18].copy_from_slice(&self.queue.to_ne_bytes());
        let address = entry.segments.as_ptr() as u64;
        let mut sqe = opcode::UringCmd80::new(types::Fd(device), what)
            .cmd(command)
            .addr(Some(address))
            .build()
            .user_data(entry.index as u64);
        // SAFETY: an SQE is plain bytes laid out as the kernel has them, and longer than this.
        unsafe { (&raw mut sqe).cast::<u8>().add(SQE_LEN_AT).cast::<u32>().write_unaligned(SEGMENTS) };
        let index = entry.index;
        self.lent[index] = Some(std::mem::ManuallyDrop::new(entry));
        self.push(sqe).inspect_err(|_| {
            // It never went.
            if let Some(entry) = self.lent[index].take() {
                drop(std::mem::ManuallyDrop::into_inner(entry));
            }
        })
    }

    fn push(&mut self, sqe: Entry128) -> io::Result<()> {
        loop {
            // SAFETY: what it points to is lent to the kernel until its completion comes, see `lent`; a poll points to nothing.
            if unsafe { self.ring.submission().push(&sqe) }.is_ok() {
                return Ok(());
            }
            self.submit()?;
        }
    }

    pub fn submit(&mut self) -> io::Result<()> {
        match self.ring.submit() {
            Err(error) if !is_passing(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Submits, and waits for something to come back.
    pub fn wait(&mut self) -> io::Result<()> {
        match self.ring.submit_and_wait(1) {
            Err(error) if !is_passing(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// The next of what has come back.
    pub fn next(&mut self) -> Option<Completion> {
        let completed = self.ring.completion().next()?;
        if completed.user_data() == WAKE {
            return Some(Completion::Woken);
        }
        let entry = self.lent.get_mut(completed.user_data() as usize)?.take()?;
        let result = if completed.result() < 0 { Err(-completed.result()) } else { Ok(()) };
        Some(Completion::Entry(std::mem::ManuallyDrop::into_inner(entry), result))
    }

    /// How many entries the kernel has.
    pub fn lent(&self) -> usize {
        self.lent.iter().flatten().count()
    }
}

/// Whether the same call may succeed a moment later.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}
