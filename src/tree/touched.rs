//! Which inodes changed since a snapshot, and which directories have such inodes below them.

use super::{Tree, is_root};
use crate::clock::Epoch;
use crate::device::{BaseId, InodeNo, Moment, TrackNo, expect_track, split_increment};
use crate::error::Result;
use crate::meta::{Table, prefix_end};
use std::collections::{HashMap, HashSet};

/// Where to go on: an increment, and a track in it.
type Next = (Epoch, TrackNo);

/// Records read under one lock.
const STEP: usize = 1024;

/// What changed after a snapshot, as it is found in that snapshot. What was made since is not in it: the
/// directories it was made in are.
#[derive(Debug, Default)]
pub struct Touched {
    inodes: HashSet<InodeNo>,
    below: HashMap<InodeNo, Vec<(InodeNo, Vec<u8>)>>,
}

impl Touched {
    pub fn has(&self, inode: InodeNo) -> bool {
        self.inodes.contains(&inode)
    }

    /// What a directory had in it that changed, or has such things below it, with the names there.
    pub fn below(&self, directory: InodeNo) -> &[(InodeNo, Vec<u8>)] {
        self.below.get(&directory).map_or(&[], Vec::as_slice)
    }
}

impl Tree {
    /// What changed after the epoch of a snapshot, up to another one; `None` where increments do not tell. Calls
    /// `on_step` now and then, and ends with its error.
    pub fn touched_since(
        &self,
        base: BaseId,
        since: Epoch,
        to: Epoch,
        on_step: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Option<Touched>> {
        let spans = self.spans(base, since, to)?;
        if !spans.is_all || !self.has_increments_since(base, since)? {
            return Ok(None);
        }
        let mut touched = Touched::default();
        for (start, end) in spans.spans {
            self.add_inodes(base, start, end, &mut touched.inodes, on_step)?;
        }
        let mut known = HashSet::new();
        for (i, &inode) in touched.inodes.iter().enumerate() {
            let mut at = vec![inode];
            while let Some(inode) = at.pop() {
                if is_root(inode) || !known.insert(inode) {
                    continue;
                }
                for (parent, name) in self.names(inode, Moment::At(since))? {
                    touched.below.entry(parent).or_default().push((inode, name));
                    at.push(parent);
                }
            }
            if i % STEP == 0 {
                on_step()?;
            }
        }
        Ok(Some(touched))
    }

    /// Whether all increments since a snapshot are there. Those after one that is not in the store may have gone with
    /// it.
    pub(super) fn has_increments_since(&self, base: BaseId, since: Epoch) -> Result<bool> {
        let after = self.device.look()?.snapshots_after(base, since.before(), 1)?;
        Ok(after.iter().any(|found| found.epoch == since))
    }

    /// Tracks of a file, up to `most`, that increments up to an epoch name, from a place in them on; and where to look
    /// on, if there may be more. A track can come again.
    pub(super) fn changed_tracks_of(
        &self,
        inode: InodeNo,
        from: (Epoch, TrackNo),
        to: Epoch,
        most: usize,
    ) -> Result<(Vec<TrackNo>, Option<Next>)> {
        let prefix = inode.prefix();
        let (base, number) = prefix.split_at(4);
        let look = self.device.look()?;
        let mut tracks = Vec::new();
        let (mut epoch, mut track) = from;
        while epoch <= to {
            let of_epoch = |epoch: Epoch| [base, &epoch.to_be_bytes()].concat();
            let of_file = [&of_epoch(epoch)[..], &[Table::Track as u8], number].concat();
            let start = [&of_file[..], &track.number().to_be_bytes()].concat();
            for pair in look.meta().range(Table::Increment, &start, &prefix_end(&of_file))? {
                let (_, key, _) = split_increment(&pair?.0)?;
                let (_, track) = expect_track(&key)?;
                if tracks.len() == most {
                    return Ok((tracks, Some((epoch, track))));
                }
                tracks.push(track);
            }
            // The next epoch in which anything changed.
            let after = epoch.next();
            let end = of_epoch(to.next());
            match look.meta().range(Table::Increment, &of_epoch(after), &end)?.next().transpose()? {
                Some((full, _)) => (epoch, track) = (split_increment(&full)?.2, TrackNo::FIRST),
                None => break,
            }
        }
        Ok((tracks, None))
    }

    /// Every change of an inode changes its record. In each increment these come first: the others are passed over.
    fn add_inodes(
        &self,
        base: BaseId,
        start: Epoch,
        end: Epoch,
        inodes: &mut HashSet<InodeNo>,
        on_step: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let key = |epoch: Epoch| [base.prefix(), epoch.to_be_bytes()].concat();
        let mut from = key(start.next());
        let to = key(end.next());
        while from < to {
            on_step()?;
            let look = self.device.look()?;
            let mut next = to.clone();
            for (i, pair) in look.meta().range(Table::Increment, &from, &to)?.enumerate() {
                let (full, _) = pair?;
                if i == STEP {
                    next = full;
                    break;
                }
                let (table, key_of, epoch) = split_increment(&full)?;
                if table > Table::Inode {
                    next = key(epoch.next());
                    break;
                }
                inodes.extend(InodeNo::of_key(&key_of));
            }
            from = next;
        }
        Ok(())
    }
}
