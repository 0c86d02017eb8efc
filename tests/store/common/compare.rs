//! Compares all that a store shows with a picture of it.

use super::model::{Kept, Model, Picture, Shown};
use pitfs::device::{BaseId, InodeNo, Moment};
use pitfs::error::{Errno, Error};
use pitfs::tree::{Inode, Kind, Tree, root_of};
use pitfs::view::Views;
use std::collections::{BTreeMap, BTreeSet};

const CHUNK: usize = 40_000;

/// What does not fit the picture, in words.
pub type Verdict<T> = Result<T, String>;

struct Comparison<'a> {
    tree: &'a Tree,
    moment: Moment,
    model: &'a Model,
    /// Objects that could not be read because of damage.
    damage: &'a mut Vec<Error>,
}

/// Compares everything. Errors that damage explains are returned; whatever else differs is a mismatch.
pub fn compare(views: &Views, picture: &Picture) -> Verdict<Vec<Error>> {
    let mut damage = Vec::new();
    match views.bases().all() {
        Ok(found) => {
            let found: BTreeMap<BaseId, String> = found.into_iter().map(|info| (info.id, info.name)).collect();
            let wanted = picture.bases().into_iter().map(|base| (base, picture.shown(base).name.clone())).collect();
            same("the bases", &found, &wanted)?;
        }
        Err(error) => note(&mut damage, error)?,
    }
    for base in picture.bases() {
        let shown = picture.shown(base);
        let within = |text: String| format!("base {base} ({}): {text}", shown.name);
        compare_base(&views.of(base), shown, picture, &mut damage).map_err(within)?;
    }
    Ok(damage)
}

/// Compares a base as it is now, where nothing is damaged.
pub fn compare_tree(views: &Views, model: &Model) -> Verdict<()> {
    compare_snapshot(views.tree(), Moment::Live, model)
}

/// Compares one moment, where nothing is damaged.
pub fn compare_snapshot(tree: &Tree, moment: Moment, model: &Model) -> Verdict<()> {
    let mut damage = Vec::new();
    compare_moment(tree, moment, model, &mut damage)?;
    damage.first().map_or(Ok(()), |error| Err(format!("an error: {error}")))
}

fn compare_base(views: &Views, shown: &Shown, picture: &Picture, damage: &mut Vec<Error>) -> Verdict<()> {
    compare_moment(views.tree(), Moment::Live, &shown.live, damage).map_err(|text| format!("live: {text}"))?;
    match views.snapshots().all() {
        Ok(found) => {
            let found: BTreeSet<String> = found.into_iter().map(|snapshot| snapshot.record.name).collect();
            let wanted: BTreeSet<String> = shown.snapshots.keys().cloned().collect();
            same("the names of snapshots", &found, &wanted)?;
        }
        Err(error) => note(damage, error)?,
    }
    for (name, kept) in &shown.snapshots {
        match views.moment(name.as_bytes()) {
            Ok(_) if kept.has_ended => return Err(format!("snapshot {name} has ended and can be looked into")),
            Ok(moment) => {
                compare_moment(views.tree(), moment, &kept.model, damage)
                    .map_err(|text| format!("snapshot {name}: {text}"))?;
            }
            Err(Error::Refused(Errno::INVAL, _)) if !is_kept(views.base(), shown, kept, picture) => {
                let root = views.tree().inode(root_of(views.base()).at(Moment::At(kept.epoch)));
                if !matches!(root, Err(Error::Gone)) {
                    return Err(format!("snapshot {name} has ended; its root: {root:?}"));
                }
            }
            Err(error) => note(damage, error)?,
        }
    }
    Ok(())
}

/// Whether a snapshot has to be readable.
fn is_kept(base: BaseId, shown: &Shown, kept: &Kept, picture: &Picture) -> bool {
    let protects = |other: &Kept| other.is_active || !picture.needing(base, other.epoch).is_empty();
    !kept.has_ended && shown.snapshots.values().any(|other| other.epoch >= kept.epoch && protects(other))
}

/// Like [`compare`], where nothing is damaged.
pub fn compare_exactly(views: &Views, picture: &Picture) -> Verdict<()> {
    match compare(views, picture)?.first() {
        Some(error) => Err(format!("an error: {error}")),
        None => Ok(()),
    }
}

fn note(damage: &mut Vec<Error>, error: Error) -> Verdict<()> {
    match error {
        Error::Corrupt { .. } | Error::Media { .. } | Error::Stopped(_) => {
            damage.push(error);
            Ok(())
        }
        other => Err(format!("the error {other:?} hides damage")),
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, wanted: &T) -> Verdict<()> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: found {found:?}, expected {wanted:?}")) }
}

fn compare_moment(tree: &Tree, moment: Moment, model: &Model, damage: &mut Vec<Error>) -> Verdict<()> {
    let mut comparison = Comparison { tree, moment, model, damage };
    let paths = model.paths();
    for (&number, node) in &model.nodes {
        let is_named = paths.contains_key(&number);
        // An inode that lost its last name while it was held is part of the live tree only.
        if !is_named && moment != Moment::Live {
            continue;
        }
        let place = |text: String| {
            let path = paths.get(&number).and_then(|paths| paths.first()).map(|path| String::from_utf8_lossy(path));
            format!("inode {number} at {path:?}: {text}")
        };
        comparison.inode(number).map_err(place)?;
        match node.kind {
            Kind::Directory => comparison.directory(number).map_err(place)?,
            Kind::File => {
                comparison.content(number).map_err(place)?;
                comparison.holes(number).map_err(place)?;
            }
            Kind::Symlink => {
                if let Some(target) = comparison.ok(tree.names().read_link(number.at(moment)))? {
                    same("target", &target, &node.bytes).map_err(place)?;
                }
            }
            _ => {}
        }
        comparison.xattrs(number).map_err(place)?;
        let mut wanted = paths.get(&number).cloned().unwrap_or_default();
        wanted.sort();
        if let Some(mut found) = comparison.ok(tree.names().paths(number.at(moment)))? {
            found.sort();
            same("paths", &found, &wanted).map_err(place)?;
        }
    }
    Ok(())
}

