//! Making an inode like another one was at a moment: its bytes, xattrs, mode, owner and times.
//!
//! Bytes come by sharing the tracks that differ, so many of them in one transaction; a file with fewer changes
//! from one state to the other in one step. What is alike already is left alone.
//!
//! ```text
//! make_nameless ──▶ an orphan that is held ──become_like──▶ filled ──place──▶ found under its name
//!                          │ made, or a crash
//!                          └──▶ removed, as every inode without a name
//! ```

mod share;

use super::inode::{self, Inode, Kind};
use super::names::{Dirent, check_name, link_key, new_number};
use super::{Tree, root_of, xattr};
use crate::clock::Timestamp;
use crate::device::{BaseId, InodeAt, InodeNo, Note, TrackNo};
use crate::error::{Errno, Error, Result};
use crate::limits::{BLOCK_BYTES, LINKS_MAX};
use crate::meta::Table;
use serde_bytes::ByteBuf;
use std::ops::Range;

/// Tracks that one transaction shares at most.
const STEP_TRACKS: usize = 256;
/// Tracks of a file from which on increments are asked which of them changed, before all are looked at.
const SEARCH_TRACKS: u64 = 1024;
/// Bytes of xattrs after which a transaction ends.
const STEP_XATTR_BYTES: usize = 1 << 20;

/// What had to be changed of an inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Likened {
    pub content: bool,
    /// Mode, owner or xattrs.
    pub attributes: bool,
    pub times: bool,
}

impl Likened {
    pub fn any(self) -> bool {
        self.content || self.attributes || self.times
    }
}

/// Called after each step with the bytes of the file that are done; the work ends with the error it returns.
pub type OnStep<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

impl Inode {
    /// Mode, owner and times of another inode of this kind; whether they differed, and the times.
    fn take_attributes(&mut self, model: &Inode) -> (bool, bool) {
        let attributes = (self.mode, self.uid, self.gid) != (model.mode, model.uid, model.gid);
        let times = (self.atime, self.mtime) != (model.atime, model.mtime);
        (self.mode, self.uid, self.gid) = (model.mode, model.uid, model.gid);
        (self.atime, self.mtime) = (model.atime, model.mtime);
        (attributes, times)
    }
}

/// Inodes that become like others.
#[derive(Clone, Copy)]
pub struct Likeness<'a> {
    pub(super) tree: &'a Tree,
}

