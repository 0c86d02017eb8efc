//! Looking into moments: keys, ranges of keys, and the bytes of tracks, through the sets that they lie in.

use super::cache::Cache;
use super::layout::{DATA, KIND_MAX, LEAF};
use super::node::{Entry, Line, Node, Place, Value, decode_inner, decode_leaf};
use super::{Root, Seal, SetFile, object_name};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::limits::{
    REVERSE_DATA_CACHE_BYTES, REVERSE_NODE_CACHE_BYTES, SET_DATA_CACHE_BYTES, SET_FILES_MAX, SET_NODE_CACHE_BYTES,
};
use crate::media::Shelf;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where the bytes of a track begin, whoever names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Spot {
    pub set: Id,
    pub offset: u64,
    pub stored: u32,
    pub at: u32,
}

/// The sets of a shelf that were sealed alike.
pub struct Sets {
    shelf: Arc<dyn Shelf>,
    seal: Seal,
    /// Reverse sets are no moments.
    is_reverse: bool,
    files: Cache<SetFile>,
    nodes: Cache<Node>,
    data: Cache<Vec<u8>>,
    /// One for some frames each: nobody reads one that somebody is reading.
    turns: [Mutex<()>; TURNS],
}

const TURNS: usize = 64;

/// A key, and what it is in two moments.
pub type Differing = (Vec<u8>, Option<Entry<Spot>>, Option<Entry<Spot>>);

/// A node that is to be looked into.
#[derive(Clone)]
pub(super) struct At {
    /// Which set says so, for what it names.
    pub file: Arc<SetFile>,
    pub offset: u64,
    pub stored: u32,
    pub kind: u8,
}

impl Sets {
    pub fn new(shelf: Arc<dyn Shelf>, seal: Seal) -> Sets {
        Sets::with(shelf, seal, (SET_NODE_CACHE_BYTES, SET_DATA_CACHE_BYTES), false)
    }

    /// A reverse set, of which there can be many at once: so little of each is kept in memory.
    pub fn reverse(shelf: Arc<dyn Shelf>) -> Sets {
        Sets::with(shelf, Seal::plain(), (REVERSE_NODE_CACHE_BYTES, REVERSE_DATA_CACHE_BYTES), true)
    }

    fn with(shelf: Arc<dyn Shelf>, seal: Seal, (nodes, data): (usize, usize), is_reverse: bool) -> Sets {
        let (nodes, data) = (Cache::new(nodes), Cache::new(data));
        let turns = [const { Mutex::new(()) }; TURNS];
        Sets { shelf, seal, is_reverse, files: Cache::new(SET_FILES_MAX), nodes, data, turns }
    }

    pub fn shelf(&self) -> &Arc<dyn Shelf> {
        &self.shelf
    }

    pub fn seal(&self) -> &Seal {
        &self.seal
    }

    /// The set of an id.
    pub fn file(&self, id: Id) -> Result<Arc<SetFile>> {
        if let Some(found) = self.files.get((id, 0)) {
            return Ok(found);
        }
        let file = Arc::new(SetFile::open(&*self.shelf, id, &self.seal)?);
        if file.header().reverse.is_some() != self.is_reverse {
            let is = if self.is_reverse {
                "a moment, and no increment"
            } else {
                "an increment of an archive, and no moment"
            };
            return Err(Error::Store(format!("{} is {is}", self.shelf.path_of(&object_name(id)))));
        }
        self.files.put((id, 0), file.clone(), 1);
        Ok(file)
    }

    /// Forgets what was read: sets may have come and gone.
    pub fn forget(&self) {
        self.files.clear();
        self.nodes.clear();
        self.data.clear();
    }

    /// Where the index of a set's moment begins, if there is anything in it.
    pub(super) fn root(&self, moment: Id) -> Result<Option<At>> {
        let file = self.file(moment)?;
        let Some(Root { set, kind, offset, stored }) = file.foot().root else { return Ok(None) };
        Ok(Some(At { file: self.file(file.set(set)?)?, offset, stored, kind }))
    }

    /// A node that a line leads to, of the level below one.
    pub(super) fn below(&self, above: &At, line: &Line) -> Result<At> {
        let file = self.file(above.file.set(line.set)?)?;
        Ok(At { file, offset: line.offset, stored: line.stored, kind: above.kind - 1 })
    }

