//! Numbers that are given out while the store is mounted, and taken back when the kernel has forgotten them.
//!
//! ```text
//! given ──hold()──▶ held ──forget()──▶ not held ──sweep()──▶ free
//!   └──────────────────────────────────────▲
//! ```

use crate::limits::{BASES_MAX, VIEWS_PASSING};
use crate::view::{Door, View, ViewNo, Virtual};
use std::collections::{BTreeSet, HashMap, HashSet};

/// What a number is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    /// A virtual node, by its own number.
    Node(u64),
    /// A view behind a door.
    Way(ViewNo),
}

#[derive(Default)]
pub(super) struct Given {
    numbers: HashMap<Virtual, u64>,
    nodes: HashMap<u64, Virtual>,
    ways: HashMap<(View, Door), ViewNo>,
    doors: HashMap<ViewNo, (View, Door)>,
    /// How often the kernel was told of each and has not forgotten it.
    held: HashMap<What, u64>,
    not_held: HashSet<What>,
    free_nodes: BTreeSet<u64>,
    free_ways: BTreeSet<ViewNo>,
}

impl Given {
    /// The way through a door; none where all numbers are given.
    pub(super) fn way(&mut self, view: View, door: Door) -> Option<ViewNo> {
        if let Some(way) = self.ways.get(&(view, door)) {
            return Some(*way);
        }
        // What is not free is given.
        let new = VIEWS_PASSING + self.ways.len() as ViewNo;
        let way = self.free_ways.pop_first().or((new < super::VIRTUAL).then_some(new))?;
        self.ways.insert((view, door), way);
        self.doors.insert(way, (view, door));
        self.not_held.insert(What::Way(way));
        Some(way)
    }

    /// The own number of a node.
    pub(super) fn own(&mut self, node: &Virtual) -> u64 {
        if let Some(own) = self.numbers.get(node) {
            return *own;
        }
        let own = self.free_nodes.pop_first().unwrap_or(u64::from(BASES_MAX) + self.nodes.len() as u64);
        self.numbers.insert(node.clone(), own);
        self.nodes.insert(own, node.clone());
        self.not_held.insert(What::Node(own));
        own
    }

    pub(super) fn node(&self, own: u64) -> Option<Virtual> {
        self.nodes.get(&own).cloned()
    }

    pub(super) fn has(&self, node: &Virtual) -> bool {
        self.numbers.contains_key(node)
    }

    pub(super) fn renumber(&mut self, node: &Virtual) {
        self.numbers.remove(node);
    }

    pub(super) fn hold(&mut self, what: What) {
        *self.held.entry(what).or_default() += 1;
        self.not_held.remove(&what);
    }

    /// Whether the kernel does not know it any more.
    pub(super) fn forget(&mut self, what: What, count: u64) -> bool {
        let Some(held) = self.held.get_mut(&what) else { return false };
        *held = held.saturating_sub(count);
        if *held > 0 {
            return false;
        }
        self.held.remove(&what);
        self.not_held.insert(what);
        true
    }

    /// Takes back all that is not held; the ways among it.
    pub(super) fn sweep(&mut self) -> Vec<ViewNo> {
        let mut ways = Vec::new();
        for what in std::mem::take(&mut self.not_held) {
            match what {
                What::Node(own) => {
                    if let Some(node) = self.nodes.remove(&own)
                        && self.numbers.get(&node) == Some(&own)
                    {
                        self.numbers.remove(&node);
                    }
                    self.free_nodes.insert(own);
                }
                What::Way(way) => {
                    if let Some(door) = self.doors.remove(&way) {
                        self.ways.remove(&door);
                    }
                    self.free_ways.insert(way);
                    ways.push(way);
                }
            }
        }
        ways
    }

    /// How many ways and nodes are given.
    #[cfg(test)]
    pub(super) fn count(&self) -> (usize, usize) {
        (self.ways.len(), self.nodes.len())
    }
}
