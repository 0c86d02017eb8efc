//! Telling the kernel what changed behind its back. Never called by a thread that serves requests.
//!
//! The kernel waits for locks of pages and directories, which are held by requests that wait for the daemon: so
//! companions hand it the messages. What waits for directories does not hold up what waits for pages: a `mkdir` that
//! takes a snapshot locks its directory until what is dirty has been fetched.

use super::companion::{Companion, Outcome, Role, Visit};
use super::number::{KernelNo, ROOT, base_number, live_number};
use super::{FileSystem, unmount_path};
use crate::device::{BaseId, InodeNo};
use crate::error::{Errno, Error, Result};
use crate::shown::{shown, shown_file};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Invalidates what the kernel keeps.
#[derive(Clone)]
pub struct Notify {
    /// Tells of names.
    names: Arc<Companion>,
    /// Tells of inodes and their pages.
    pages: Arc<Companion>,
    pub(super) visitor: Arc<Companion>,
    mount_point: PathBuf,
    /// The connection itself, for where there is no notifier to be had.
    device: Arc<File>,
    pub(super) fs: Arc<FileSystem>,
}

/// Kinds of notifications, as in the header of an answer that has no request. FUSE_NOTIFY_INC_EPOCH is known since Linux
/// 6.16: every name that the kernel remembers is looked up again, and what is mounted on any of them goes.
const INVAL_INODE: i32 = 2;
const INVAL_ENTRY: i32 = 3;
const INC_EPOCH: i32 = 8;

/// How a name is given up. Expired, it is looked up again, and what is mounted there stays if it leads to the same inode.
#[derive(Clone, Copy)]
enum How {
    Dropped = 0,
    Expired = 1,
}

fn message(kind: i32, body: &[&[u8]]) -> Vec<u8> {
    const HEADER: usize = 16;
    let len = HEADER + body.iter().map(|part| part.len()).sum::<usize>();
    let header: [&[u8]; 3] = [&(len as u32).to_ne_bytes(), &kind.to_ne_bytes(), &0u64.to_ne_bytes()];
    header.iter().chain(body).copied().collect::<Vec<_>>().concat()
}

/// Drops attributes, and pages from `offset` on, all of them if `len` is 0, none if `offset` is negative.
fn inval_inode(number: KernelNo, offset: i64, len: i64) -> Vec<u8> {
    message(INVAL_INODE, &[&number.0.to_ne_bytes(), &offset.to_ne_bytes(), &len.to_ne_bytes()])
}

fn inval_entry(directory: KernelNo, name: &[u8], how: How) -> Vec<u8> {
    let len = (name.len() as u32).to_ne_bytes();
    message(INVAL_ENTRY, &[&directory.0.to_ne_bytes(), &len, &(how as u32).to_ne_bytes(), name, &[0]])
}

/// What programs have written to a file cannot be had.
fn is_held() -> Error {
    let text = "what was written to a file cannot be fetched: a program that uses it waits for something else, such as a file \
                system that does not answer; end that program (`fuser -v` shows it), and try again";
    Error::Refused(Errno::BUSY, text.into())
}

impl Notify {
    pub(super) fn new(mount_point: PathBuf, device: File, fs: Arc<FileSystem>, has_rings: bool) -> Notify {
        // What the daemon had taken from the device ends with the daemon; what it had through rings does not.
        let connection = fs.connection.get().map(|(connection, _)| *connection).filter(|_| has_rings);
        let device = Arc::new(device);
        let notifier = || Arc::new(Companion::new(Role::Notifier, connection, device.clone(), Arc::default()));
        let (names, pages) = (notifier(), notifier());
        let visitor = Arc::new(Companion::new(Role::Visitor, None, device.clone(), fs.beside.clone()));
        Notify { names, pages, visitor, mount_point, device, fs }
    }

    /// Has the companions started, and does not wait for them.
    pub(super) fn prepare(&self) {
        let all = [self.names.clone(), self.pages.clone(), self.visitor.clone()];
        let start = move || all.iter().for_each(|companion| companion.prepare());
        if let Err(error) = super::thread::begin("companions", start) {
            log::debug!("companions are started when they are needed: {error}");
        }
    }

    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// Has what programs wrote to a file, and the kernel still keeps, written to the daemon. `path` is below the mount
    /// point.
    pub(super) fn fetch_written(&self, inode: InodeNo, path: &Path) -> Result<()> {
        let path = self.mount_point.join(path);
        let failed =
            |errno: Errno| Error::media(format!("fetching what was written to {}", shown_file(&path)), errno.into());
        let visited = self
            .visitor
            .ask(&[Visit::Sync.message(&path)])
            .map_err(|error| Error::media("starting the process that fetches what was written", error))?;
        match visited.as_slice() {
            // Somebody holds the file: it is fetched without its lock.
            [(Err(Errno::TIMEDOUT), _)] => self.fetch_files(&[inode])?,
            // It had not been opened, or another file has the name by now.
            [(_, found)] if *found != live_number(inode).0 => self.fetch_files(&[inode])?,
            [(result, _)] => result.map_err(failed)?,
            _ => {}
        }
        Ok(())
    }

