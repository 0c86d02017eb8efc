//! The index of a moment while it is written: entries become leaves, leaves lines of nodes, and so on to the root.
//!
//! ```text
//! entry ─▶ open leaf ─▶ waiting ─▶ next() ─▶ written ─▶ line(1) ─▶ open node ─▶ waiting …
//! node of an earlier set ──────▶ waiting ─────────────▶ line(level + 1)
//! ```
//!
//! Invariants:
//! - what waits is in the order of keys, and is written in that order;
//! - no leaf or node is larger than twice its size, nor smaller than half, but for a last one and those beside what was kept.

use super::node::{Entry, Line, Place, weight};
use crate::limits::{SET_LEAF_BYTES, SET_NODE_LINES, SET_WAITING_LEAVES};
use std::collections::VecDeque;

/// What is to be written next.
pub(super) enum Step {
    Leaf(Vec<Entry<Place>>),
    /// Of the level over leaves, which is 1, or of one above.
    Inner(usize, Vec<Line>),
}

enum Waiting {
    Leaf(Vec<Entry<Place>>),
    /// A node of a level that was taken over; leaves are 0.
    Node(usize, Line),
}

#[derive(Default)]
pub(super) struct Builder {
    leaf: Vec<Entry<Place>>,
    bytes: usize,
    waiting: VecDeque<Waiting>,
    /// Open nodes, of level 1 first.
    levels: Vec<Vec<Line>>,
    /// Nodes that are to be written before anything that waits.
    ready: VecDeque<Step>,
    has_ended: bool,
}

impl Builder {
    pub fn entry(&mut self, entry: Entry<Place>) {
        self.bytes += weight(&entry);
        self.leaf.push(entry);
        if self.bytes >= 2 * SET_LEAF_BYTES {
            self.close_leaf(true);
        }
    }

    /// A node of a level that lies in an earlier set.
    pub fn node(&mut self, level: usize, line: Line) {
        self.close_leaf(false);
        self.waiting.push_back(Waiting::Node(level, line));
    }

    pub fn is_leaf_small(&self) -> bool {
        !self.leaf.is_empty() && self.bytes < SET_LEAF_BYTES / 4
    }

    /// Whether so much waits for a unit that this had better be written, however small it is.
    pub fn waits_for_much(&self) -> bool {
        self.waiting.len() >= SET_WAITING_LEAVES
    }

    /// Parts what is in the leaf into leaves of about one size; with `goes_on`, one of them stays open.
    fn close_leaf(&mut self, goes_on: bool) {
        if self.leaf.is_empty() {
            return;
        }
        let parts = if goes_on { 2 } else { self.bytes.div_ceil(SET_LEAF_BYTES).max(1) };
        let (mut leaf, whole) = (Vec::new(), self.bytes);
        let (mut done, mut closed) = (0, 0);
        for entry in std::mem::take(&mut self.leaf) {
            done += weight(&entry);
            leaf.push(entry);
            if closed + 1 < parts && done * parts >= whole * (closed + 1) {
                self.waiting.push_back(Waiting::Leaf(std::mem::take(&mut leaf)));
                closed += 1;
            }
        }
        if goes_on {
            self.bytes = leaf.iter().map(weight).sum();
            self.leaf = leaf;
            return;
        }
        self.bytes = 0;
        if !leaf.is_empty() {
            self.waiting.push_back(Waiting::Leaf(leaf));
        }
    }

    /// Nothing more comes.
    pub fn end(&mut self) {
        self.close_leaf(false);
        self.has_ended = true;
    }

    /// Tells where the tracks of all entries are that wait.
    pub fn resolve(&mut self, place: impl Fn(&mut Place)) {
        let waiting = self.waiting.iter_mut().filter_map(|waiting| match waiting {
            Waiting::Leaf(leaf) => Some(leaf),
            Waiting::Node(..) => None,
        });
        for entry in waiting.flatten().chain(&mut self.leaf) {
            if let super::Value::Track { place: at, .. } = &mut entry.value {
                place(at);
            }
        }
    }

    /// The next leaf or node to be written; the caller tells the line of it.
    pub fn next(&mut self) -> Option<Step> {
        loop {
            if let Some(step) = self.ready.pop_front() {
                return Some(step);
            }
            match self.waiting.pop_front()? {
                Waiting::Leaf(entries) => return Some(Step::Leaf(entries)),
                Waiting::Node(level, line) => {
                    // What is open below it comes before.
                    if let Some(open) = (1..=level).find(|level| self.open(*level).is_some_and(|open| !open.is_empty()))
                    {
                        self.waiting.push_front(Waiting::Node(level, line));
                        self.close(open, false);
                    } else {
                        self.line(level + 1, line);
                    }
                }
            }
        }
    }

    fn open(&self, level: usize) -> Option<&Vec<Line>> {
        self.levels.get(level - 1)
    }

    /// A line for a node of the level below.
    pub fn line(&mut self, level: usize, line: Line) {
        while self.levels.len() < level {
            self.levels.push(Vec::new());
        }
        self.levels[level - 1].push(line);
        if self.levels[level - 1].len() >= 2 * SET_NODE_LINES {
            self.close(level, true);
        }
    }

    /// Parts what a level has into nodes of about one size; with `goes_on`, one of them stays open.
    fn close(&mut self, level: usize, goes_on: bool) {
        let mut lines = std::mem::take(&mut self.levels[level - 1]);
        let parts = if goes_on { 2 } else { lines.len().div_ceil(SET_NODE_LINES).max(1) };
        for left in (1..=parts).rev() {
            if left == 1 && goes_on {
                self.levels[level - 1] = lines;
                return;
            }
            let rest = lines.split_off(lines.len().div_ceil(left));
            self.ready.push_back(Step::Inner(level, std::mem::replace(&mut lines, rest)));
        }
    }

    /// When nothing waits any more: the level and the line of the node that leads to all, if there is any; an error while
    /// something is to be written before.
    pub fn root(&mut self) -> Result<Option<(usize, Line)>, ()> {
        debug_assert!(self.has_ended && self.waiting.is_empty() && self.leaf.is_empty());
        if !self.ready.is_empty() {
            return Err(());
        }
        let Some(lowest) = self.levels.iter().position(|lines| !lines.is_empty()) else { return Ok(None) };
        let is_top = self.levels[lowest + 1..].iter().all(Vec::is_empty);
        if is_top && let [line] = &self.levels[lowest][..] {
            return Ok(Some((lowest, line.clone())));
        }
        self.close(lowest + 1, false);
        Err(())
    }
}
