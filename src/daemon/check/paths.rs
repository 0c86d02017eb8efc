//! Where what is wrong is found: paths, as many as a report can carry.

use super::Check;
use crate::clock::Epoch;
use crate::device::{InodeAt, InodeNo, LIVE, Moment};
use crate::error::Result;
use crate::tree::{Most, is_root, join};
use crate::view::LIVE_NAME;
use serde_bytes::ByteBuf;

/// Paths that one problem carries at most.
const PATHS_MAX: usize = 1000;
/// Bytes of all paths of a report.
pub(super) const PATH_BYTES_ALL: usize = 16 << 20;
/// Bytes of one path; a longer one is not told.
const PATH_BYTES_MAX: usize = 1 << 20;

/// Paths of one problem.
#[derive(Debug, Default)]
pub(super) struct Paths {
    pub found: Vec<ByteBuf>,
    /// Bytes that they take, and may take.
    pub bytes: usize,
    room: usize,
    /// There are more than are told.
    pub is_cut: bool,
}

impl Paths {
    fn push(&mut self, path: Vec<u8>) {
        match self.found.len() < PATHS_MAX && self.bytes + path.len() <= self.room {
            true => {
                self.bytes += path.len();
                self.found.push(path.into());
            }
            false => self.is_cut = true,
        }
    }

    /// Whether it is for want of room that there are more.
    pub fn is_out_of_room(&self) -> bool {
        self.is_cut && self.found.len() < PATHS_MAX
    }
}

impl Check<'_> {
    fn no_paths(&self) -> Paths {
        let is_cut = self.room == 0 || self.is_full();
        Paths { room: self.room, is_cut, ..Paths::default() }
    }

    /// Where an inode is found in every view that shows what was born at `birth` and ended at `end`.
    pub(super) fn paths(&self, inode: InodeNo, birth: Epoch, end: Option<Epoch>) -> Paths {
        let mut paths = self.no_paths();
        if end.is_none() {
            self.add_paths(&mut paths, inode.live(), LIVE_NAME, b"");
        }
        for snapshot in self.snapshots.iter().filter(|snapshot| snapshot.base == inode.base()) {
            if birth <= snapshot.epoch && end.is_none_or(|end| snapshot.epoch < end) {
                self.add_paths(&mut paths, inode.at(Moment::At(snapshot.epoch)), &snapshot.record.name, b"");
            }
            if paths.is_cut {
                break;
            }
        }
        paths
    }

    /// Where an inode is found now.
    pub(super) fn paths_now(&self, inode: InodeNo) -> Paths {
        self.paths(inode, Epoch::MAX, None)
    }

    /// Where a name in a directory is found in one view.
    pub(super) fn paths_of_name(&self, directory: InodeAt, entry: &[u8], name: &str) -> Paths {
        let mut paths = self.no_paths();
        self.add_paths(&mut paths, directory, name, entry);
        paths
    }

    /// Adds where an inode, or what is called `below` in it, is found in one view.
    pub(super) fn add_paths(&self, paths: &mut Paths, at: InodeAt, name: &str, below: &[u8]) {
        if paths.is_cut {
            return;
        }
        let view = match at.inode.base() {
            LIVE => format!("{name}/"),
            base => self.daemon.views.of(base).base_name().map_or("?:".into(), |base| format!("{base}:{name}/")),
        };
        let mut push = |path: &[u8]| {
            let path = if below.is_empty() { path.to_vec() } else { join(path, below) };
            paths.push([view.as_bytes(), &path].concat());
            !paths.is_cut
        };
        let why = match self.each_path(at, &mut push) {
            Ok(Reached::Yes) => return,
            Ok(Reached::NoName) => "which has no name there",
            Ok(Reached::NoWay) => "to which no way leads from the root, or too long a one",
            Err(_) => "whose name is damaged",
        };
        push(format!("? (inode {}, {why})", at.inode.number()).as_bytes());
    }

    /// Calls `each` with the paths of an inode in one view until it says no.
    fn each_path(&self, at: InodeAt, each: &mut dyn FnMut(&[u8]) -> bool) -> Result<Reached> {
        let tree = self.daemon.views.tree();
        if is_root(at.inode) {
            tree.device().look()?.moments().check(at)?;
            each(b"");
            return Ok(Reached::Yes);
        }
        let most = Most { names: usize::MAX, bytes: PATH_BYTES_MAX };
        let mut reached = Reached::NoName;
        for (directory, name) in tree.names().of(at)? {
            let Some(path) = tree.names().directory_path(directory.at(at.moment), most)? else {
                reached = reached.max(Reached::NoWay);
                continue;
            };
            reached = Reached::Yes;
            if !each(&join(&path, &name)) {
                break;
            }
        }
        Ok(reached)
    }
}

/// Whether an inode is found from the root.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    NoName,
    NoWay,
    Yes,
}