    /// The process that fetches, once it has begun to.
    pub(super) fn visitor(&self) -> Option<u32> {
        self.visitor.process()
    }

    /// Unmounts, which writes out what the kernel keeps, and so can wait for the daemon.
    pub(super) fn unmount(&self, at: &Path, lazy: bool) -> Result<()> {
        let errand = if lazy { Visit::UnmountLazily } else { Visit::Unmount };
        // Whoever could hold it up keeps the mount busy, which ends it at once; what it writes out takes what it takes.
        match self.visitor.ask_to_the_end(errand.message(at)).as_deref() {
            Ok([(Ok(()), _)]) => Ok(()),
            Ok([(Err(errno), _)]) => {
                let text = format!("{} could not be unmounted: {}", shown_file(at), Error::Posix(*errno));
                Err(Error::Refused(*errno, text))
            }
            _ => unmount_path(at, lazy),
        }
    }

    /// Hands messages to the kernel, in their order.
    fn send(&self, by: &Companion, messages: &[Vec<u8>]) -> Vec<Outcome> {
        by.ask(messages).unwrap_or_else(|error| {
            log::warn!("no notifier can be started: {error}");
            // What the kernel keeps must not be believed any longer, whatever that waits for.
            let tell = |message: &Vec<u8>| (&*self.device).write(message).map(|_| ());
            let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
            messages.iter().map(|message| (tell(message).map_err(errno), 0)).collect()
        })
    }

    /// Whether something waits for a program that holds it.
    fn tell(&self, by: &Companion, messages: &[Vec<u8>]) -> bool {
        let mut is_held = false;
        for (result, _) in self.send(by, messages) {
            match result {
                Err(Errno::TIMEDOUT) => {
                    is_held = true;
                    log::warn!(
                        "the kernel's cache is not up to date: a program holds a directory or file, and waits itself"
                    );
                }
                // The kernel does not keep it, or nothing any more: the mount has ended.
                Ok(()) | Err(Errno::NOENT | Errno::NODEV | Errno::NOTCONN | Errno::CONNABORTED) => {}
                Err(errno) => {
                    let error = std::io::Error::from(errno);
                    log::warn!("the kernel's cache could not be brought up to date: {error}");
                }
            }
        }
        is_held
    }

    /// Attributes of an inode are asked for again. The one message that a thread that serves requests may send, while a
    /// request is about this very inode: the kernel waits for nothing then.
    pub(super) fn drop_attributes(&self, number: KernelNo) {
        const NO_PAGES: i64 = -1;
        if let Err(error) = (&*self.device).write(&inval_inode(number, NO_PAGES, 0)) {
            log::warn!("the kernel goes by attributes that it was given before: {error}");
        }
    }

    /// Drops pages of an inode; those that nobody has written out yet are written out before.
    pub(super) fn drop_pages(&self, number: KernelNo, offset: u64, len: usize) {
        self.tell(&self.pages, &[inval_inode(number, offset as i64, len as i64)]);
    }

    /// A snapshot or clone of a base, or the base itself, came, went or was renamed by command.
    pub fn shown_changed(&self, base: BaseId, name: &str) {
        let directories = [ROOT, base_number(base)];
        let shown = directories.into_iter().filter(|directory| *directory == ROOT || !self.fs.namespace.is_of_one());
        self.names_changed(shown.map(|directory| (directory, name.as_bytes())), How::Dropped);
    }

    /// It is to be looked up again: what is mounted below it stays if the name leads to the same, or if the kernel has
    /// found that under another name by then.
    pub fn shown_anew(&self, base: BaseId, old: &str) {
        let directories = [ROOT, base_number(base)];
        let shown = directories.into_iter().filter(|directory| *directory == ROOT || !self.fs.namespace.is_of_one());
        self.names_changed(shown.map(|directory| (directory, old.as_bytes())), How::Expired);
    }

