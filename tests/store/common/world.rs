//! A store and the picture of what it should show, taken through the same operations.

use super::compare::compare_exactly;
use super::model::{BEFORE_RESTORE, Node, Picture, TO_COME, Times, write};
use super::rng::Rng;
use pitfs::clock::Timestamp;
use pitfs::device::{InodeNo, Moment, SnapshotState};
use pitfs::error::{Errno, Error};
use pitfs::limits::{FILE_BYTES_MAX, NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use pitfs::logstore::Codec;
use pitfs::media::MediaDir;
use pitfs::purpose::Purpose;
use pitfs::tree::{
    Caller, Change, CreateOptions, Inode, Kind, New, Position, ROOT, RenameMode, SetMode, SetTime, SetXattr, Tree,
    root_of,
};
use pitfs::view::Views;
use std::collections::BTreeMap;
use std::sync::Arc;

pub const TRACK: u64 = 16 << 10;
const FILE_BYTES: u64 = 110_000;

pub struct World {
    dir: Arc<dyn MediaDir>,
    /// `None` while the store is closed.
    views: Option<Views>,
    pub rng: Rng,
    /// What the store should show.
    pub now: Picture,
    /// What it should show after a power cut.
    pub durable: Picture,
    pub(super) held: BTreeMap<InodeNo, u64>,
    next_name: u32,
    /// Whether small commits go through the journal.
    journals: bool,
    /// Whether files may share tracks.
    pub may_share: bool,
}

pub fn times_of(inode: &Inode) -> Times {
    Times { atime: inode.atime, mtime: inode.mtime, ctime: inode.ctime, btime: inode.btime }
}

pub fn open(dir: Arc<dyn MediaDir>) -> Result<Views, Error> {
    Ok(Views::new(Tree::open(dir)?))
}

/// What a rule of the file system refused, as an errno; other errors are passed on.
fn refused<T>(result: Result<T, Error>) -> Result<Result<T, Errno>, Error> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) if error.is_no_space() => Err(error),
        Err(error @ (Error::Gone | Error::Unshared)) => Ok(Err(error.errno())),
        Err(Error::Posix(errno) | Error::Refused(errno, _)) => Ok(Err(errno)),
        Err(error) => Err(error),
    }
}

/// The result, after checking that it is refused exactly when it should be.
pub(super) fn agreed<T: std::fmt::Debug>(
    what: &str,
    got: Result<T, Error>,
    wanted: Result<(), Errno>,
) -> Result<Option<T>, Error> {
    match (refused(got)?, wanted) {
        (Ok(value), Ok(())) => Ok(Some(value)),
        (Err(got), Err(wanted)) if got == wanted => Ok(None),
        (got, wanted) => panic!("{what}: got {got:?}, expected {wanted:?}"),
    }
}

impl World {
    pub fn create(dir: Arc<dyn MediaDir>, seed: u64, codec: Codec) -> World {
        let options =
            CreateOptions { track_bytes: TRACK as usize, codec, uid: 7, gid: 8, mode: 0o755, hash_seed: seed };
        Tree::create(dir.clone(), &options).expect("a new store");
        let mut world = World {
            dir: dir.clone(),
            views: None,
            rng: Rng::new(seed),
            now: Picture::default(),
            durable: Picture::default(),
            held: BTreeMap::new(),
            next_name: 0,
            journals: seed.is_multiple_of(2),
            may_share: true,
        };
        world.open().expect("the store opens");
        let root = world.tree().inode(ROOT.live()).expect("a root");
        world.now.name = "live".into();
        world.now.live.nodes.insert(ROOT, node_of(&root));
        world.durable = world.now.clone();
        world
    }

    pub fn views(&self) -> &Views {
        self.views.as_ref().expect("the store is open")
    }

    /// The views of the base that is being worked on.
    pub fn here(&self) -> Views {
        self.views().of(self.now.base)
    }

    pub fn tree(&self) -> &Tree {
        self.views().tree()
    }

    pub fn is_open(&self) -> bool {
        self.views.is_some()
    }

    /// Closes the store, after a commit.
    pub fn close(&mut self) -> Result<(), Error> {
        self.commit()?;
        self.views = None;
        Ok(())
    }

