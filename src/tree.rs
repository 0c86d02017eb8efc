//! A tree of files: inodes, directory entries and xattrs, over records with a memory.
//!
//! Every operation is one transaction: it takes effect whole or not at all. Operations that change data
//! of a file hold that file's lock, so that what they read before the transaction still holds in it.
//!
//! Invariants:
//! - a directory entry names an inode that exists; an inode's `links` counts its entries (a directory's
//!   counts itself and its subdirectories);
//! - an inode's first name is in its record (`parent`, `name`), further ones in the `link` table;
//! - a file has inline bytes only while it is at most [`INLINE_BYTES_MAX`] long, and then no tracks;
//! - no track lies past the end of its file, and no track holds bytes past it;
//! - a name that a record has is one (`is_name`), or the record is damaged, wherever it comes from.

mod access;
mod acl;
mod attributes;
mod base;
mod behind;
pub mod check;
mod compare;
mod copy;
mod data;
mod disarm;
mod fsync;
mod inode;
mod likeness;
mod names;
mod origin;
mod paths;
mod position;
mod reap;
mod rename;
mod room;
mod space;
mod stamps;
mod told;
mod xattr;

pub use access::Asker;
pub use attributes::{Change, SetTime};
pub use behind::Sent;
pub use compare::{ChangedSince, ChangedTracks, Difference, DifferenceKind, Version, bitmap};
pub use copy::Position;
pub use disarm::Rights;
pub use inode::{Inode, Kind, ROOT, is_root, root_of};
pub use likeness::{Likened, OnStep};
pub use names::{Caller, Entry, New};
pub use origin::Origin;
pub(crate) use paths::join;
pub use paths::{Most, names_of};
pub use rename::RenameMode;
pub use space::Space;
pub use told::Altered;
pub use xattr::{SetMode, SetXattr};

use behind::Behind;

use crate::clock::Timestamp;
use crate::device::{Changed, Device, InodeNo, Settings};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::limits::*;
use crate::logstore::Codec;
use crate::media::MediaDir;
use crate::meta::{Table, is_name, record_name};
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

const FILE_LOCKS: usize = 64;
const NEXT_INODE: &[u8] = b"next inode";

pub struct Tree {
    device: Device,
    file_locks: Vec<Mutex<()>>,
    /// Inodes that are known outside (by a kernel): until that is over, they are not removed.
    held: Mutex<HashMap<InodeNo, Held>>,
    stamps: stamps::Stamps,
    behind: Behind,
    positions: position::Positions,
    make_room: OnceLock<room::MakeRoom>,
}

/// How an inode is known outside.
#[derive(Default)]
struct Held {
    times: u64,
    generation: u64,
}

/// What a new store is like.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    pub track_bytes: usize,
    pub codec: Codec,
    /// Owner and mode of the root of `live`.
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    /// Seeds the hashes of names; random for a real store.
    pub hash_seed: u64,
}

impl Tree {
    /// Lays out a new store with an empty `live`.
    pub fn create(dir: Arc<dyn MediaDir>, options: &CreateOptions) -> Result<()> {
        let settings = Settings {
            track_bytes: options.track_bytes as u32,
            codec: options.codec,
            hash_seed: options.hash_seed,
            id: Id::random(),
        };
        Device::create(dir.clone(), &settings)?;
        let tree = Tree::open(dir)?;
        let mut txn = tree.device.begin()?;
        let now = Timestamp::now();
        let mut root = Inode::new(Kind::Directory, options.mode, options.uid, options.gid, now);
        root.parent = ROOT;
        txn.set(Table::Inode, &inode::key(ROOT), &root)?;
        txn.meta_mut().put(Table::State, NEXT_INODE, &(ROOT.number() + 1));
        txn.finish()?;
        tree.commit()
    }

    pub fn open(dir: Arc<dyn MediaDir>) -> Result<Tree> {
        let (device, journaled) = Device::open(dir)?;
        let mut tree = Tree {
            device,
            file_locks: (0..FILE_LOCKS).map(|_| Mutex::default()).collect(),
            held: Mutex::default(),
            stamps: stamps::Stamps::default(),
            behind: Behind::default(),
            positions: position::Positions::default(),
            make_room: OnceLock::new(),
        };
        match tree.check_next_inode() {
            Ok(()) => tree.replay(journaled)?,
            Err(damage @ Error::Corrupt { .. }) => tree.device.found_damage(&damage),
            Err(error) => return Err(error),
        }
        tree.load_positions()?;
        Ok(tree)
    }