impl Comparison<'_> {
    fn ok<T>(&mut self, result: Result<T, Error>) -> Verdict<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) => note(self.damage, error).map(|()| None),
        }
    }

    fn inode(&mut self, number: InodeNo) -> Verdict<()> {
        match self.ok(self.tree.inode(number.at(self.moment)))? {
            Some(found) => self.attributes(number, &found),
            None => Ok(()),
        }
    }

    fn attributes(&self, number: InodeNo, found: &Inode) -> Verdict<()> {
        let wanted = self.model.node(number);
        same("kind", &found.kind(), &wanted.kind)?;
        same("permissions", &found.permissions(), &wanted.permissions)?;
        same("owner", &(found.uid, found.gid), &(wanted.uid, wanted.gid))?;
        same("device number", &found.rdev, &wanted.rdev)?;
        same("links", &found.links, &wanted.links)?;
        same("size", &found.size, &wanted.size())?;
        let times = super::world::times_of(found);
        same("times", &times, &wanted.times)
    }

    fn directory(&mut self, number: InodeNo) -> Verdict<()> {
        let wanted: BTreeMap<Vec<u8>, InodeNo> = self.model.node(number).entries.clone();
        let mut found = BTreeMap::new();
        let mut last = 0;
        // In two parts, as a caller with a small buffer lists.
        let first = self.tree.names().list(number.at(self.moment), 0, |entry| {
            found.insert(entry.name.clone(), (entry.inode, entry.kind));
            last = entry.offset;
            Ok(found.len() < 3)
        });
        let rest = first.and_then(|()| {
            self.tree.names().list_with_inodes(number.at(self.moment), last, |entry, inode| {
                let is_new = found.insert(entry.name.clone(), (entry.inode, inode.kind())).is_none();
                assert!(is_new, "an entry is listed twice");
                Ok(true)
            })
        });
        if self.ok(rest)?.is_some() {
            let wanted: BTreeMap<_, _> =
                wanted.iter().map(|(name, number)| (name.clone(), (*number, self.model.node(*number).kind))).collect();
            same("entries", &found, &wanted)?;
        }
        for (name, child) in &wanted {
            if let Some((found, inode)) = self.ok(self.tree.names().lookup(number.at(self.moment), name))? {
                same("the inode behind an entry", &found, child)?;
                self.attributes(*child, &inode)?;
            }
        }
        match self.tree.names().lookup(number.at(self.moment), b"never made") {
            Err(Error::Posix(Errno::NOENT)) => Ok(()),
            Err(error) => note(self.damage, error),
            Ok(_) => Err("a name that was never made is found".into()),
        }
    }

    fn content(&mut self, number: InodeNo) -> Verdict<()> {
        let wanted = &self.model.node(number).bytes;
        for at in (0..=wanted.len()).step_by(CHUNK) {
            let end = wanted.len().min(at + CHUNK);
            if let Some(found) = self.ok(self.tree.files().read(number.at(self.moment), at as u64, CHUNK))?
                && found != wanted[at..end]
            {
                let differs = found.iter().zip(&wanted[at..end]).position(|(a, b)| a != b);
                return Err(format!(
                    "{} bytes at {at}, {} expected; they differ at {differs:?}",
                    found.len(),
                    end - at
                ));
            }
        }
        Ok(())
    }

    /// What is said to be a hole has to be zeros.
    fn holes(&mut self, number: InodeNo) -> Verdict<()> {
        let bytes = &self.model.node(number).bytes;
        let end = bytes.len() as u64;
        let mut at = 0;
        while at < end {
            let data = match self.tree.files().seek_data(number.at(self.moment), at) {
                Ok(data) => data,
                Err(Error::Posix(Errno::NXIO)) => end,
                Err(error) => return note(self.damage, error),
            };
            if data < at || data > end || bytes[at as usize..data as usize].iter().any(|&byte| byte != 0) {
                return Err(format!("a hole is reported from {at} to {data}"));
            }
            if data == end {
                break;
            }
            let Some(hole) = self.ok(self.tree.files().seek_hole(number.at(self.moment), data))? else { return Ok(()) };
            if hole <= data || hole > end {
                return Err(format!("data is reported from {data} to {hole}"));
            }
            at = hole;
        }
        match self.tree.files().seek_hole(number.at(self.moment), end) {
            Err(Error::Posix(Errno::NXIO)) => Ok(()),
            Err(error) => note(self.damage, error),
            Ok(hole) => Err(format!("a hole is reported at {hole}, after the end")),
        }
    }

    fn xattrs(&mut self, number: InodeNo) -> Verdict<()> {
        let wanted = &self.model.node(number).xattrs;
        if let Some(names) = self.ok(self.tree.attributes().xattr_names(number.at(self.moment)))? {
            same("names of xattrs", &names, &wanted.keys().cloned().collect())?;
        }
        for (name, value) in wanted {
            if let Some(found) = self.ok(self.tree.attributes().xattr(number.at(self.moment), name))? {
                same("an xattr", &found, value)?;
            }
        }
        Ok(())
    }
}