    /// Goes on with what was found in `dir`, which shows what was durable.
    pub fn go_on_in(&mut self, dir: Arc<dyn MediaDir>) -> Result<(), Error> {
        self.dir = dir;
        self.reopen()
    }

    pub fn commit(&mut self) -> Result<(), Error> {
        self.tree().commit()?;
        self.durable = self.now.clone();
        Ok(())
    }

    fn open(&mut self) -> Result<(), Error> {
        let views = open(self.dir.clone())?;
        if self.journals {
            views.tree().device().fsync().prepare()?;
        }
        self.views = Some(views);
        Ok(())
    }

    /// Closes the store and opens it again; without a commit before, what came after the last one is lost.
    pub fn reopen(&mut self) -> Result<(), Error> {
        // Two at once would write over each other.
        self.views = None;
        self.open()?;
        self.held.clear();
        self.durable.forget_nameless();
        self.now = self.durable.clone();
        self.look_at_protection()
    }

    pub fn compare(&self, when: &str) {
        self.views().remove_what_waits();
        if let Err(text) = compare_exactly(self.views(), &self.now) {
            panic!("{when}: {text}");
        }
    }

    /// One random operation on the tree.
    pub fn change(&mut self) -> Result<(), Error> {
        self.now.is_pristine = false;
        match self.rng.below(100) {
            0..12 => self.make(),
            12..30 => self.write(),
            30..38 => self.resize(),
            38..44 => self.zero(),
            44..46 => self.allocate(),
            46..54 if self.may_share => self.copy(),
            46..54 => Ok(()),
            54..61 => self.unlink(),
            61..64 => self.remove_directory(),
            64..69 => self.link(),
            69..79 => self.rename(),
            79..85 => self.set_xattr(),
            85..88 => self.remove_xattr(),
            88..94 => self.set_attributes(),
            94..97 => self.hold(),
            97..99 => self.unhold(),
            _ => self.tree().reap_step().map(|_| ()),
        }
    }

    /// One random operation on the snapshots.
    pub fn change_snapshots(&mut self) -> Result<(), Error> {
        match self.rng.below(10) {
            0..4 => self.snapshot(),
            4..7 => self.delete_snapshot(),
            7..8 => self.rename_snapshot(),
            _ => self.tree().device().removal().step().map(|_| ()),
        }
    }

    pub(super) fn kind_of(&mut self, is_wanted: impl Fn(Kind) -> bool) -> Option<InodeNo> {
        let all = self.now.live.of_kind(is_wanted);
        if all.is_empty() { None } else { Some(self.rng.pick(&all)) }
    }

    fn any_file(&mut self) -> Option<InodeNo> {
        self.kind_of(|kind| kind == Kind::File)
    }

    fn any_directory(&mut self) -> InodeNo {
        self.kind_of(|kind| kind == Kind::Directory).expect("there is the root")
    }

    fn any_name(&mut self) -> Vec<u8> {
        match self.rng.below(40) {
            0 => vec![b'n'; NAME_BYTES_MAX],
            1 => b"\xff\xfe not UTF-8".to_vec(),
            n => format!("name{}", n % 12).into_bytes(),
        }
    }

    /// Mostly an entry that exists.
    fn any_entry(&mut self) -> (InodeNo, Vec<u8>) {
        let all = self.now.live.all_entries();
        if all.is_empty() || self.rng.percent(10) {
            return (self.any_directory(), self.any_name());
        }
        let (parent, name, _) = self.rng.pick(&all);
        (parent, name)
    }

    fn any_offset(&mut self) -> u64 {
        let around = |rng: &mut Rng, at: u64| (at + rng.below(5)).saturating_sub(2);
        match self.rng.below(8) {
            0 => 0,
            1 => self.rng.below(1500),
            2 => around(&mut self.rng, 1024),
            3..6 => {
                let track = self.rng.below(6) * TRACK;
                around(&mut self.rng, track)
            }
            6 => self.rng.below(5) * TRACK,
            _ => self.rng.below(FILE_BYTES),
        }
    }

