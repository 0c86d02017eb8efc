//! Deleting, and what it would free.

use super::{infos, slices};
use crate::clock::Epoch;
use crate::control::{Answer, BaseInfo, DeletionInfo, FreedInfo, SnapshotInfo};
use crate::device::{BaseId, InodeNo, LIVE, Moment, Snapshot};
use crate::error::Result;
use crate::view::{BaseKind, Deletion, GoingBase, ToDelete, Views};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;

/// Paths that are named.
const PATHS_SHOWN: usize = 20;

/// What was named.
#[derive(Default)]
pub(super) struct Named<'a> {
    snapshots: Vec<&'a [u8]>,
    of: Vec<BaseId>,
    trees: Vec<BaseId>,
}

impl Named<'_> {
    fn to_delete(&self, is_recursive: bool) -> ToDelete<'_> {
        ToDelete { names: &self.snapshots, of: &self.of, trees: &self.trees, is_recursive }
    }
}

/// Snapshots, of all bases of a group if one is given; or clones and mirrors.
pub(super) fn named<'a>(views: &Views, names: &'a [ByteBuf], group: Option<&Vec<u8>>) -> Result<Named<'a>> {
    if let Some(group) = group {
        return Ok(Named { snapshots: slices(names), of: views.groups().bases(group)?, trees: Vec::new() });
    }
    let mut named = Named { of: vec![views.base()], ..Named::default() };
    for name in names {
        let is_snapshot = name.starts_with(b"@") || views.find(name)?.is_some();
        let tree = views.tree().device().look()?.base_named(name);
        match tree {
            // The name of a base alone is too much to be deleted by a slip.
            Some(base) if !is_snapshot && base != LIVE && views.of(base).bases().info()?.kind != BaseKind::Base => {
                named.trees.push(base);
            }
            _ => named.snapshots.push(name),
        }
    }
    Ok(named)
}

/// A base, clone or mirror.
pub(super) fn base<'a>(views: &Views, name: &[u8]) -> Result<Named<'a>> {
    Ok(Named { trees: vec![views.bases().named(name)?], ..Named::default() })
}

pub(super) fn delete(views: &Views, named: &Named<'_>, recursive: bool) -> Result<Answer> {
    let deleted = views.deletions().delete_all(&named.to_delete(recursive))?;
    told(views, &deleted).map(Answer::Deletion)
}

/// The same without doing it, with what would be free then.
pub(super) fn rehearse(views: &Views, named: &Named<'_>, recursive: bool) -> Result<Answer> {
    let deletion = views.deletions().plan(&named.to_delete(recursive))?;
    let (bytes, paths) = freed(views, &deletion)?;
    let told = told(views, &deletion)?;
    Ok(Answer::Deletion(DeletionInfo { dry_run: true, bytes: Some(bytes), paths: Some(paths), ..told }))
}

fn told(views: &Views, deletion: &Deletion) -> Result<DeletionInfo> {
    let mut told = DeletionInfo::default();
    for GoingBase { info, snapshots } in &deletion.bases {
        told.snapshots.extend(snapshots.iter().map(|snapshot| SnapshotInfo::new(&info.name, snapshot)));
        told.bases.push(BaseInfo::from(info.clone()));
    }
    told.snapshots.extend(infos(views, &deletion.snapshots)?);
    told.snapshots.extend(infos(views, &deletion.marks)?);
    Ok(told)
}

/// How much, and the paths that hold most of it.
fn freed(views: &Views, deletion: &Deletion) -> Result<(u64, Vec<FreedInfo>)> {
    let mut snapshots: BTreeMap<BaseId, Vec<Epoch>> = BTreeMap::new();
    for Snapshot { base, epoch, .. } in deletion.snapshots.iter().chain(&deletion.marks) {
        snapshots.entry(*base).or_default().push(*epoch);
    }
    let bases: Vec<BaseId> = deletion.bases.iter().map(|going| going.info.id).collect();
    let freed = views.tree().device().look()?.freed_room().by_all(&snapshots, &bases)?;
    let mut by_size: Vec<(u64, InodeNo)> = freed.iter().map(|(inode, bytes)| (*bytes, *inode)).collect();
    by_size.sort_unstable_by(|a, b| b.cmp(a));
    let mut paths = Vec::new();
    for (bytes, inode) in by_size.into_iter().take(PATHS_SHOWN) {
        // Where it was last.
        let newest = snapshots.get(&inode.base()).and_then(|epochs| epochs.iter().max());
        let moment = newest.map_or(Moment::Live, |epoch| Moment::At(*epoch));
        let found = views.tree().names().paths(inode.at(moment)).ok().and_then(|paths| paths.into_iter().next());
        let path = found.unwrap_or_else(|| format!("inode {}", inode.number()).into_bytes());
        paths.push(FreedInfo { base: views.of(inode.base()).base_name()?, path: path.into(), bytes });
    }
    Ok((freed.values().sum(), paths))
}
