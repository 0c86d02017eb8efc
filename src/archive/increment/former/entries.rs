//! Entries in order, found through the index.

use super::super::Entry;
use super::cursor::{Child, Cursor};
use super::layout::KIND_MAX;
use super::reader::Reader;
use crate::error::Result;
use crate::meta::hex;

/// The entries of an increment, or some of them, in order.
///
/// A block that is damaged gives one error, and the entries behind it still come. Invariants, whatever the file is
/// like: keys ascend; blocks of one kind come in the order of their offsets, so that there is an end.
pub struct Entries<'a> {
    reader: &'a Reader,
    is_started: bool,
    /// From the root down to where the next entry is.
    stack: Vec<Cursor>,
    /// A table's number and a key in it.
    from: Vec<u8>,
    /// The first key that is not asked for any more.
    to: Option<Vec<u8>>,
    /// The key of the last entry that was read.
    last: Vec<u8>,
    /// The offset of the last block that was opened, for each kind.
    opened: [u64; KIND_MAX as usize + 1],
}

enum Step {
    Entry(Entry),
    Moved,
    End,
}

impl<'a> Entries<'a> {
    pub(super) fn new(reader: &'a Reader, from: Vec<u8>, to: Option<Vec<u8>>) -> Entries<'a> {
        let (stack, last) = (Vec::new(), Vec::new());
        Entries { reader, is_started: false, stack, from, to, last, opened: [0; KIND_MAX as usize + 1] }
    }

    fn step(&mut self) -> Result<Step> {
        if !self.is_started {
            self.is_started = true;
            if let Some((kind, offset)) = self.reader.root() {
                self.open(kind, offset, None)?;
            }
        }
        // A cursor that gives an error does not come back; what is above it on the stack goes on.
        let Some(mut cursor) = self.stack.pop() else { return Ok(Step::End) };
        let offset = cursor.offset();
        let Some(key) = cursor.peek().map_err(|problem| self.reader.damaged(offset, problem))? else {
            return Ok(Step::Moved);
        };
        if self.to.as_ref().is_some_and(|to| key >= to.as_slice()) {
            self.stack.clear();
            return Ok(Step::End);
        }
        if cursor.is_index() { self.step_down(cursor) } else { self.step_on(cursor) }
    }

    /// From a line of an index to the block that it names.
    fn step_down(&mut self, mut cursor: Cursor) -> Result<Step> {
        let kind = cursor.kind() - 1;
        let line =
            cursor.take_child_for(&self.from).map_err(|problem| self.reader.damaged(cursor.offset(), problem))?;
        self.stack.push(cursor);
        self.open(kind, line.offset, Some(&line))?;
        Ok(Step::Moved)
    }

    /// To the next entry of a block of records.
    fn step_on(&mut self, mut cursor: Cursor) -> Result<Step> {
        let offset = cursor.offset();
        let damaged = |problem: String| self.reader.damaged(offset, problem);
        let Some(key) = cursor.peek().map_err(damaged)? else { return Ok(Step::Moved) };
        if key <= self.last.as_slice() {
            return Err(damaged(format!("its key {} is not behind {}", hex(key), hex(&self.last))));
        }
        self.last.clear();
        self.last.extend_from_slice(key);
        let is_wanted = key >= self.from.as_slice();
        let entry = cursor.take_entry().map_err(damaged)?;
        self.stack.push(cursor);
        Ok(entry.filter(|_| is_wanted).map_or(Step::Moved, Step::Entry))
    }

    /// Goes down to a block, which `line` of the index names.
    fn open(&mut self, kind: u8, offset: u64, line: Option<&Child>) -> Result<()> {
        let damaged = |problem: String| self.reader.damaged(offset, problem);
        let before = &mut self.opened[usize::from(kind)];
        if offset <= *before {
            return Err(damaged(format!("the index names it behind the block at {before}")));
        }
        *before = offset;
        let mut cursor = Cursor::new(self.reader.load(kind, offset)?);
        let Some(first) = cursor.peek().map_err(damaged)? else { return Err(damaged("it is empty".into())) };
        if let Some(line) = line
            && line.first != first
        {
            return Err(damaged(format!("it begins with key {} instead of {}", hex(first), hex(&line.first))));
        }
        self.stack.push(cursor);
        Ok(())
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        loop {
            match self.step() {
                Ok(Step::Entry(entry)) => return Some(Ok(entry)),
                Ok(Step::Moved) => {}
                Ok(Step::End) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