    fn any_len(&mut self) -> u64 {
        match self.rng.below(8) {
            0 => self.rng.below(100),
            1 => 1 + self.rng.below(1200),
            2 => 1022 + self.rng.below(5),
            3 => TRACK,
            4 => TRACK - 2 + self.rng.below(5),
            5 => (1 + self.rng.below(4)) * TRACK,
            _ => self.rng.below(60_000),
        }
    }

    /// Takes the times of an inode over into the model; those that should not have moved must not have.
    fn moved(&mut self, number: InodeNo, with_content: bool) -> Result<(), Error> {
        let found = times_of(&self.tree().inode(number.live())?);
        let node = self.now.live.node_mut(number);
        let old = node.times;
        assert_eq!((found.atime, found.btime), (old.atime, old.btime), "times of inode {number}");
        assert!(with_content || found.mtime == old.mtime, "the time of the content of inode {number} moved");
        node.times = found;
        Ok(())
    }

    fn make(&mut self) -> Result<(), Error> {
        let parent = self.any_directory();
        let name = match self.rng.below(60) {
            0 => Vec::new(),
            1 => b"..".to_vec(),
            2 => b"a/b".to_vec(),
            3 => vec![b'n'; NAME_BYTES_MAX + 1],
            _ => self.any_name(),
        };
        let kinds = [Kind::Fifo, Kind::Socket, Kind::CharDevice, Kind::BlockDevice, Kind::Symlink];
        let kind = match self.rng.below(10) {
            0..5 => Kind::File,
            5..8 => Kind::Directory,
            _ => self.rng.pick(&kinds),
        };
        self.make_kind(parent, &name, kind).map(|_| ())
    }

    /// Makes something; its number, unless that was refused.
    pub fn make_kind(&mut self, parent: InodeNo, name: &[u8], kind: Kind) -> Result<Option<InodeNo>, Error> {
        let target_len = self.rng.below(300) as usize;
        let target = if kind == Kind::Symlink { self.rng.bytes(target_len) } else { Vec::new() };
        let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
        let caller = Caller { uid: self.rng.below(3) as u32, gid: self.rng.below(3) as u32, umask: 0o022 };
        let new = New {
            kind,
            permissions: self.rng.below(0o10000) as u32,
            rdev: if is_device { self.rng.below(1 << 16) as u32 } else { 0 },
            target: &target,
        };
        let wanted = match name {
            b"" => Err(Errno::NOENT),
            b".." | b"a/b" => Err(Errno::INVAL),
            _ if name.len() > NAME_BYTES_MAX => Err(Errno::NAMETOOLONG),
            _ if self.now.live.node(parent).links == 0 => Err(Errno::NOENT),
            _ if self.now.live.entry(parent, name).is_some() => Err(Errno::EXIST),
            _ => Ok(()),
        };
        let Some((number, made)) = agreed("make", self.tree().names().make(caller, parent, name, new), wanted)? else {
            return Ok(None);
        };
        let directory = self.now.live.node(parent);
        let mut node = node_of(&made);
        node.permissions = if kind == Kind::Symlink { 0o777 } else { new.permissions & !caller.umask };
        (node.uid, node.gid, node.rdev) = (caller.uid, caller.gid, new.rdev);
        if directory.permissions & 0o2000 != 0 {
            node.gid = directory.gid;
            node.permissions |= if kind == Kind::Directory { 0o2000 } else { 0 };
        }
        node.links = if kind == Kind::Directory { 2 } else { 1 };
        node.bytes = target;
        assert!(self.now.live.nodes.insert(number, node).is_none(), "an inode number is used twice");
        self.now.live.add(parent, name, number);
        self.moved(parent, true)?;
        Ok(Some(number))
    }

    fn write(&mut self) -> Result<(), Error> {
        let Some(number) = self.any_file() else { return Ok(()) };
        let (offset, len) = (self.any_offset(), self.any_len());
        self.write_to(number, offset, len as usize)
    }