    pub(super) fn node(&self, at: &At) -> Result<Arc<Node>> {
        let address = (at.file.id(), at.offset);
        if let Some(found) = self.nodes.get(address)
            && matches!(*found, Node::Leaf(_)) == (at.kind == LEAF)
        {
            return Ok(found);
        }
        if !(LEAF..=KIND_MAX).contains(&at.kind) {
            return Err(at.file.damaged(at.offset, "it is no node of an index"));
        }
        let content = at.file.frame(at.offset, at.stored, at.kind)?;
        let decoded = if at.kind == LEAF { decode_leaf(&content) } else { decode_inner(&content) };
        let node = Arc::new(decoded.map_err(|problem| at.file.damaged(at.offset, problem))?);
        self.nodes.put(address, node.clone(), node.memory());
        Ok(node)
    }

    /// What a key is at the moment of a set.
    pub fn find(&self, moment: Id, key: &[u8]) -> Result<Option<Entry<Spot>>> {
        let Some(mut at) = self.root(moment)? else { return Ok(None) };
        loop {
            let next = match &*self.node(&at)? {
                Node::Leaf(entries) => {
                    let found = entries.binary_search_by(|entry| entry.key.as_slice().cmp(key));
                    return found.ok().map(|found| with_spot(&at.file, &entries[found])).transpose();
                }
                Node::Inner(lines) => match lines.partition_point(|line| line.first.as_slice() <= key).checked_sub(1) {
                    Some(found) => self.below(&at, &lines[found])?,
                    None => return Ok(None),
                },
            };
            at = next;
        }
    }