impl Likeness<'_> {
    /// Makes an inode without a name, with the attributes of another one; of a file, without its bytes. It is held until it is
    /// [made](Tree::made), and removed then if it has got no name.
    pub fn make_nameless(self, model: InodeAt) -> Result<InodeNo> {
        self.make_nameless_in(model.inode.base(), model)
    }

    /// A file without a name and without bytes that is like no other one yet; held like [`Likeness::make_nameless`]'s.
    pub fn make_nameless_file(self, base: BaseId, permissions: u32) -> Result<InodeNo> {
        self.tree.with_room(|| {
            let made = Inode::new(Kind::File, permissions, 0, 0, Timestamp::now());
            self.add_nameless(base, Inode { links: 0, parent: root_of(base), ..made })
        })
    }

    fn add_nameless(self, base: BaseId, made: Inode) -> Result<InodeNo> {
        let mut txn = self.tree.device.begin_growing()?;
        let number = new_number(&mut txn, base)?;
        inode::store(&mut txn, number, &made)?;
        txn.add_orphan(number);
        txn.note(number, Note::NeedsCommit);
        // Before anybody can see that it has no name.
        self.tree.held().hold_in_the_making(number);
        txn.finish()?;
        Ok(number)
    }

    /// The same in another base.
    pub fn make_nameless_in(self, base: BaseId, model: InodeAt) -> Result<InodeNo> {
        self.tree.with_room(|| self.make_nameless_in_once(base, model))
    }

    fn make_nameless_in_once(self, base: BaseId, like: InodeAt) -> Result<InodeNo> {
        let model = self.tree.inode(like)?;
        let is_symlink = model.kind() == Kind::Symlink;
        let made = Inode {
            links: 0,
            size: if is_symlink { model.size } else { 0 },
            inline: if is_symlink { model.inline } else { ByteBuf::new() },
            tracks: 0,
            ctime: Timestamp::now(),
            parent: root_of(base),
            name: ByteBuf::new(),
            ..model
        };
        self.add_nameless(base, made)
    }

    /// Gives an inode a name in one step, in the place of what had it: anything but a directory with entries.
    /// What was replaced is returned. A directory must not have a name yet.
    pub fn place(self, number: InodeNo, parent: InodeNo, name: &[u8]) -> Result<Option<InodeNo>> {
        self.tree.with_room(|| self.place_once(number, parent, name))
    }

    fn place_once(self, number: InodeNo, parent: InodeNo, name: &[u8]) -> Result<Option<InodeNo>> {
        check_name(name)?;
        let mut txn = self.tree.device.begin_growing()?;
        let mut placed = inode::load(&txn, number.live())?;
        if inode::load_directory(&txn, parent.live())?.links == 0 {
            return Err(Error::Posix(Errno::NOENT));
        }
        let replaced = self.tree.names().find(&txn, parent.live(), name)?;
        if replaced.is_some_and(|replaced| replaced.inode == number) {
            return Ok(None);
        }
        let now = Timestamp::now();
        let mut is_gone = false;
        if let Some(replaced) = replaced {
            let is_directory = replaced.kind == Kind::Directory as u8;
            if is_directory {
                self.tree.names().drop_directory(&mut txn, parent, name, replaced, now)?;
            }
            is_gone = is_directory || self.tree.names().drop_name(&mut txn, parent, name, replaced, now)?;
            self.tree.names().count(&mut txn, parent, -1, -i32::from(is_directory), now)?;
        }
        let is_directory = placed.is_directory();
        if placed.links == 0 {
            placed.links = if is_directory { 2 } else { 1 };
            placed.parent = parent;
            placed.name = ByteBuf::from(name);
            txn.remove_orphan(number);
        } else if is_directory {
            return Err(Error::Posix(Errno::PERM));
        } else if placed.links >= LINKS_MAX {
            return Err(Error::Posix(Errno::MLINK));
        } else {
            placed.links += 1;
            txn.set(Table::Link, &link_key(number, parent, name), &())?;
        }
        placed.ctime = now;
        txn.set(Table::Dirent, &self.tree.names().dirent_key(parent, name), &Dirent::new(number, placed.kind()))?;
        inode::store(&mut txn, number, &placed)?;
        txn.note(number, Note::NeedsCommit);
        self.tree.names().count(&mut txn, parent, 1, i32::from(is_directory), now)?;
        txn.finish()?;
        let replaced = replaced.map(|replaced| replaced.inode);
        if let (Some(replaced), true) = (replaced, is_gone) {
            self.tree.reap_if_orphan(replaced);
        }
        Ok(replaced)
    }

    /// Whether a live inode is like another one at a moment. Tracks count as alike if they are shared; files are read only where
    /// the other one lies outside the store.
    pub fn is_like(self, number: InodeNo, like: InodeAt) -> Result<bool> {
        let (now, model) = (self.tree.inode(number.live())?, self.tree.inode(like)?);
        let facts = |inode: &Inode| {
            let Inode { mode, uid, gid, rdev, size, tracks, atime, mtime, .. } = *inode;
            (mode, uid, gid, rdev, if inode.is_directory() { 0 } else { size }, tracks, atime, mtime)
        };
        if facts(&now) != facts(&model)
            || now.inline != model.inline
            || self.tree.attributes().xattrs(number.live())? != self.tree.attributes().xattrs(like)?
        {
            return Ok(false);
        }
        Ok(model.kind() != Kind::File || model.tracks == 0 || self.has_same_content(number, like, &model)?)
    }

    /// What [`Likeness::become_like`] would have to change.
    pub fn unlikeness(self, number: InodeNo, like: InodeAt) -> Result<Likened> {
        let (now, model) = (self.tree.inode(number.live())?, self.tree.inode(like)?);
        let (attributes, times) = now.clone().take_attributes(&model);
        let has_other_xattrs = self.tree.attributes().xattrs(number.live())? != self.tree.attributes().xattrs(like)?;
        let content = model.kind() == Kind::File
            && ((now.size, &now.inline) != (model.size, &model.inline)
                || now.tracks + model.tracks > 0 && !self.has_same_content(number, like, &model)?);
        Ok(Likened { content, attributes: attributes || has_other_xattrs, times })
    }

    fn has_same_content(self, number: InodeNo, model: InodeAt, found: &Inode) -> Result<bool> {
        if self.has_same_tracks(number.live(), model)? {
            return Ok(true);
        }
        // What lies outside is not shared, and can be the same.
        if !self.tree.device.look()?.moments().is_outside(model)? {
            return Ok(false);
        }
        let mut is_same = true;
        self.each_differing(number, model, &mut |track| {
            is_same = is_same && matches!(self.missing(number, model, track, found.size), Ok(Missing::Nothing));
            Ok(())
        })?;
        Ok(is_same)
    }

    /// Whether the tracks of two files are the same, each shared by both.
    pub(super) fn has_same_tracks(self, a: InodeAt, b: InodeAt) -> Result<bool> {
        let mut next = Some(TrackNo::FIRST);
        while let Some(from) = next {
            let differing = self.tree.device.look()?.tracks().differing_tracks(a, b, from, 1)?;
            if !differing.tracks.is_empty() {
                return Ok(false);
            }
            next = differing.next;
        }
        Ok(true)
    }

    /// Makes a live inode like another one of its kind was at a moment, but for its names and, of a directory,
    /// its entries. Interrupted, it goes on where it is called again.
    pub fn become_like(self, number: InodeNo, model: InodeAt, on_step: OnStep<'_>) -> Result<Likened> {
        let mut likened = Likened::default();
        self.tree.with_room(|| self.liken(number, model, &mut *on_step, &mut likened))?;
        Ok(likened)
    }

    fn liken(self, number: InodeNo, model: InodeAt, on_step: OnStep<'_>, likened: &mut Likened) -> Result<()> {
        let kind = self.tree.inode(model)?.kind();
        if self.tree.inode(number.live())?.kind() != kind {
            return Err(Error::Fault(format!("inode {number} is to become one of another kind")));
        }
        if kind == Kind::File {
            match self.share_content(number, model, &mut *on_step, likened) {
                // What an archive has, or only memory, cannot be shared.
                Err(Error::Unshared) => {
                    // Some of it may be there where not all is.
                    self.copy_content(number, model, on_step, likened).inspect_err(|_| likened.content = true)?;
                }
                result => result?,
            }
        }
        // What gives rights comes behind the content.
        let xattrs = self.liken_xattrs(number, model);
        likened.attributes |= *xattrs.as_ref().unwrap_or(&true);
        xattrs?;
        self.liken_record(number, model, likened)
    }

    fn liken_xattrs(self, number: InodeNo, like: InodeAt) -> Result<bool> {
        let wanted = self.tree.attributes().xattrs(like)?;
        let mut is_changed = false;
        loop {
            let known = self.tree.attributes().xattrs(number.live())?;
            if known == wanted {
                return Ok(is_changed);
            }
            is_changed = true;
            let mut txn = self.tree.device.begin_growing()?;
            let mut found = inode::load(&txn, number.live())?;
            for (name, _) in &known {
                if wanted.binary_search_by(|(other, _)| other.cmp(name)).is_err() {
                    xattr::remove(&mut txn, number, name)?;
                }
            }
            let mut bytes = 0;
            for (name, value) in wanted.iter().filter(|pair| !known.contains(pair)) {
                if bytes < STEP_XATTR_BYTES {
                    bytes += value.len();
                    xattr::store(&mut txn, number, name, value)?;
                }
            }
            found.ctime = Timestamp::now();
            inode::store(&mut txn, number, &found)?;
            txn.finish()?;
        }
    }

    fn liken_record(self, number: InodeNo, like: InodeAt, likened: &mut Likened) -> Result<()> {
        let model = self.tree.inode(like)?;
        let take = |found: &mut Inode| {
            let (attributes, times) = found.take_attributes(&model);
            found.ctime = Timestamp::now();
            (attributes, times)
        };
        if take(&mut self.tree.inode(number.live())?) == (false, false) {
            return Ok(());
        }
        let mut txn = self.tree.device.begin()?;
        let mut found = inode::load(&txn, number.live())?;
        let (attributes, times) = take(&mut found);
        inode::store(&mut txn, number, &found)?;
        txn.finish()?;
        likened.attributes |= attributes;
        likened.times |= times;
        Ok(())
    }

    /// Reads what [`Likeness::become_like`] would copy from an archive or a set, and looks whether there is room for it: ENOSPC. A file that
    /// cannot be had whole stays as it is so; one without a name yet needs no such care.
    pub fn check_readable(self, number: InodeNo, like: InodeAt, on_step: OnStep<'_>) -> Result<()> {
        let is_outside = self.tree.device.look()?.moments().is_outside(like)?;
        if !is_outside || self.tree.inode(like)?.kind() != Kind::File || self.tree.inode(number.live())?.links == 0 {
            return Ok(());
        }
        let track_bytes = self.tree.device.track_bytes();
        let mut needed = 0;
        self.each_differing(number, like, &mut |track| {
            let bytes = self.tree.files().read(like, track.start(track_bytes), track_bytes as usize)?;
            if bytes.iter().any(|byte| *byte != 0) {
                needed +=
                    (self.tree.device.log().encode(&bytes).stored().len() as u64).next_multiple_of(BLOCK_BYTES as u64);
            }
            on_step(0)
        })?;
        match needed > self.tree.space()?.available {
            true => Err(Error::Posix(Errno::NOSPC)),
            false => Ok(()),
        }
    }

    /// Visits the tracks of a live file that may differ from those of another one.
    fn each_differing(
        self,
        number: InodeNo,
        model: InodeAt,
        visit: &mut dyn FnMut(TrackNo) -> Result<()>,
    ) -> Result<()> {
        let mut next = Some(TrackNo::FIRST);
        while let Some(from) = next {
            let found = self.tree.device.look()?.tracks().differing_tracks(number.live(), model, from, STEP_TRACKS)?;
            found.tracks.into_iter().try_for_each(&mut *visit)?;
            next = found.next;
        }
        Ok(())
    }

    /// Copies the tracks that differ.
    fn copy_content(self, number: InodeNo, like: InodeAt, on_step: OnStep<'_>, likened: &mut Likened) -> Result<()> {
        let (model, old) = (self.tree.inode(like)?, self.tree.inode(number.live())?);
        let size = model.size;
        let rights = self.tree.attributes().rights(like)?;
        likened.attributes |= self.tree.attributes().disarm(number, &rights)?;
        if old.size > size || old.inline != model.inline {
            // Bytes in the record would become a track.
            self.resize_to(number, if old.inline.is_empty() { old.size.min(size) } else { 0 })?;
            likened.content = true;
        }
        if !model.inline.is_empty() {
            likened.content |= self.copy_track(number, like, TrackNo::FIRST, size)?;
        }
        self.each_differing(number, like, &mut |track| {
            likened.content |= self.copy_track(number, like, track, size)?;
            on_step(track.next().start(self.tree.device.track_bytes()).min(size))
        })?;
        if self.tree.inode(number.live())?.size != size {
            self.resize_to(number, size)?;
            likened.content = true;
        }
        Ok(())
    }

    /// Copies one track of a file of a size; whether it differed.
    fn copy_track(self, number: InodeNo, like: InodeAt, track: TrackNo, size: u64) -> Result<bool> {
        match self.missing(number, like, track, size)? {
            Missing::Nothing => return Ok(false),
            Missing::Hole(bytes) => {
                self.tree.files().zero(number, bytes.start, bytes.end - bytes.start, true, false)?
            }
            Missing::Bytes(offset, bytes) => self.tree.files().write(number, offset, &bytes, false)?,
        }
        Ok(true)
    }

    /// What one track of a live file has to get for being like another one of a size.
    fn missing(self, number: InodeNo, like: InodeAt, track: TrackNo, size: u64) -> Result<Missing> {
        let track_bytes = self.tree.device.track_bytes();
        let offset = track.start(track_bytes);
        if offset >= size {
            return Ok(Missing::Nothing);
        }
        let end = size.min(offset.saturating_add(track_bytes));
        let has_data = |of: InodeAt| match self.tree.files().seek_data(of, offset) {
            Ok(data) => Ok(data < end),
            Err(Error::Posix(Errno::NXIO)) => Ok(false),
            Err(error) => Err(error),
        };
        if !has_data(like)? {
            return Ok(if has_data(number.live())? { Missing::Hole(offset..end) } else { Missing::Nothing });
        }
        let bytes = self.tree.files().read(like, offset, (end - offset) as usize)?;
        if bytes.len() as u64 != end - offset {
            return Err(Error::corrupt(format!("inode {}", like.inode), "it ends before its size"));
        }
        // Zeros that are stored are no hole.
        let is_same = match self.tree.files().read(number.live(), offset, bytes.len()) {
            Ok(now) => now == bytes && has_data(number.live())?,
            Err(Error::Corrupt { .. }) => false,
            Err(error) => return Err(error),
        };
        Ok(if is_same { Missing::Nothing } else { Missing::Bytes(offset, bytes) })
    }

    fn resize_to(self, number: InodeNo, size: u64) -> Result<()> {
        self.tree
            .attributes()
            .change(number, super::Change { size: Some(size), ..Default::default() })
            .map(|_changed| ())
    }
}