    pub fn write_to(&mut self, number: InodeNo, offset: u64, len: usize) -> Result<(), Error> {
        let data = self.rng.bytes(len);
        let kills = self.rng.percent(30);
        self.tree().files().write(number, offset, &data, kills)?;
        if !data.is_empty() {
            let node = self.now.live.node_mut(number);
            write(&mut node.bytes, offset as usize, &data);
            if kills {
                node.kill_privileges();
            }
            self.moved(number, true)?;
        }
        if self.rng.percent(3) {
            let beyond = self.tree().files().write(number, FILE_BYTES_MAX, b"x", false);
            agreed("a write past all ends", beyond, Err(Errno::FBIG))?;
        }
        Ok(())
    }

    fn resize(&mut self) -> Result<(), Error> {
        let Some(number) = self.kind_of(|kind| kind == Kind::File || kind == Kind::Directory) else { return Ok(()) };
        let size = self.any_offset();
        let change = Change { size: Some(size), kill_privileges: self.rng.percent(30), ..Change::default() };
        let wanted = if self.now.live.node(number).kind == Kind::File { Ok(()) } else { Err(Errno::ISDIR) };
        if agreed("a change of size", self.tree().attributes().change(number, change), wanted)?.is_some() {
            let node = self.now.live.node_mut(number);
            node.bytes.resize(size as usize, 0);
            if change.kill_privileges {
                node.kill_privileges();
            }
            self.moved(number, true)?;
        }
        Ok(())
    }

    fn zero(&mut self) -> Result<(), Error> {
        let Some(number) = self.any_file() else { return Ok(()) };
        let (offset, len, keep_size) = (self.any_offset(), self.any_len().max(1), self.rng.percent(60));
        self.tree().files().zero(number, offset, len, keep_size, false)?;
        let bytes = &mut self.now.live.node_mut(number).bytes;
        let end = (offset + len) as usize;
        if !keep_size && bytes.len() < end {
            bytes.resize(end, 0);
        }
        let end = end.min(bytes.len());
        bytes[(offset as usize).min(end)..end].fill(0);
        self.moved(number, true)
    }

    fn allocate(&mut self) -> Result<(), Error> {
        let Some(number) = self.any_file() else { return Ok(()) };
        let (offset, len, keep_size) = (self.any_offset(), self.any_len().max(1), self.rng.percent(50));
        self.tree().files().allocate(number, offset, len, keep_size, false)?;
        let bytes = &mut self.now.live.node_mut(number).bytes;
        let end = (offset + len) as usize;
        if !keep_size && bytes.len() < end {
            bytes.resize(end, 0);
        }
        self.moved(number, true)
    }

    fn copy(&mut self) -> Result<(), Error> {
        let Some(to) = self.any_file() else { return Ok(()) };
        let bases = self.now.bases();
        let base = if self.rng.percent(70) { self.now.base } else { self.rng.pick(&bases) };
        let shown = self.now.shown(base);
        let names: Vec<String> =
            shown.snapshots.iter().filter(|(_, kept)| !kept.has_ended).map(|(name, _)| name.clone()).collect();
        let name = if names.is_empty() || self.rng.percent(50) { None } else { Some(self.rng.pick(&names)) };
        let (model, moment) = match &name {
            Some(name) => (&*shown.snapshots[name].model, self.views().of(base).moment(name.as_bytes())?),
            None => (&shown.live, Moment::Live),
        };
        let sources: Vec<InodeNo> = model
            .of_kind(|kind| kind == Kind::File)
            .into_iter()
            .filter(|number| model.node(*number).links > 0)
            .collect();
        if sources.is_empty() {
            return Ok(());
        }
        let from = self.rng.pick(&sources);
        let source = model.node(from).bytes.clone();
        let (mut offset, mut to_offset, mut len) = (self.any_offset(), self.any_offset(), self.any_len());
        match self.rng.below(4) {
            0 => (offset, to_offset, len) = (0, 0, source.len() as u64 + 10),
            1 => (offset, to_offset) = (offset / TRACK * TRACK, to_offset / TRACK * TRACK),
            2 => to_offset = offset,
            _ => {}
        }
        if moment == Moment::Live && from == to {
            // The kernel refuses ranges that overlap.
            len = len.min(offset.abs_diff(to_offset));
        }
        let end = source.len().min((offset + len) as usize);
        let piece = source.get(offset as usize..end).unwrap_or_default();
        let kills = self.rng.percent(30);
        let copied =
            self.tree().files().copy_range(Position { of: from.at(moment), offset }, to, to_offset, len, kills)?;
        assert_eq!(copied, piece.len() as u64, "bytes copied");
        if copied > 0 {
            let node = self.now.live.node_mut(to);
            write(&mut node.bytes, to_offset as usize, piece);
            if kills {
                node.kill_privileges();
            }
            self.moved(to, true)?;
        }
        Ok(())
    }

