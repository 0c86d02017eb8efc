//! Removing what the snapshot does not have.

use super::{BringBack, Place};
use crate::device::{InodeNo, Moment};
use crate::error::Result;
use crate::tree::{Entry, Kind};

/// Entries of a directory that are removed between two looks at it.
const PIECE: usize = 256;

impl BringBack<'_> {
    /// A name that the snapshot does not have: removed now, or kept for later, which is then true. Something that
    /// the snapshot has elsewhere may still be moved there.
    pub(super) fn extra(&mut self, place: &Place) -> Result<bool> {
        let Some((now, found)) = self.lookup(place)? else { return Ok(false) };
        if found.is_directory() || self.named(now, self.then)?.is_some() {
            self.extras.push(place.clone());
            return Ok(true);
        }
        self.unlink(place, now)?;
        Ok(false)
    }

    /// Removes a name, of a directory with all that is in it.
    pub(super) fn remove(&mut self, place: &Place) -> Result<()> {
        match self.lookup(place)? {
            None => Ok(()),
            Some((now, found)) if found.is_directory() => self.remove_directory(place, now),
            Some((now, _)) => self.unlink(place, now),
        }
    }

    fn remove_directory(&mut self, place: &Place, directory: InodeNo) -> Result<()> {
        if self.rehearsal.is_some() {
            return self.count_removed(directory);
        }
        let mut stack = vec![(place.clone(), directory)];
        while let Some((place, directory)) = stack.last().cloned() {
            let entries = self.some_entries(directory)?;
            if entries.is_empty() {
                self.tree.names().remove_directory(place.parent, &place.name)?;
                self.removed()?;
                stack.pop();
            }
            for Entry { name, inode, kind, .. } in entries {
                let place = Place { parent: directory, name };
                match kind {
                    Kind::Directory => stack.push((place, inode)),
                    _ => self.unlink(&place, inode)?,
                }
            }
        }
        Ok(())
    }

    fn some_entries(&self, directory: InodeNo) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        self.tree.names().list(directory, 0, Moment::Live, |entry| {
            entries.push(entry.clone());
            Ok(entries.len() < PIECE)
        })?;
        Ok(entries)
    }

    fn unlink(&mut self, place: &Place, now: InodeNo) -> Result<()> {
        if self.rehearsal.is_some() {
            self.report.removed += 1;
            self.lose_name(now);
            return Ok(());
        }
        self.tree.names().unlink(place.parent, &place.name)?;
        self.removed()
    }

    fn removed(&mut self) -> Result<()> {
        self.has_changed.set(true);
        self.report.removed += 1;
        self.tell(0)
    }
}
