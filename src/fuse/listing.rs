//! Listing directories: of trees, and of what stands above them.

use super::attr::{Attr, Made};
use super::number::{KernelNo, Node, Place, ROOT};
use super::operations::Client;
use super::{FileSystem, KEEP};
use crate::error::{Error, Result};
use crate::tree::{Entry, Kind};
use crate::view::{Target, Virtual};
use std::time::Duration;

/// Takes a name with its number, where to go on after it, and its kind; whether that was one too many.
pub(super) type Add<'a> = &'a mut dyn FnMut(&[u8], KernelNo, u64, Kind) -> bool;

/// The same with what is told of what is behind it.
pub(super) type AddMade<'a> = &'a mut dyn FnMut(&[u8], &Made, u64) -> bool;

/// Whether all snapshots are looked through for one directory.
pub(super) fn is_listed_long(fs: &FileSystem, number: KernelNo) -> bool {
    matches!(fs.numbers.node(number), Ok(Node::Virtual(Virtual::Snap(_))))
}

/// Lists a directory after an offset.
pub(super) fn readdir(fs: &FileSystem, number: KernelNo, offset: u64, add: Add<'_>) -> Result<()> {
    let place = match fs.numbers.node(number)? {
        Node::In(place) => place,
        Node::Virtual(node) => {
            return fs.namespace.list(&node, offset, &mut |name, next, target| {
                let number = match (&target, fs.place_of(&target)?) {
                    (_, Some(place)) => place.number(),
                    (Target::Virtual(node), None) => fs.numbers.virtual_number(node),
                    (_, None) => number,
                };
                Ok(add(name, number, next, Kind::Directory))
            });
        }
    };
    if offset < 1 && add(b".", number, 1, Kind::Directory) {
        return Ok(());
    }
    if offset < 2 && add(b"..", number_above(fs, place)?, 2, Kind::Directory) {
        return Ok(());
    }
    fs.views.tree().names().list(place.at, offset, |entry: &Entry| {
        Ok(!add(&entry.name, place.to(entry.inode).number(), entry.offset, entry.kind))
    })
}

fn number_above(fs: &FileSystem, place: Place) -> Result<KernelNo> {
    if crate::tree::is_root(place.inode()) {
        return Ok(ROOT);
    }
    Ok(place.to(fs.views.tree().inode(place.at)?.parent).number())
}

/// The same with attributes. The kernel knows of what is added, and was not too many, but for `.` and `..`.
pub(super) fn readdirplus(
    fs: &FileSystem,
    client: Client,
    number: KernelNo,
    offset: u64,
    add: AddMade<'_>,
) -> Result<()> {
    let own = fs.attr_of(number)?;
    let _telling = fs.numbers.telling(number, b"");
    let place = match fs.numbers.node(number)? {
        Node::In(place) => place,
        Node::Virtual(node) => {
            let keep = keep(&node);
            return fs.namespace.list(&node, offset, &mut |name, next, target| {
                let is_dots = target == Target::Dots;
                let attr = match (&target, fs.place_of(&target)?) {
                    (_, Some(place)) => {
                        fs.attributes(place).unwrap_or_else(|error| unknown(place, Kind::Directory, &error))
                    }
                    (Target::Virtual(node), None) => fs.attributes_of_virtual(node)?,
                    (_, None) => own,
                };
                let generation = fs.generation(attr.number);
                let is_full = add(name, &Made { attr, generation, keep }, next);
                if !is_full && !is_dots {
                    fs.hold(attr.number);
                }
                Ok(is_full)
            });
        }
    };
    // The kernel takes no attributes from these two.
    let dots = Made { attr: own, generation: 0, keep: KEEP };
    if offset < 1 && add(b".", &dots, 1) || offset < 2 && add(b"..", &dots, 2) {
        return Ok(());
    }
    let mut told = Vec::new();
    fs.views.tree().names().list_with_what_is_known(place.at, offset, |entry, found| {
        let at = place.to(entry.inode);
        let attr = found.and_then(|found| fs.attributes_of(at, &found));
        let attr = attr.unwrap_or_else(|error| unknown(at, entry.kind, &error));
        let is_live = place.at.is_live();
        let generation = if is_live { fs.views.tree().held().generation(entry.inode) } else { 0 };
        let is_full = add(&entry.name, &Made { attr, generation, keep: fs.keep_attributes(&attr) }, entry.offset);
        told.extend(is_live.then_some(attr.number));
        match is_live {
            _ if is_full => {}
            true => {
                fs.views.tree().held().hold(entry.inode);
            }
            false => fs.numbers.hold(attr.number),
        }
        Ok(!is_full)
    })?;
    fs.wait_for_count(client, told);
    Ok(())
}

fn unknown(place: Place, kind: Kind, error: &Error) -> Attr {
    log::error!("listing inode {}: {error}", place.inode().number());
    Attr::unknown(place.number(), kind)
}

/// How long the kernel may keep what a node is and shows.
pub(super) fn keep(node: &Virtual) -> Duration {
    if node.is_always_new() { Duration::ZERO } else { KEEP }
}