    /// The inode has one name less.
    fn unnamed(&mut self, number: InodeNo) -> Result<(), Error> {
        if self.now.live.node(number).links > 0 || self.held.contains_key(&number) {
            return self.moved(number, false);
        }
        self.now.live.nodes.remove(&number);
        Ok(())
    }

    fn unlink(&mut self) -> Result<(), Error> {
        let (parent, name) = self.any_entry();
        self.unlink_name(parent, &name)
    }

    pub fn unlink_name(&mut self, parent: InodeNo, name: &[u8]) -> Result<(), Error> {
        let wanted = self.now.live.expect_unlink(parent, name);
        if agreed("unlink", self.tree().names().unlink(parent, name), wanted)?.is_none() {
            return Ok(());
        }
        let number = self.now.live.drop_entry(parent, name);
        self.now.live.unname(number);
        self.unnamed(number)?;
        self.moved(parent, true)
    }

    fn remove_directory(&mut self) -> Result<(), Error> {
        let (parent, name) = self.any_entry();
        let wanted = self.now.live.expect_remove_directory(parent, &name);
        if agreed("rmdir", self.tree().names().remove_directory(parent, &name), wanted)?.is_none() {
            return Ok(());
        }
        let number = self.now.live.drop_entry(parent, &name);
        self.now.live.unname(number);
        self.unnamed(number)?;
        self.moved(parent, true)
    }

    fn link(&mut self) -> Result<(), Error> {
        let (parent, name) = (self.any_directory(), self.any_name());
        let Some(number) = self.kind_of(|_| true) else { return Ok(()) };
        let live = &self.now.live;
        let wanted = match live.node(number) {
            node if node.kind == Kind::Directory => Err(Errno::PERM),
            node if node.links == 0 || live.node(parent).links == 0 => Err(Errno::NOENT),
            _ if live.entry(parent, &name).is_some() => Err(Errno::EXIST),
            _ => Ok(()),
        };
        if agreed("link", self.tree().names().link(number, parent, &name), wanted)?.is_some() {
            self.now.live.add(parent, &name, number);
            self.now.live.node_mut(number).links += 1;
            self.moved(number, false)?;
            self.moved(parent, true)?;
        }
        Ok(())
    }

    fn rename(&mut self) -> Result<(), Error> {
        let (parent, name) = self.any_entry();
        let (new_parent, new_name) =
            if self.rng.percent(50) { self.any_entry() } else { (self.any_directory(), self.any_name()) };
        let mode =
            self.rng.pick(&[RenameMode::Replace, RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange]);
        let live = &self.now.live;
        let would_be_inside = |number: Option<InodeNo>, directory| {
            number.is_some_and(|number| live.node(number).kind == Kind::Directory && live.is_inside(directory, number))
        };
        // The kernel refuses to move a directory into itself, and an exchange the other way round.
        if would_be_inside(live.entry(parent, &name), new_parent)
            || mode == RenameMode::Exchange && would_be_inside(live.entry(new_parent, &new_name), parent)
        {
            return Ok(());
        }
        let (from, to) = ((parent, name.as_slice()), (new_parent, new_name.as_slice()));
        let wanted = live.expect_rename(from, to, mode);
        if agreed("rename", self.tree().names().rename(parent, &name, new_parent, &new_name, mode), wanted)?.is_none() {
            return Ok(());
        }
        let (directories, moved, gone) = self.now.live.rename(from, to, mode);
        for directory in directories {
            self.moved(directory, true)?;
        }
        for number in moved.into_iter().filter(|number| Some(*number) != gone) {
            self.moved(number, false)?;
        }
        gone.map_or(Ok(()), |number| self.unnamed(number))
    }