/// What a track lacks.
enum Missing {
    Nothing,
    Hole(Range<u64>),
    Bytes(u64, Vec<u8>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logstore::Codec;
    use crate::media::TestDir;
    use crate::tree::{Caller, CreateOptions, New, ROOT};
    use std::sync::Arc;

    const TRACK: u64 = 16 << 10;

    fn sample() -> (Tree, impl Fn(&Tree, &[u8]) -> InodeNo) {
        let dir = Arc::new(TestDir::new());
        let options =
            CreateOptions { track_bytes: TRACK as usize, codec: Codec::Lz4, uid: 0, gid: 0, mode: 0o755, hash_seed: 1 };
        Tree::create(dir.clone(), &options).unwrap();
        let make = |tree: &Tree, name: &[u8]| {
            let new = New { kind: Kind::File, permissions: 0o644, rdev: 0, target: b"" };
            tree.names().make(Caller { uid: 1, gid: 2, umask: 0 }, ROOT, name, new).unwrap().0
        };
        (Tree::open(dir).unwrap(), make)
    }

    /// Where data is, and what.
    fn content(tree: &Tree, file: InodeNo) -> (u64, Vec<(u64, Vec<u8>)>) {
        let size = tree.inode(file.live()).unwrap().size;
        let mut parts = Vec::new();
        let mut offset = 0;
        while let Ok(data) = tree.files().seek_data(file.live(), offset) {
            offset = tree.files().seek_hole(file.live(), data).unwrap();
            parts.push((data, tree.files().read(file.live(), data, (offset - data) as usize).unwrap()));
        }
        (size, parts)
    }

    /// Files with data at these places, a seed each, and a size.
    const FILES: [(&[(u64, usize)], u64); 8] = [
        (&[], 0),
        (&[(0, 100)], 100),
        (&[(0, 100_000)], 100_000),
        (&[(0, 40_000), (10 * TRACK, 30_000)], 1 << 33),
        (&[(5 * TRACK, 3 * TRACK as usize)], 8 * TRACK),
        (&[(TRACK, 900)], TRACK + 900),
        (&[], 1 << 40),
        (&[(3 << 20, 2 << 20)], 6 << 20),
    ];

    #[test]
    fn whatever_a_file_is_it_becomes_the_other_one() {
        for copies in [false, true] {
            let (tree, make) = sample();
            for (i, (a, a_size)) in FILES.iter().enumerate() {
                for (j, (b, b_size)) in FILES.iter().enumerate() {
                    let [one, other] = [(a, a_size, 'a'), (b, b_size, 'b')].map(|(parts, size, mark)| {
                        let file = make(&tree, format!("{copies} {i} {j} {mark}").as_bytes());
                        for (at, len) in parts.iter() {
                            let bytes: Vec<u8> = (0..*len).map(|k| (k * (i + 3) / 7 + j) as u8 | 1).collect();
                            tree.files().write(file, *at, &bytes, false).unwrap();
                        }
                        tree.likeness().resize_to(file, *size).unwrap();
                        file
                    });
                    if !copies {
                        tree.device.committer().unwrap().flush().unwrap();
                    }
                    let expected = content(&tree, other);
                    let likened = match copies {
                        true => {
                            let mut likened = Likened::default();
                            tree.likeness().copy_content(one, other.live(), &mut |_| Ok(()), &mut likened).unwrap();
                            likened
                        }
                        false => tree.likeness().become_like(one, other.live(), &mut |_| Ok(())).unwrap(),
                    };
                    assert!(likened.content || a == b, "{copies} {i} {j}");
                    assert!(content(&tree, one) == expected, "{copies} {i} {j}");
                    if !copies {
                        assert!(tree.likeness().is_like(one, other.live()).unwrap(), "{i} {j}");
                        let tracks = [one, other].map(|file| tree.inode(file.live()).unwrap().tracks);
                        assert_eq!(tracks[0], tracks[1], "{i} {j}");
                    }
                }
            }
        }
    }

    #[test]
    fn many_steps_lead_to_the_same_end() {
        let (tree, make) = sample();
        let (one, other) = (make(&tree, b"one"), make(&tree, b"other"));
        let tracks = 5 * STEP_TRACKS as u64 / 2;
        for track in 0..tracks {
            tree.files().write(one, track * TRACK, &track.to_be_bytes(), false).unwrap();
            tree.files().write(other, 2 * track * TRACK, &[7; 9], false).unwrap();
        }
        tree.device.committer().unwrap().flush().unwrap();
        let mut steps = 0;
        let mut on_step = |_| {
            steps += 1;
            Ok(())
        };
        tree.likeness().become_like(one, other.live(), &mut on_step).unwrap();
        assert!((3..12).contains(&steps), "{steps}");
        assert!(content(&tree, one) == content(&tree, other));
        let (small, _) = (make(&tree, b"small"), tree.commit().unwrap());
        tree.likeness().become_like(one, small.live(), &mut |_| Ok(())).unwrap();
        assert_eq!(content(&tree, one), (0, Vec::new()));
        assert_eq!(tree.likeness().become_like(one, small.live(), &mut |_| Ok(())).unwrap(), Likened::default());
    }
}
