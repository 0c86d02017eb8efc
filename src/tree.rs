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
mod adopt;
mod attributes;
mod base;
mod behind;
mod carry;
pub mod check;
mod compare;
mod copy;
mod data;
mod disarm;
pub mod dropped;
mod fsync;
mod held;
mod imported;
mod inode;
mod likeness;
mod locks;
mod lost;
mod names;
mod paths;
mod position;
mod reap;
mod recut;
mod rename;
mod room;
mod space;
mod stamps;
mod told;
mod xattr;

pub use access::Asker;
pub use acl::{ACCESS_LIST, Acl, AclEntry, AclTag, DEFAULT_LIST, NO_ID};
pub use adopt::{Adopted, Adoption};
pub use attributes::{Change, SetTime};
pub use behind::Sent;
pub use carry::{Beside, Burden, Carried, Carry};
pub use compare::{ChangedSince, ChangedTracks, Difference, DifferenceKind, Version, bitmap};
pub use copy::Position;
pub use disarm::Rights;
pub use imported::Origin;
pub use inode::{Inode, Kind, ROOT, is_root, root_of};
pub use likeness::{Likened, OnStep};
pub use lost::{Lost, lost_of};
pub use names::{Caller, Entry, New};
pub use paths::{Most, names_of};
pub(crate) use paths::{join, split};
pub use rename::RenameMode;
pub use space::Space;
pub use told::Altered;
pub use xattr::{SetMode, SetXattr};

use attributes::Attributes;
use behind::Behind;
use compare::{Comparison, TrackChanges};
use data::Files;
use dropped::Dropped;
use held::Held;
use likeness::Likeness;
use locks::FileLocks;
use names::Names;
use position::Positions;
use room::{MakeRoom, Shortage};
use stamps::Stamps;

use crate::clock::Timestamp;
use crate::device::{Changed, Device, InodeAt, InodeNo, Settings};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::logstore::Codec;
use crate::media::MediaDir;
use crate::meta::{Table, record_name};
use std::sync::Arc;

const NEXT_INODE: &[u8] = b"next inode";

pub struct Tree {
    device: Device,
    locks: FileLocks,
    held: Held,
    dropped: Dropped,
    stamps: Stamps,
    behind: Behind,
    positions: Positions,
    shortage: Shortage,
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
            locks: FileLocks::new(),
            held: Held::default(),
            dropped: Dropped::default(),
            stamps: Stamps::default(),
            behind: Behind::default(),
            positions: Positions::default(),
            shortage: Shortage::default(),
        };
        match tree.check_next_inode() {
            Ok(()) => tree.files().replay(journaled)?,
            Err(damage @ Error::Corrupt { .. }) => tree.device.found_damage(&damage),
            Err(error) => return Err(error),
        }
        tree.positions = Positions::load(&tree.device)?;
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

    /// An inode that was made without a name is all that it is to be. It is removed if it still has none.
    pub fn made(&self, inode: InodeNo) {
        if self.held.made(inode) {
            self.reap_if_orphan(inode);
        }
    }

    /// A kernel takes back `count` holds. An inode without a name and without holds is removed soon, in the background, together with
    /// others.
    pub fn let_go(&self, inode: InodeNo, count: u64) {
        if self.held.let_go(inode, count) {
            self.device.wake();
        }
    }

    /// Says how room is made when it ends, for all operations that need some. Without, they fail.
    pub fn when_full(&self, make_room: MakeRoom) {
        self.shortage.when_full(make_room);
    }

    pub fn space(&self) -> Result<Space> {
        Space::of(&self.device)
    }

    /// The inode itself; ESTALE where it is gone.
    pub fn inode(&self, at: InodeAt) -> Result<Inode> {
        let look = self.device.look()?;
        look.moments().check(at)?;
        inode::load(&look, at)
    }

    pub fn dropped(&self) -> &Dropped {
        &self.dropped
    }

    pub fn held(&self) -> &Held {
        &self.held
    }

    pub fn stamps(&self) -> &Stamps {
        &self.stamps
    }

    pub fn names(&self) -> Names<'_> {
        Names { tree: self }
    }

    pub fn files(&self) -> Files<'_> {
        Files { tree: self }
    }

    pub fn attributes(&self) -> Attributes<'_> {
        Attributes { tree: self }
    }

    pub fn likeness(&self) -> Likeness<'_> {
        Likeness { tree: self }
    }

    pub fn comparison(&self) -> Comparison<'_> {
        Comparison { tree: self }
    }

    pub fn track_changes(&self) -> TrackChanges<'_> {
        TrackChanges { tree: self }
    }
}