    fn set_xattr(&mut self) -> Result<(), Error> {
        let Some(number) = self.kind_of(|_| true) else { return Ok(()) };
        let name = self.rng.pick(&[&b"user.a"[..], b"user.ab", b"trusted.x", b"security.y", b"user.", b"system.z"]);
        let mode = self.rng.pick(&[SetMode::Any, SetMode::Any, SetMode::Create, SetMode::Replace]);
        let len = if self.rng.percent(3) { XATTR_VALUE_BYTES_MAX + 1 } else { self.rng.below(3000) as usize };
        let value = self.rng.bytes(len);
        let exists = self.now.live.node(number).xattrs.contains_key(name);
        let wanted = match mode {
            _ if name == b"user." => Err(Errno::INVAL),
            _ if name == b"system.z" => Err(Errno::OPNOTSUPP),
            _ if len > XATTR_VALUE_BYTES_MAX => Err(Errno::TOOBIG),
            SetMode::Create if exists => Err(Errno::EXIST),
            SetMode::Replace if !exists => Err(Errno::NODATA),
            _ => Ok(()),
        };
        // The sgid bit goes with an access list only.
        let how = SetXattr { mode, clears_sgid: self.rng.percent(50) };
        if agreed("setxattr", self.tree().attributes().set_xattr(number, name, &value, how), wanted)?.is_some() {
            self.now.live.node_mut(number).xattrs.insert(name.to_vec(), value);
            self.moved(number, false)?;
        }
        Ok(())
    }

    fn remove_xattr(&mut self) -> Result<(), Error> {
        let Some(number) = self.kind_of(|_| true) else { return Ok(()) };
        let name = self.rng.pick(&[&b"user.a"[..], b"user.ab", b"trusted.x"]);
        let exists = self.now.live.node(number).xattrs.contains_key(name);
        let wanted = if exists { Ok(()) } else { Err(Errno::NODATA) };
        if agreed("removexattr", self.tree().attributes().remove_xattr(number, name), wanted)?.is_some() {
            self.now.live.node_mut(number).xattrs.remove(name);
            self.moved(number, false)?;
        }
        Ok(())
    }

    fn set_attributes(&mut self) -> Result<(), Error> {
        let Some(number) = self.kind_of(|_| true) else { return Ok(()) };
        let rng = &mut self.rng;
        let mut some = |end: u64| if rng.percent(40) { Some(rng.below(end)) } else { None };
        let change = Change {
            permissions: some(0o10000).map(|bits| bits as u32),
            uid: some(5).map(|uid| uid as u32),
            gid: some(5).map(|gid| gid as u32),
            size: None,
            atime: some(1 << 33).map(|seconds| SetTime::To(Timestamp { seconds: seconds as i64, nanos: 5 })),
            ctime: None,
            mtime: some(1 << 33)
                .map(|seconds| SetTime::To(Timestamp { seconds: -(seconds as i64), nanos: 999_999_999 })),
            kill_privileges: some(2) == Some(1),
        };
        self.tree().attributes().change(number, change)?;
        let node = self.now.live.node_mut(number);
        let is_other_owner = change.uid.is_some() || change.gid.is_some();
        node.uid = change.uid.unwrap_or(node.uid);
        node.gid = change.gid.unwrap_or(node.gid);
        if change.kill_privileges && is_other_owner && node.kind != Kind::Directory {
            node.kill_privileges();
        }
        node.permissions = change.permissions.unwrap_or(node.permissions);
        let set = |time: &mut Timestamp, to| {
            if let Some(SetTime::To(to)) = to {
                *time = to;
            }
        };
        set(&mut node.times.atime, change.atime);
        set(&mut node.times.mtime, change.mtime);
        self.moved(number, false)
    }

    fn hold(&mut self) -> Result<(), Error> {
        if let Some(number) = self.kind_of(|_| true) {
            self.tree().held().hold(number);
            *self.held.entry(number).or_default() += 1;
        }
        Ok(())
    }