    /// The entries of the moment of a set from a key on, up to another, which is not among them.
    pub fn scan(&self, moment: Id, from: &[u8], to: &[u8]) -> Result<Scan<'_>> {
        let open = |at| Open { at, next: 0, first: Vec::new(), end: None };
        let stack = self.root(moment)?.map(open).into_iter().collect();
        Ok(Scan { sets: self, stack, from: from.to_vec(), to: to.to_vec(), has_begun: false })
    }

    /// Calls `each` with every key that may differ between the moments of two sets: those of leaves that these do not share. Nodes
    /// that they share are not read.
    pub fn differing(&self, one: Id, other: Id, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut sides = [one, other].map(|_| BTreeMap::new());
        for (side, moment) in sides.iter_mut().zip([one, other]) {
            if let Some(At { file, offset, stored, kind }) = self.root(moment)? {
                side.insert((file.id(), offset), (stored, kind));
            }
        }
        for level in (LEAF..=KIND_MAX).rev() {
            let [before, after] = &mut sides;
            let shared: Vec<_> = before.keys().filter(|node| after.contains_key(*node)).copied().collect();
            for node in &shared {
                before.remove(node);
                after.remove(node);
            }
            for side in &mut sides {
                let nodes: Vec<_> =
                    side.iter().filter(|(_, (_, kind))| *kind == level).map(|(at, is)| (*at, *is)).collect();
                for (at, _) in &nodes {
                    side.remove(at);
                }
                for ((set, offset), (stored, kind)) in nodes {
                    let at = At { file: self.file(set)?, offset, stored, kind };
                    match &*self.node(&at)? {
                        Node::Leaf(entries) => entries.iter().try_for_each(|entry| each(&entry.key))?,
                        Node::Inner(lines) => {
                            for line in lines {
                                side.insert((at.file.set(line.set)?, line.offset), (line.stored, kind - 1));
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Every key that differs between the moments of two sets, in order, and what it is in one and in the other.
    pub fn differences(&self, one: Id, other: Id) -> Result<impl Iterator<Item = Result<Differing>> + use<'_>> {
        let mut keys = BTreeSet::new();
        self.differing(one, other, &mut |key| {
            keys.insert(key.to_vec());
            Ok(())
        })?;
        let found = move |key: Vec<u8>| {
            let (was, is) = (self.find(one, &key)?, self.find(other, &key)?);
            Ok((was != is).then_some((key, was, is)))
        };
        Ok(keys.into_iter().filter_map(move |key| found(key).transpose()))
    }

    /// The bytes of a track.
    pub fn read(&self, spot: &Spot, len: u32) -> Result<Vec<u8>> {
        let file = self.file(spot.set)?;
        let address = (spot.set, spot.offset);
        let data = match self.data.get(address) {
            Some(found) => found,
            None => {
                // Who wants the same waits for it.
                let _turn = self.turns[address.1 as usize / 4096 % TURNS].lock();
                match self.data.get(address) {
                    Some(found) => found,
                    None => {
                        let content = Arc::new(file.frame(spot.offset, spot.stored, DATA)?);
                        self.data.put(address, content.clone(), content.len());
                        content
                    }
                }
            }
        };
        let found = data.get(spot.at as usize..).and_then(|rest| rest.get(..len as usize));
        let ends = || file.damaged(spot.offset, format!("{len} bytes are said to be at {} of {}", spot.at, data.len()));
        found.map(<[u8]>::to_vec).ok_or_else(ends)
    }
}

/// An entry as everybody can read it.
pub(super) fn with_spot(file: &SetFile, entry: &Entry<Place>) -> Result<Entry<Spot>> {
    let value = match &entry.value {
        Value::Record(value) => Value::Record(value.clone()),
        Value::Track { len, place } => Value::Track { len: *len, place: file.spot(place)? },
        Value::Lost => Value::Lost,
    };
    Ok(Entry { key: entry.key.clone(), birth: entry.birth, value })
}

/// Entries in the order of their keys. One that cannot be read gives an error, and those behind it still come.
pub struct Scan<'a> {
    sets: &'a Sets,
    /// From the root down: nodes, and what of each comes next.
    stack: Vec<Open>,
    from: Vec<u8>,
    to: Vec<u8>,
    has_begun: bool,
}

/// A node that is being walked through, and where its keys can be: from one on, and before another. So no two lines lead to the same
/// entries, and there is an end, whoever made them.
struct Open {
    at: At,
    next: usize,
    first: Vec<u8>,
    end: Option<Vec<u8>>,
}

impl Open {
    fn can_have(&self, node: &Node) -> bool {
        let (first, last) = match node {
            Node::Leaf(entries) => (entries.first().map(|entry| &entry.key), entries.last().map(|entry| &entry.key)),
            Node::Inner(lines) => (lines.first().map(|line| &line.first), lines.last().map(|line| &line.first)),
        };
        first.is_none_or(|key| *key >= self.first) && last.zip(self.end.as_ref()).is_none_or(|(key, end)| key < end)
    }
}

enum Step {
    Entry(Entry<Spot>),
    Down(Open),
    Up,
    End,
}

impl Scan<'_> {
    fn step(&mut self) -> Result<Option<Entry<Spot>>> {
        loop {
            let Some(open) = self.stack.last() else { return Ok(None) };
            let (at, next) = (open.at.clone(), open.next);
            let node = self.sets.node(&at).and_then(|node| match next > 0 || open.can_have(&node) {
                true => Ok(node),
                false => Err(at.file.damaged(at.offset, "its keys are not those that lead to it")),
            });
            if node.is_err() {
                self.stack.pop();
            }
            let step = match &*node? {
                Node::Leaf(entries) => {
                    let first = if next > 0 { next } else { entries.partition_point(|entry| entry.key < self.from) };
                    match entries.get(first) {
                        Some(entry) if entry.key >= self.to => Step::End,
                        Some(entry) => {
                            self.stack.last_mut().expect("it was there").next = first + 1;
                            Step::Entry(with_spot(&at.file, entry)?)
                        }
                        None => Step::Up,
                    }
                }
                Node::Inner(lines) => {
                    let before = || lines.partition_point(|line| line.first <= self.from).saturating_sub(1);
                    let child = if next > 0 || self.has_begun { next } else { before() };
                    match lines.get(child) {
                        Some(line) if line.first >= self.to => Step::End,
                        Some(line) => {
                            let open = self.stack.last_mut().expect("it was there");
                            open.next = child + 1;
                            let end = lines.get(child + 1).map(|next| &next.first).or(open.end.as_ref()).cloned();
                            Step::Down(Open {
                                at: self.sets.below(&at, line)?,
                                next: 0,
                                first: line.first.clone(),
                                end,
                            })
                        }
                        None => Step::Up,
                    }
                }
            };
            match step {
                Step::Entry(entry) => {
                    self.has_begun = true;
                    return Ok(Some(entry));
                }
                Step::Down(open) => self.stack.push(open),
                Step::Up => drop(self.stack.pop()),
                Step::End => self.stack.clear(),
            }
        }
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<Entry<Spot>>;

    fn next(&mut self) -> Option<Result<Entry<Spot>>> {
        self.step().transpose()
    }
}
