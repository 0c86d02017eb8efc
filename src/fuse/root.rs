//! What stands in the mount and in no tree: the root, a directory with `live`, the snapshots and the clones of
//! a base, whose changes are snapshot commands; and the directories that show snapshots in other ways.
//!
//! ```text
//! /snap/live  /snap/NAME  /snap/CLONE        a mount of one base; of several: /snap/BASE/live …
//! /snap/@2h -> NAME                          time as a name, not listed
//! /snap/.snapshots/@GMT-2026.11.20-10.00.00/live  the mount as it was, not listed above
//! /snap/live/.snapshots/@GMT-…               the tree as it was, not listed
//! /snap/live/any/directory/.snap/NAME        that directory in every snapshot, not listed
//! ```

use super::convert::attributes;
use super::hidden::{SHADOW, SNAP};
use super::number::{Door, KernelNo, Node, Place, Virtual};
use super::{FileSystem, KEEP};
use crate::clock::{Epoch, Timestamp};
use crate::device::{BaseId, InodeNo, Moment, Snapshot};
use crate::error::{Errno, Error, Result};
use crate::tree::{self, Asker, Inode};
use crate::view::{LIVE_NAME, View, Views};
use fuser::{FileAttr, FileType};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, UNIX_EPOCH};

/// Offsets of a base's listing: `.`, `..`, `live`, then the snapshots by epoch, then the clones by number.
const LIVE_OFFSET: u64 = 3;
const CLONE_OFFSET: u64 = 1 << 33;
/// Snapshots looked up at once.
const BATCH: usize = 128;

/// What an entry of a listing leads to.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// The directory itself, or the one above.
    Dots,
    Virtual(Virtual),
    In(Place),
}

/// Takes an entry of a listing: its name, where to go on after it, where it leads; whether that was one too many.
pub(super) type Add<'a> = &'a mut dyn FnMut(&[u8], u64, Target) -> Result<bool>;

impl FileSystem {
    /// The base that a directory of the mount shows with its snapshots.
    pub(super) fn base_shown(&self, node: &Node) -> Option<BaseId> {
        match node {
            Node::Root => self.only,
            Node::Virtual(Virtual::Base(base)) => Some(*base),
            _ => None,
        }
    }