    fn unhold(&mut self) -> Result<(), Error> {
        let held: Vec<InodeNo> = self.held.keys().copied().filter(|number| number.base() == self.now.base).collect();
        if held.is_empty() {
            return Ok(());
        }
        let number = self.rng.pick(&held);
        let count = 1 + self.rng.below(self.held[&number]);
        self.tree().let_go(number, count);
        // It may wait while other things happen.
        if self.rng.percent(50) {
            self.tree().reap_what_waits()?;
        }
        let left = self.held[&number] - count;
        if left > 0 {
            self.held.insert(number, left);
        } else {
            self.held.remove(&number);
            if self.now.live.nodes.get(&number).is_some_and(|node| node.links == 0) {
                self.now.live.nodes.remove(&number);
            }
        }
        Ok(())
    }

    pub(super) fn any_snapshot(&mut self) -> Option<String> {
        let names: Vec<String> = self.now.snapshots.keys().cloned().collect();
        if names.is_empty() { None } else { Some(self.rng.pick(&names)) }
    }

    pub(super) fn new_name(&mut self, what: &str) -> String {
        self.next_name += 1;
        format!("{what} {}", self.next_name)
    }

    pub fn snapshot(&mut self) -> Result<(), Error> {
        if let Some(taken) = self.any_snapshot()
            && self.rng.percent(5)
        {
            agreed("a snapshot", self.here().snapshots().take(Some(taken.as_bytes())), Err(Errno::EXIST))?;
        }
        let name = self.new_name("snapshot");
        self.now.keep(&name);
        let taken = self.here().snapshots().take(Some(name.as_bytes()))?;
        self.now.snapshots.get_mut(&name).expect("just kept").epoch = taken.epoch;
        self.durable = self.now.clone();
        Ok(())
    }

    /// Deletes a snapshot, and does all, some or nothing of the work that this leaves.
    pub fn delete_snapshot(&mut self) -> Result<(), Error> {
        agreed("deleting", self.here().deletions().delete(&[b"never taken"]), Err(Errno::NOENT))?;
        let Some(name) = self.any_snapshot() else { return Ok(()) };
        let kept = &self.now.snapshots[&name];
        if kept.is_held || !self.now.needing(self.now.base, kept.epoch).is_empty() {
            return agreed("deleting", self.here().deletions().delete(&[name.as_bytes()]), Err(Errno::BUSY))
                .map(|_| ());
        }
        self.now.is_pristine = false;
        self.now.snapshots.remove(&name);
        self.here().deletions().delete(&[name.as_bytes()])?;
        self.look_at_protection()?;
        self.durable = self.now.clone();
        let mut steps = self.rng.pick(&[0, 1, 2, u64::MAX]);
        while steps > 0 && self.tree().device().removal().step()? {
            steps -= 1;
        }
        Ok(())
    }

    fn rename_snapshot(&mut self) -> Result<(), Error> {
        let Some(old) = self.any_snapshot() else { return Ok(()) };
        let new = self.new_name("snapshot");
        let model = self.now.snapshots.remove(&old).expect("picked from these");
        self.now.snapshots.insert(new.clone(), model);
        self.here().snapshots().rename(old.as_bytes(), new.as_bytes())?;
        self.durable = self.now.clone();
        Ok(())
    }

    /// Brings the picture up to date with what deactivated snapshots became, and with what is not known before it
    /// is done: epochs, the names of what restores keep.
    pub fn look_at_protection(&mut self) -> Result<(), Error> {
        let mut now = std::mem::take(&mut self.now);
        complete(self.views(), &mut now)?;
        self.now = now;
        Ok(())
    }