    /// A new inode must not take the place of one that is there.
    fn check_next_inode(&self) -> Result<()> {
        let look = self.device.look()?;
        let next: u64 = look.meta().get(Table::State, NEXT_INODE)?.unwrap_or_default();
        for (base, _) in look.bases() {
            if let Some(last) = look.last_inode(base)?.filter(|last| *last >= next) {
                let problem = format!("the next inode is said to be {next}, and there is one of number {last}, or was");
                return Err(Error::corrupt(record_name(Table::State, NEXT_INODE), problem));
            }
        }
        Ok(())
    }

    /// What a record that changed means to whoever shows the tree; nothing where nobody outside can know of it.
    pub fn altered(&self, changed: &Changed) -> Result<Option<Altered>> {
        match changed {
            Changed::Record { table, key, before } => told::altered(self, *table, key, before.as_deref()),
            Changed::Shown(_) => Ok(None),
        }
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Makes everything that has happened before the call durable.
    pub fn commit(&self) -> Result<()> {
        self.device.commit()
    }

    /// From now on nothing is changed; why not, in words.
    pub fn only_read(&self, why: &str) -> Result<()> {
        if self.device.check_running().is_ok() {
            self.commit()?;
        }
        self.device.only_read(why);
        Ok(())
    }

    fn lock_file(&self, inode: InodeNo) -> MutexGuard<'_, ()> {
        self.file_locks[lock_of(inode)].lock()
    }

    /// Locks two files, in an order in which no two callers can wait for each other.
    fn lock_files(&self, a: InodeNo, b: InodeNo) -> (MutexGuard<'_, ()>, Option<MutexGuard<'_, ()>>) {
        let (a, b) = (lock_of(a), lock_of(b));
        let first = self.file_locks[a.min(b)].lock();
        (first, (a != b).then(|| self.file_locks[a.max(b)].lock()))
    }

    /// Notes that the inode is known outside; it is then not removed before [`Tree::unhold`]. Its generation.
    pub fn hold(&self, inode: InodeNo) -> u64 {
        let mut held = self.held.lock();
        let held = held.entry(inode).or_default();
        held.times += 1;
        held.generation
    }

    /// Told of an inode with its number. A kernel takes a directory that was removed for dead, as long as a process
    /// stands in it or has something open below: when it comes back meanwhile, it has to be told from that.
    pub fn generation(&self, inode: InodeNo) -> u64 {
        self.held.lock().get(&inode).map_or(0, |held| held.generation)
    }

    /// A kernel knows an inode in a way that cannot be mended: it is to take it for another one. Whoever has it open gets
    /// errors.
    pub fn forsake(&self, inode: InodeNo) {
        self.died(inode);
    }

    /// A directory was removed from outside.
    fn died(&self, inode: InodeNo) {
        if let Some(held) = self.held.lock().get_mut(&inode) {
            held.generation += 1;
        }
    }

    /// Takes back `count` holds. An inode without a name and without holds is removed.
    pub fn unhold(&self, inode: InodeNo, count: u64) -> Result<()> {
        {
            let mut held = self.held.lock();
            let Some(known) = held.get_mut(&inode) else { return Ok(()) };
            known.times = known.times.saturating_sub(count);
            if known.times > 0 {
                return Ok(());
            }
            held.remove(&inode);
        }
        self.reap_if_orphan(inode)
    }

    pub fn is_held(&self, inode: InodeNo) -> bool {
        self.held.lock().contains_key(&inode)
    }

    fn check_name(name: &[u8]) -> Result<()> {
        use crate::error::Errno;
        match name {
            _ if is_name(name) => Ok(()),
            b"" => Err(Error::Posix(Errno::NOENT)),
            _ if name.len() > NAME_BYTES_MAX => Err(Error::Posix(Errno::NAMETOOLONG)),
            _ => Err(Error::Posix(Errno::INVAL)),
        }
    }
}

/// Which of the locks of files is this one's.
fn lock_of(inode: InodeNo) -> usize {
    (inode.number() % FILE_LOCKS as u64) as usize
}