    fn names_changed<'a>(&self, names: impl Iterator<Item = (KernelNo, &'a [u8])> + Clone, how: How) {
        let entries: Vec<_> = names.clone().map(|(directory, name)| inval_entry(directory, name, how)).collect();
        self.tell(&self.names, &entries);
        let directories: Vec<_> = names.map(|(directory, _)| inval_inode(directory, 0, 0)).collect();
        self.tell(&self.pages, &directories);
    }

    /// Lets the kernel look up every name that it remembers again; false if it cannot do that by itself.
    pub fn look_up_again(&self) -> bool {
        let told = self.send(&self.pages, &[message(INC_EPOCH, &[])]);
        let mut failed = told.into_iter().filter_map(|(result, _)| result.err());
        failed.next().inspect(|error| log::debug!("this kernel looks nothing up again by itself: {error}")).is_none()
    }

    /// An entry of a live directory came, went or leads elsewhere.
    pub fn entry_changed(&self, directory: InodeNo, name: &[u8]) {
        self.entries_changed(&[(directory, name.to_vec())]);
    }

    /// Entries of live directories came, went or lead elsewhere.
    pub fn entries_changed(&self, entries: &[(InodeNo, Vec<u8>)]) {
        self.names_changed(
            entries.iter().map(|(directory, name)| (live_number(*directory), name.as_slice())),
            How::Dropped,
        );
    }

    /// Entries of live directories led to directories that are elsewhere now.
    pub fn entries_moved(&self, entries: &[(InodeNo, Vec<u8>)]) {
        self.names_changed(
            entries.iter().map(|(directory, name)| (live_number(*directory), name.as_slice())),
            How::Expired,
        );
    }

    /// Names in the mount root under which inodes were found from beside: they would hold these.
    pub(super) fn drop_beside(&self, names: &[String]) {
        self.tell(
            &self.names,
            &names.iter().map(|name| inval_entry(ROOT, name.as_bytes(), How::Dropped)).collect::<Vec<_>>(),
        );
    }

    /// Brings in what programs have stored in mappings of files of a base, as far as the kernel keeps it; with its
    /// writeback cache, [`Mounted::before_snapshot`](super::Mounted::before_snapshot) has done so.
    pub fn fetch(&self, base: BaseId) -> Result<()> {
        if self.fs.writeback {
            return Ok(());
        }
        let mut dirty = self.fs.unwritten().which_may_be_dirty();
        dirty.retain(|inode| inode.base() == base);
        self.fetch_files(&dirty)
    }

    /// The same for one file, which may be changed by the kernel without a request.
    pub fn fetch_file(&self, inode: InodeNo) -> Result<()> {
        if self.fs.unwritten().may_be_dirty(inode) { self.fetch_files(&[inode]) } else { Ok(()) }
    }

    /// An error in words where something of it could not be stored, now or before: it would be gone with what is about to
    /// come. It is said once.
    fn fetch_files(&self, inodes: &[InodeNo]) -> Result<()> {
        let mut not_stored = self.fs.not_stored.take(inodes);
        if not_stored.is_empty() {
            if self.tell_of_inodes(inodes.iter().copied()) {
                return Err(is_held());
            }
            not_stored = self.fs.not_stored.take(inodes);
        }
        let Some(inode) = not_stored.first() else { return Ok(()) };
        let path = self.fs.views.tree().names().paths(inode.live()).unwrap_or_default().pop().unwrap_or_default();
        let path = shown(&path);
        let more = match not_stored.len() {
            1 => String::new(),
            many => format!(" and of {} others", many - 1),
        };
        let text = format!(
            "what a program has stored in a mapping of {path:?}{more} could not be written, and would be lost; make room, and let the \
             program store it again, or do this once more to go on without it"
        );
        Err(Error::Refused(Errno::NOSPC, text))
    }

    /// Whether the kernel believes in its own times of files.
    pub fn keeps_times(&self) -> bool {
        self.fs.writeback
    }

    /// Whether a program has a live file open for writing, as far as the kernel tells of that.
    pub fn is_open_for_writing(&self, inode: InodeNo) -> bool {
        self.fs.open_for_writing.has(inode)
    }

    /// Attributes or data of live inodes changed.
    pub fn inodes_changed(&self, inodes: impl IntoIterator<Item = InodeNo>) {
        self.tell_of_inodes(inodes);
    }

    fn tell_of_inodes(&self, inodes: impl IntoIterator<Item = InodeNo>) -> bool {
        let told = |inode| inval_inode(live_number(inode), 0, 0);
        self.tell(&self.pages, &inodes.into_iter().map(told).collect::<Vec<_>>())
    }

    /// The kernel may not go by the attributes that it knows of live inodes.
    pub fn attributes_changed(&self, inodes: impl IntoIterator<Item = InodeNo>) {
        let told = |inode| inval_inode(live_number(inode), -1, 0);
        self.tell(&self.pages, &inodes.into_iter().map(told).collect::<Vec<_>>());
    }

    /// Attributes or data of a live inode changed.
    pub fn inode_changed(&self, inode: InodeNo) {
        self.inodes_changed([inode]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_their_length_in_front_and_names_end_in_a_zero() {
        let entry = inval_entry(KernelNo(0x42), b"abc", How::Expired);
        assert_eq!(entry.len(), 36);
        assert_eq!(entry[..8], [36, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(entry[16..], *b"\x42\0\0\0\0\0\0\0\x03\0\0\0\x01\0\0\0abc\0");
        let inode = inval_inode(KernelNo(0x42), 100, 200);
        assert_eq!((inode.len(), inode[4], inode[16], inode[24], inode[32]), (40, 2, 0x42, 100, 200));
        assert_eq!(message(INC_EPOCH, &[]), [16, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