    /// Removes every file, every snapshot and every base but the first, and does all the work that this leaves.
    pub fn remove_everything(&mut self) -> Result<(), Error> {
        self.remove_bases()?;
        for number in std::mem::take(&mut self.held).into_keys() {
            self.tree().let_go(number, u64::MAX);
            self.now.live.nodes.retain(|other, node| *other != number || node.links > 0);
        }
        while self.now.live.nodes.len() > 1 {
            let entries = self.now.live.all_entries();
            for (parent, name, number) in entries {
                if self.now.live.node(parent).links == 0 || self.now.live.entry(parent, &name) != Some(number) {
                    continue;
                }
                match self.now.live.node(number) {
                    node if node.kind != Kind::Directory => self.unlink_name(parent, &name)?,
                    node if node.entries.is_empty() => {
                        self.tree().names().remove_directory(parent, &name)?;
                        self.now.live.drop_entry(parent, &name);
                        self.now.live.nodes.remove(&number);
                        self.moved(parent, true)?;
                    }
                    _ => {}
                }
            }
        }
        for name in std::mem::take(&mut self.now.live.node_mut(ROOT).xattrs).into_keys() {
            self.tree().attributes().remove_xattr(ROOT, &name)?;
            self.moved(ROOT, false)?;
        }
        while !self.now.snapshots.is_empty() {
            self.delete_snapshot()?;
        }
        while self.tree().settle_step()? {}
        while self.tree().device().removal().step()? {}
        while self.tree().reap_step()? {}
        self.commit()?;
        self.commit()
    }
}

/// Puts into a picture what can only be known from the store.
pub fn complete(views: &Views, picture: &mut Picture) -> Result<(), Error> {
    for base in picture.bases() {
        let Ok(found) = views.of(base).snapshots().all() else { continue };
        for snapshot in &found {
            let name = &snapshot.record.name;
            let shown = picture.shown(base);
            let is_restore = snapshot.record.purpose == Purpose::BeforeRestore && !shown.snapshots.contains_key(name);
            if is_restore && shown.snapshots.contains_key(BEFORE_RESTORE) {
                let shown = picture.shown_mut(base);
                let kept = shown.snapshots.remove(BEFORE_RESTORE).expect("it was just seen");
                shown.snapshots.insert(name.clone(), kept);
            }
            if picture.shown(base).snapshots.get(name).is_some_and(|kept| kept.epoch == TO_COME) {
                picture.shown_mut(base).snapshots.get_mut(name).expect("it was just seen").epoch = snapshot.epoch;
            }
        }
        let is_fresh = picture.shown(base).live.nodes.is_empty();
        if is_fresh && let Ok(root) = views.tree().inode(root_of(base).live()) {
            picture.shown_mut(base).live.nodes.insert(root_of(base), node_of(&root));
        }
        // What was deleted hands its protection to the last one that it protected.
        let shown = picture.shown_mut(base);
        let last_active = shown.snapshots.values().filter(|kept| kept.is_active).map(|kept| kept.epoch).max();
        for snapshot in found.iter().filter(|snapshot| Some(snapshot.epoch) > last_active) {
            let kept = shown.snapshots.get_mut(&snapshot.record.name).filter(|kept| !kept.has_ended);
            if let Some(kept) = kept.filter(|_| snapshot.record.state == SnapshotState::Active) {
                kept.is_active = true;
            }
        }
        // What nothing protects has ended; what somebody needs is known to the store.
        let mut ended = Vec::new();
        for (name, kept) in picture.shown(base).in_order().into_iter().rev() {
            let Some(snapshot) = found.iter().find(|found| found.epoch == kept.epoch) else { continue };
            if kept.is_active || !views.tree().device().look()?.dependants(snapshot.point())?.is_empty() {
                break;
            }
            ended.push(name.clone());
        }
        for snapshot in found {
            if matches!(snapshot.record.state, SnapshotState::Ended(_)) {
                ended.push(snapshot.record.name);
            }
        }
        for name in ended {
            // An active one that has ended is found to be wrong by whoever compares.
            if picture.shown(base).snapshots.get(&name).is_some_and(|kept| !kept.is_active && !kept.has_ended) {
                picture.shown_mut(base).snapshots.get_mut(&name).expect("it was just seen").has_ended = true;
            }
        }
    }
    Ok(())
}

pub(super) fn node_of(inode: &Inode) -> Node {
    Node {
        kind: inode.kind(),
        permissions: inode.permissions(),
        uid: inode.uid,
        gid: inode.gid,
        rdev: inode.rdev,
        links: inode.links,
        times: times_of(inode),
        bytes: Vec::new(),
        xattrs: BTreeMap::new(),
        entries: BTreeMap::new(),
    }
}
