//! Bringing paths back in place out of a set at a target. For as long as that takes its moment is one of the base's.
//!
//! Where the store still has a snapshot that the target has as well, both sets say what differs between the two, and the increments
//! what changed since: nothing else is looked at, and what is as in that snapshot is shared with it.

use super::{BringBackReport, PathRestores, Source};
use crate::daemon::from_sets::{Alike, alike, check_is_of_like_store, moment_named};
use crate::daemon::targets::AtTarget;
use crate::daemon::{OnProgress, Progress};
use crate::device::{InodeAt, InodeNo, Moment, Snapshot, SnapshotRecord, visit};
use crate::error::{Errno, Error, Result};
use crate::view::Views;
use serde_bytes::ByteBuf;
use std::collections::HashSet;
use std::path::Path;

/// What is known of a moment that lies in a set.
pub(super) struct InSet<'a> {
    pub target: &'a Path,
    /// The snapshot in the store that it is most like, and the inodes of which anything differs.
    pub like: Option<(Snapshot, HashSet<InodeNo>)>,
}

impl InSet<'_> {
    /// Where the store has an inode as it is in the moment, if it does.
    pub fn in_store(&self, inode: InodeNo) -> Option<InodeAt> {
        let (snapshot, differing) = self.like.as_ref()?;
        (!differing.contains(&inode)).then(|| inode.at(Moment::At(snapshot.epoch)))
    }
}

impl PathRestores<'_> {
    /// Like [`PathRestores::bring_back`], of a moment of this base that a target has, named as snapshots are; and that moment. Views
    /// that take everything back only count.
    pub fn bring_back_from_set(
        self,
        views: &Views,
        at: &AtTarget,
        (name, paths): (&[u8], &[ByteBuf]),
        progress: OnProgress<'_>,
    ) -> Result<(Snapshot, BringBackReport, Option<Snapshot>)> {
        let base = views.base();
        let (base_id, base_name) = {
            let look = views.tree().device().look()?;
            let record = look.base_record(base)?;
            (record.id, record.name.clone())
        };
        let listed = moment_named(at, name, Some(&base_name))?;
        check_is_of_like_store(views, &listed.header)?;
        if listed.header.base != base_id {
            let other = &listed.header.base_name;
            let text = format!(
                "it is a moment of {other:?}, and no earlier one of {base_name:?}; --to-base makes a base of it"
            );
            return Err(Error::Refused(Errno::INVAL, text));
        }
        let alone = self.daemon.alone_with_files()?;
        let visited = visit(views.tree().device(), base, at.repository.sets(), listed.id);
        let mark = &listed.header.mark;
        let record =
            SnapshotRecord { name: mark.name.clone(), time: mark.time, id: mark.id, ..SnapshotRecord::default() };
        let snapshot = Snapshot { base, epoch: visited.point().epoch, record, is_archived: false };
        let mut like = None;
        if let Some(Alike { snapshot, set }) = alike(views, &at.repository, &listed, Some(base))? {
            let mut files = 0;
            let mut tell = || {
                files += 1;
                progress(&Progress { files, ..Default::default() })
            };
            like = Some((snapshot, visited.differing_from(set, &mut tell)?));
        }
        let in_set = InSet { target: at.target.path(), like };
        let source = Source { in_set: Some(&in_set), ..Source::in_store(&snapshot) };
        let (report, before) = self.carry_out_alone(views, alone, source, paths, progress)?;
        Ok((Snapshot { epoch: mark.epoch, is_archived: true, ..snapshot }, report, before))
    }
}
