//! Going through directories: what they had then beside what they have now, in pieces, the deepest finished
//! first. Directories that did not change are entered only on the way to something that did.

use super::apart::keep_below;
use super::rehearse::UNMADE;
use super::remove::extra;
use super::{BringBack, Place};
use crate::device::{InodeAt, InodeNo};
use crate::error::Result;
use crate::tree::{Entry, Kind};
use std::collections::BTreeMap;

/// Entries of a directory that are compared in one go.
const PIECE: usize = 1024;

/// A directory on the way.
struct Frame {
    then: InodeNo,
    now: InodeNo,
    /// Where comparing goes on; `None` when all has been compared.
    next: Option<u64>,
    /// Its entries are those it had then.
    is_unchanged: bool,
    /// Directories in it that are still to be entered.
    pending: Vec<(InodeNo, InodeNo)>,
    /// It has names that are removed later.
    has_extras: bool,
}

/// What a name led to then, and what it leads to now.
type Pair = (Option<(InodeNo, Kind)>, Option<(InodeNo, Kind)>);

/// Pairs by offset and name, in the order of the directory.
type Pairs = BTreeMap<(u64, Vec<u8>), Pair>;

impl BringBack<'_> {
    /// Makes a directory what it was then, with all below it.
    pub(super) fn walk(&mut self, then: InodeNo, now: InodeNo) -> Result<()> {
        let mut stack = vec![self.frame(then, now)?];
        while let Some(frame) = stack.last_mut() {
            if let Some((then, now)) = frame.pending.pop() {
                let frame = self.frame(then, now)?;
                stack.push(frame);
            } else if frame.next.is_some() {
                self.piece(frame)?;
            } else if let Some(Frame { then, now, has_extras, .. }) = stack.pop() {
                if has_extras {
                    self.unfinished.push((then, now));
                } else {
                    self.attributes(then, now)?;
                }
            }
        }
        Ok(())
    }

    fn frame(&mut self, then: InodeNo, now: InodeNo) -> Result<Frame> {
        let is_unchanged = then == now && self.changed.as_ref().is_some_and(|changed| !changed.has(then));
        if self.rehearsal.is_none() && !is_unchanged {
            self.disarm(then, now)?;
        }
        Ok(Frame { then, now, next: Some(0), is_unchanged, pending: Vec::new(), has_extras: false })
    }

    /// What comes into a directory is not for those who could enter it only as it is now.
    fn disarm(&mut self, then: InodeNo, now: InodeNo) -> Result<()> {
        let rights = self.tree.attributes().rights(then.at(self.then))?;
        if self.tree.attributes().disarm(now, &rights)? {
            self.has_changed.set(true);
            self.disarmed.insert(now);
        }
        Ok(())
    }

    /// Whether an inode is as it was then, with all below it.
    pub(super) fn is_all_unchanged(&self, then: InodeNo, now: InodeNo) -> bool {
        let is_unchanged = |inode| {
            let changed = self.changed.as_ref();
            changed.is_some_and(|changed| !changed.has(inode) && changed.below(inode).is_empty())
        };
        then == now && is_unchanged(then) && !self.is_wanted_anyway(then)
    }

    fn piece(&mut self, frame: &mut Frame) -> Result<()> {
        self.tell(0)?;
        let pairs = if frame.is_unchanged { self.pairs_below(frame) } else { self.pairs(frame) };
        let (pairs, next) = match pairs {
            Ok(found) => found,
            Err(error) => {
                // What cannot be listed is not known to be gone, and stays.
                frame.next = None;
                let path = self.tree.names().paths(frame.now.live()).unwrap_or_default().pop().unwrap_or_default();
                self.problem(error, &path)?;
                return keep_below(self, frame.now);
            }
        };
        frame.next = next;
        for ((_, name), pair) in pairs {
            let place = Place { parent: frame.now, name };
            let result = self.pair(frame, &place, pair);
            self.settle(result, &place)?;
        }
        Ok(())
    }

    /// The next entries of both listings, and where to go on.
    fn pairs(&self, frame: &Frame) -> Result<(Pairs, Option<u64>)> {
        let from = frame.next.unwrap_or_default();
        let (then, then_end) = self.list(frame.then.at(self.then), from)?;
        let (now, now_end) = self.list(frame.now.live(), from)?;
        let end = then_end.into_iter().chain(now_end).min();
        let mut pairs = Pairs::new();
        for entry in then.into_iter().filter(|entry| end.is_none_or(|end| entry.offset <= end)) {
            pairs.entry((entry.offset, entry.name)).or_default().0 = Some((entry.inode, entry.kind));
        }
        for entry in now.into_iter().filter(|entry| end.is_none_or(|end| entry.offset <= end)) {
            pairs.entry((entry.offset, entry.name)).or_default().1 = Some((entry.inode, entry.kind));
        }
        Ok((pairs, end))
    }

    /// Entries after an offset, and the offset up to which that is all, if there are more.
    fn list(&self, directory: InodeAt, from: u64) -> Result<(Vec<Entry>, Option<u64>)> {
        let mut entries: Vec<Entry> = Vec::new();
        if directory.inode == UNMADE {
            return Ok((entries, None));
        }
        let mut end = None;
        self.tree.names().list(directory, from, |entry| {
            // Names of one offset stay together.
            let last = entries.last().map(|last| last.offset).filter(|last| *last != entry.offset);
            if entries.len() >= PIECE && last.is_some() {
                end = last;
                return Ok(false);
            }
            entries.push(entry.clone());
            Ok(true)
        })?;
        Ok((entries, end))
    }

    /// The entries of a directory that did not change which did, or have something below them that did.
    fn pairs_below(&self, frame: &Frame) -> Result<(Pairs, Option<u64>)> {
        let below = self.changed.as_ref().map_or(&[][..], |changed| changed.below(frame.then));
        let mut pairs = Pairs::new();
        for (i, (inode, name)) in below.iter().enumerate() {
            let found = Some((*inode, self.tree.inode(inode.at(self.then))?.kind()));
            pairs.insert((i as u64, name.clone()), (found, found));
        }
        Ok((pairs, None))
    }

    fn pair(&mut self, frame: &mut Frame, place: &Place, pair: Pair) -> Result<()> {
        match pair {
            (Some((then, _)), Some((now, _))) if self.is_all_unchanged(then, now) => Ok(()),
            (Some((then, kind)), _) => {
                if let Some(now) = self.name(place, then, kind)? {
                    frame.pending.push((then, now));
                }
                Ok(())
            }
            (None, Some(_)) => {
                frame.has_extras |= extra(self, place)?;
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }
}