    /// The attributes of a directory, or link, that is in no tree.
    pub(super) fn virtual_attributes(&self, number: KernelNo, kind: FileType, size: u64) -> Result<FileAttr> {
        let look = self.views.tree().device().look()?;
        let mut newest = None;
        for (base, _) in look.bases() {
            let snapshot = look.snapshot_before(base, Epoch::MAX)?;
            newest = newest.max(snapshot.map(|snapshot| snapshot.record.time));
        }
        let time = newest.map_or(UNIX_EPOCH, |time: Timestamp| time.into());
        Ok(FileAttr {
            ino: number.into(),
            size,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: UNIX_EPOCH,
            kind,
            perm: if kind == FileType::Symlink { 0o777 } else { 0o755 },
            // One link: the number of subdirectories is not told, as on btrfs.
            nlink: 1,
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    pub(super) fn root_attributes(&self) -> Result<FileAttr> {
        self.virtual_attributes(super::number::ROOT, FileType::Directory, 0)
    }

    pub(super) fn attributes_of_virtual(&self, node: &Virtual) -> Result<FileAttr> {
        let number = self.numbers.virtual_number(node);
        match node {
            Virtual::Link(name) => self.virtual_attributes(number, FileType::Symlink, name.len() as u64),
            Virtual::Base(base) => {
                self.views.tree().device().look()?.base_record(*base)?;
                self.virtual_attributes(number, FileType::Directory, 0)
            }
            // By a time that is new the kernel sees that it has to list it anew.
            Virtual::Times(_) | Virtual::Time(..) => {
                let attr = self.virtual_attributes(number, FileType::Directory, 0)?;
                Ok(FileAttr { mtime: Timestamp::now().into(), ..attr })
            }
            Virtual::Snap(_) | Virtual::Shadow(_) => self.attributes_of_hidden(node, number),
        }
    }

    /// The attributes of an inode in a view. A snapshot's root shows the snapshot's time as mtime.
    pub(super) fn attributes(&self, place: Place) -> Result<FileAttr> {
        let found = self.views.tree().inode(place.inode, place.moment)?;
        self.attributes_of(place, &found)
    }

    pub(super) fn attributes_of(&self, place: Place, found: &Inode) -> Result<FileAttr> {
        let tree = self.views.tree();
        let mut attr = attributes(place.number(), found, tree.device().track_bytes());
        if let Moment::At(epoch) = place.moment
            && tree::is_root(place.inode)
            && let Some(snapshot) = tree.device().look()?.snapshot(place.inode.base(), epoch)?
        {
            attr.mtime = snapshot.record.time.into();
        }
        self.show_unseen_data(place, &mut attr);
        Ok(attr)
    }

    fn root_of(&self, view: View) -> Result<FileAttr> {
        self.attributes(self.numbers.know(Place::root(view)))
    }

    /// A name in a directory that is in no tree, and how long that may be remembered.
    pub(super) fn virtual_lookup(&self, asker: &Asker<'_>, node: &Node, name: &[u8]) -> Result<(FileAttr, Duration)> {
        if let Some(base) = self.base_shown(node) {
            return self.base_lookup(&self.views.of(base), name);
        }
        match node {
            Node::Root if name == SHADOW => Ok((self.attributes_of_virtual(&Virtual::Times(None))?, Duration::ZERO)),
            Node::Root => {
                let bases = self.views.top_bases()?;
                let found = bases.into_iter().find(|(_, known)| known.as_bytes() == name);
                let (base, _) = found.ok_or(Error::Posix(Errno::NOENT))?;
                Ok((self.attributes_of_virtual(&Virtual::Base(base))?, KEEP))
            }
            Node::Virtual(Virtual::Snap(directory)) => self.snap_lookup(asker, *directory, name),
            Node::Virtual(Virtual::Shadow(base)) => {
                let snapshot = by_time(&self.views.of(*base), name)?;
                let place = self.numbers.aside(View::live(*base).root(), snapshot.epoch, Door::Shadow)?;
                Ok((self.attributes(place)?, Duration::ZERO))
            }
            Node::Virtual(Virtual::Times(base)) => {
                let time = self.time_named(*base, name)?;
                Ok((self.attributes_of_virtual(&Virtual::Time(*base, time))?, Duration::ZERO))
            }
            Node::Virtual(Virtual::Time(base, time)) => {
                let found = self.beside_at(*base, *time)?.into_iter().find(|(known, _)| known.as_bytes() == name);
                let (_, target) = found.ok_or(Error::Posix(Errno::NOENT))?;
                Ok((self.attributes_of_target(target)?, Duration::ZERO))
            }
            _ => Err(Error::Posix(Errno::NOTDIR)),
        }
    }

    fn attributes_of_target(&self, target: Target) -> Result<FileAttr> {
        match target {
            Target::Dots => self.root_attributes(),
            Target::Virtual(node) => self.attributes_of_virtual(&node),
            Target::In(place) => self.attributes(place),
        }
    }

    /// The time of the newest snapshot to which `@TIME` leads.
    fn time_named(&self, base: Option<BaseId>, name: &[u8]) -> Result<Timestamp> {
        let mut newest = None;
        for base in self.trees_beside(base)? {
            match by_time(&self.views.of(base), name) {
                Ok(snapshot) => newest = newest.max(Some(snapshot.record.time)),
                Err(Error::Posix(Errno::NOENT)) => {}
                Err(error) => return Err(error),
            }
        }
        newest.ok_or(Error::Posix(Errno::NOENT))
    }

    /// All trees that the directory of a base shows, or the whole mount of several.
    fn trees_beside(&self, base: Option<BaseId>) -> Result<Vec<BaseId>> {
        let tops = match base {
            Some(base) => vec![base],
            None => self.views.top_bases()?.into_iter().map(|(base, _)| base).collect(),
        };
        let mut trees = tops.clone();
        for top in tops {
            trees.extend(self.views.of(top).beside()?.into_iter().map(|(base, _)| base));
        }
        Ok(trees)
    }

    /// What stood beside a base, or in the root of a mount of several, at a time.
    fn beside_at(&self, base: Option<BaseId>, time: Timestamp) -> Result<Vec<(String, Target)>> {
        let Some(base) = base else {
            let tops = self.views.top_bases()?;
            return Ok(tops
                .into_iter()
                .map(|(base, name)| (name, Target::Virtual(Virtual::Time(Some(base), time))))
                .collect());
        };
        let mut trees = vec![(base, LIVE_NAME.to_string())];
        trees.extend(self.views.of(base).beside()?);
        let mut found = Vec::new();
        for (tree, name) in trees {
            let views = self.views.of(tree);
            if let Some(snapshot) = views.unless_gone(views.before(time))?.flatten() {
                let place = self.numbers.aside(View::live(tree).root(), snapshot.epoch, Door::Time(time))?;
                found.push((name, Target::In(place)));
            }
        }
        Ok(found)
    }

    fn base_lookup(&self, views: &Views, name: &[u8]) -> Result<(FileAttr, Duration)> {
        if name == LIVE_NAME.as_bytes() {
            return Ok((self.root_of(View::live(views.base()))?, KEEP));
        }
        if name == SHADOW {
            return Ok((self.attributes_of_virtual(&Virtual::Times(Some(views.base())))?, Duration::ZERO));
        }
        if name.starts_with(b"@") {
            return self.time_link(views, name);
        }
        if let Some(snapshot) = views.find(name)? {
            let is_shown = snapshot.is_readable() && !snapshot.record.offline;
            return match is_shown {
                true => Ok((self.root_of(View::at(snapshot.base, snapshot.epoch))?, KEEP)),
                false => Err(Error::Posix(Errno::NOENT)),
            };
        }
        let beside = views.beside()?.into_iter().find(|(_, known)| known.as_bytes() == name);
        let (base, _) = beside.ok_or(Error::Posix(Errno::NOENT))?;
        Ok((self.root_of(View::live(base))?, KEEP))
    }

    /// What time it leads to changes as time goes by: nothing is remembered.
    fn time_link(&self, views: &Views, name: &[u8]) -> Result<(FileAttr, Duration)> {
        let snapshot = by_time(views, name)?;
        Ok((self.attributes_of_virtual(&Virtual::Link(snapshot.record.name))?, Duration::ZERO))
    }

    /// The way that leads there is not the snapshot's: nobody gets where he could not have gone in that.
    fn snap_lookup(&self, asker: &Asker<'_>, directory: InodeNo, name: &[u8]) -> Result<(FileAttr, Duration)> {
        let views = self.views.of(directory.base());
        if name.starts_with(b"@") {
            return self.time_link(&views, name);
        }
        let snapshot = views.find(name)?.filter(is_shown).ok_or(Error::Posix(Errno::NOENT))?;
        let path = self.path_in_reach(directory)?;
        let place = self.in_snapshot(directory, path.as_deref(), &snapshot)?.ok_or(Error::Posix(Errno::NOENT))?;
        match self.views.tree().check_way(place.inode, place.moment, asker) {
            // When somebody may not go there, the kernel would let go of what others have mounted there.
            Err(Error::Posix(Errno::ACCESS)) if self.has_mounts_behind(directory, path.as_deref())? => {
                return Err(Error::Posix(Errno::NOMEM));
            }
            checked => checked?,
        }
        Ok((self.attributes(place)?, Duration::ZERO))
    }

    /// Whether something is mounted in `.snap` of a directory.
    fn has_mounts_behind(&self, directory: InodeNo, path: Option<&[u8]>) -> Result<bool> {
        let Some(path) = path else { return Ok(false) };
        let above = self.path_of_live(directory.base())?.join(OsStr::from_bytes(path));
        Ok(self.check_nothing_inside(&above, SNAP).is_err())
    }

    /// Where a live directory was in a snapshot: the directory itself, or the one that had its path.
    fn in_snapshot(&self, directory: InodeNo, path: Option<&[u8]>, snapshot: &Snapshot) -> Result<Option<Place>> {
        let tree = self.views.tree();
        let moment = Moment::At(snapshot.epoch);
        let was_there = |inode| tree.inode(inode, moment).is_ok_and(|found| found.is_directory() && found.links > 0);
        let had_path = || tree.resolve(snapshot.base, path?, moment).ok().filter(|inode| was_there(*inode));
        let found = if was_there(directory) { Some(directory) } else { had_path() };
        found.map(|inode| self.numbers.aside(inode, snapshot.epoch, Door::Snap)).transpose()
    }

    pub(super) fn read_virtual_link(&self, node: &Virtual) -> Result<Vec<u8>> {
        match node {
            Virtual::Link(name) => Ok(name.clone().into_bytes()),
            _ => Err(Error::Posix(Errno::INVAL)),
        }
    }

    /// Lists a directory that is in no tree, after an offset.
    pub(super) fn virtual_list(&self, node: &Node, offset: u64, add: Add<'_>) -> Result<()> {
        if offset < 1 && add(b".", 1, Target::Dots)? || offset < 2 && add(b"..", 2, Target::Dots)? {
            return Ok(());
        }
        if let Some(base) = self.base_shown(node) {
            return self.list_base(&self.views.of(base), offset, add);
        }
        match node {
            Node::Root => {
                for (base, name) in self.views.top_bases()? {
                    let next = LIVE_OFFSET + u64::from(base.number());
                    if next > offset && add(name.as_bytes(), next, Target::Virtual(Virtual::Base(base)))? {
                        break;
                    }
                }
                Ok(())
            }
            Node::Virtual(Virtual::Snap(directory)) => self.list_snap(*directory, offset, add),
            Node::Virtual(Virtual::Shadow(base)) => self.list_shadow(&self.views.of(*base), offset, add),
            Node::Virtual(Virtual::Times(base)) => self.list_times(*base, offset, add),
            Node::Virtual(Virtual::Time(base, time)) => {
                for (i, (name, target)) in self.beside_at(*base, *time)?.into_iter().enumerate() {
                    let next = LIVE_OFFSET + i as u64;
                    if next > offset && add(name.as_bytes(), next, target)? {
                        break;
                    }
                }
                Ok(())
            }
            _ => Err(Error::Posix(Errno::NOTDIR)),
        }
    }

    fn list_base(&self, views: &Views, offset: u64, add: Add<'_>) -> Result<()> {
        let live = Target::In(self.numbers.know(Place::root(View::live(views.base()))));
        if offset < LIVE_OFFSET && add(LIVE_NAME.as_bytes(), LIVE_OFFSET, live)? {
            return Ok(());
        }
        let mut epoch = Epoch::new(offset.saturating_sub(LIVE_OFFSET).min(u64::from(u32::MAX)) as u32);
        let mut is_at_snapshots = offset < CLONE_OFFSET;
        while is_at_snapshots {
            // `add` may look at the state itself: it is not held here meanwhile.
            let batch = views.tree().device().look()?.shown_after(views.base(), epoch, BATCH)?;
            is_at_snapshots = !batch.is_empty();
            epoch = batch.last().map_or(epoch, |last| last.epoch);
            for snapshot in batch.iter().filter(|snapshot| is_shown(snapshot)) {
                let place = self.numbers.know(Place::root(View::at(snapshot.base, snapshot.epoch)));
                let next = LIVE_OFFSET + u64::from(snapshot.epoch.number());
                if add(snapshot.record.name.as_bytes(), next, Target::In(place))? {
                    return Ok(());
                }
            }
        }
        for (base, name) in views.beside()? {
            let next = CLONE_OFFSET + u64::from(base.number());
            let place = self.numbers.know(Place::root(View::live(base)));
            if next > offset && add(name.as_bytes(), next, Target::In(place))? {
                break;
            }
        }
        Ok(())
    }

    fn list_snap(&self, directory: InodeNo, offset: u64, add: Add<'_>) -> Result<()> {
        let views = self.views.of(directory.base());
        let path = self.path_in_reach(directory)?;
        for snapshot in views.all_snapshots()?.into_iter().filter(is_shown) {
            let next = LIVE_OFFSET + u64::from(snapshot.epoch.number());
            if next > offset
                && let Some(place) = self.in_snapshot(directory, path.as_deref(), &snapshot)?
                && add(snapshot.record.name.as_bytes(), next, Target::In(place))?
            {
                break;
            }
        }
        Ok(())
    }

    fn list_times(&self, base: Option<BaseId>, offset: u64, add: Add<'_>) -> Result<()> {
        // Of several in one second the newest is found under that name.
        let mut times: BTreeMap<i64, Timestamp> = BTreeMap::new();
        for tree in self.trees_beside(base)? {
            let all = self.views.of(tree).all_snapshots()?;
            for snapshot in all.into_iter().filter(is_shown) {
                let time = snapshot.record.time;
                let newest = times.entry(time.seconds).or_insert(time);
                *newest = time.max(*newest);
            }
        }
        for (seconds, time) in times {
            let next = LIVE_OFFSET + seconds.max(0) as u64;
            let name = time.as_gmt_name();
            let target = Target::Virtual(Virtual::Time(base, time));
            if next > offset && add(name.as_bytes(), next, target)? {
                break;
            }
        }
        Ok(())
    }

    fn list_shadow(&self, views: &Views, offset: u64, add: Add<'_>) -> Result<()> {
        // Of several in one second the newest is found under that name.
        let mut by_name: BTreeMap<i64, Snapshot> = BTreeMap::new();
        for snapshot in views.all_snapshots()?.into_iter().filter(is_shown) {
            by_name.insert(snapshot.record.time.seconds, snapshot);
        }
        for snapshot in by_name.into_values() {
            let next = LIVE_OFFSET + u64::from(snapshot.epoch.number());
            if next > offset {
                let place = self.numbers.aside(View::live(views.base()).root(), snapshot.epoch, Door::Shadow)?;
                if add(snapshot.record.time.as_gmt_name().as_bytes(), next, Target::In(place))? {
                    break;
                }
            }
        }
        Ok(())
    }
}

pub(super) fn is_shown(snapshot: &Snapshot) -> bool {
    snapshot.is_readable() && !snapshot.record.offline
}

/// The snapshot that `@TIME` leads to; ENOENT for what is no time as well, as for any name.
fn by_time(views: &Views, name: &[u8]) -> Result<Snapshot> {
    let text = name.strip_prefix(b"@").and_then(|text| std::str::from_utf8(text).ok());
    match views.at_time(text.ok_or(Error::Posix(Errno::NOENT))?) {
        Err(Error::Refused(..)) => Err(Error::Posix(Errno::NOENT)),
        found => found,
    }
}
