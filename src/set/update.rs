//! Writing a moment as a difference to another: what changed is laid over the index of that one, and what did not is kept.

use super::layout::LEAF;
use super::node::{Line, Node};
use super::reading::{At, with_spot};
use super::{Sets, Spot, Writer};
use crate::clock::Epoch;
use crate::error::Result;
use crate::id::Id;
use std::iter::Peekable;

/// What a key is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// As the store has it, without its birth.
    Record(Vec<u8>),
    /// The bytes of a track.
    Track(Vec<u8>),
    Gone,
    /// A track that could not be read, and of what path.
    Lost(String),
    /// A track that lies in an earlier set, and its length in bytes.
    Kept(Spot, u32),
}

/// One change: a key, the epoch in which it came into being, and what it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    pub key: Vec<u8>,
    pub birth: Epoch,
    pub change: Change,
}

/// Writes what is in a moment: that of an earlier set, if one is given, with changes, in ascending order of keys.
pub fn update(
    writer: &mut Writer,
    before: Option<(&Sets, Id)>,
    changes: impl Iterator<Item = Result<Delta>>,
) -> Result<()> {
    let mut changes = changes.peekable();
    if let Some((sets, moment)) = before {
        writer.begin_with(sets.file(moment)?.foot())?;
        if let Some(root) = sets.root(moment)? {
            Update { sets, writer, changes: &mut changes }.node(&root, b"", None)?;
        }
    }
    for change in changes {
        put(writer, change?)?;
    }
    Ok(())
}

fn put(writer: &mut Writer, Delta { key, birth, change }: Delta) -> Result<()> {
    match change {
        Change::Record(value) => writer.record(&key, birth, &value),
        Change::Track(bytes) => writer.track(&key, birth, &bytes),
        Change::Gone => writer.gone(&key, birth),
        Change::Lost(path) => writer.lost(&key, birth, path),
        Change::Kept(place, len) => writer.kept(&key, birth, place, len),
    }
}

struct Update<'a, I: Iterator<Item = Result<Delta>>> {
    sets: &'a Sets,
    writer: &'a mut Writer,
    changes: &'a mut Peekable<I>,
}

impl<I: Iterator<Item = Result<Delta>>> Update<'_, I> {
    /// Whether something changes before a key, or at all.
    fn changes_before(&mut self, end: Option<&[u8]>) -> Result<bool> {
        match self.changes.peek() {
            None => Ok(false),
            Some(Ok(change)) => Ok(end.is_none_or(|end| change.key.as_slice() < end)),
            Some(Err(_)) => match self.changes.next() {
                Some(Err(error)) => Err(error),
                Some(Ok(_)) | None => Ok(false),
            },
        }
    }

    /// Whether a node whose keys are before `end` stays as it is.
    fn is_kept(&mut self, kind: u8, end: Option<&[u8]>) -> Result<bool> {
        Ok(!(self.changes_before(end)? || kind == LEAF && self.writer.is_leaf_small()))
    }

    /// A node whose keys are before `end`: kept whole, or with what changes in it.
    fn node(&mut self, at: &At, first: &[u8], end: Option<&[u8]>) -> Result<()> {
        if self.is_kept(at.kind, end)? {
            return self.writer.keep_node(at.kind, first, (at.file.id(), at.offset, at.stored));
        }
        let node = self.sets.node(at)?;
        self.writer.let_go_of_node(at.file.id())?;
        match &*node {
            Node::Leaf(entries) => {
                for entry in entries {
                    let entry = with_spot(&at.file, entry)?;
                    while self.changes_before(Some(&entry.key))? {
                        self.put_next()?;
                    }
                    if self.is_next(&entry.key) {
                        self.writer.let_go(&entry.value)?;
                        self.put_next()?;
                    } else {
                        self.writer.keep(&entry)?;
                    }
                }
                while self.changes_before(end)? {
                    self.put_next()?;
                }
                Ok(())
            }
            Node::Inner(lines) => {
                for (number, line) in lines.iter().enumerate() {
                    let end = lines.get(number + 1).map(|next: &Line| next.first.as_slice()).or(end);
                    // The set that a node lies in is not opened only to keep it.
                    if self.is_kept(at.kind - 1, end)? {
                        let set = at.file.set(line.set)?;
                        self.writer.keep_node(at.kind - 1, &line.first, (set, line.offset, line.stored))?;
                    } else {
                        self.node(&self.sets.below(at, line)?, &line.first, end)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn is_next(&mut self, key: &[u8]) -> bool {
        matches!(self.changes.peek(), Some(Ok(change)) if change.key == key)
    }

    fn put_next(&mut self) -> Result<()> {
        match self.changes.next() {
            Some(change) => put(self.writer, change?),
            None => Ok(()),
        }
    }
}
