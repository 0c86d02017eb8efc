//! Which increments join: each leads from one snapshot to another, and a chain of them to one that a store has.
//!
//! ```text
//!  increment    increment    increment   │ store
//!  from ── to ═ from ── to ═ from ── to ═│ the tip: a snapshot that is there
//!  ◀──────────── can be reached ────────▶│
//! ```
//!
//! Snapshots are told by their ids. Increments of a copy of the store that went its own way lie beside the chain, and so
//! does what is newer than the tip.

use super::{Header, Increment, Leftover, Mark};
use crate::clock::Epoch;
use crate::error::Result;
use crate::id::Id;
use std::collections::HashMap;

/// The newest snapshot that an increment leads to and that is there.
pub(super) fn tip(headers: &[&Header], holds: &dyn Fn(&Mark) -> Result<bool>) -> Result<Option<Mark>> {
    let mut ends: Vec<&Mark> = headers.iter().map(|header| &header.to).collect();
    ends.sort_by_key(|mark| std::cmp::Reverse(mark.epoch));
    for end in ends {
        if holds(end)? {
            return Ok(Some(end.clone()));
        }
    }
    Ok(None)
}

/// Increments of one base, by what they are to a store.
#[derive(Debug, Default)]
pub(super) struct Joined {
    /// Those that join up to the tip, the oldest first.
    pub chain: Vec<Increment>,
    /// Parts that were merged into one of the chain, the oldest first.
    pub leftovers: Vec<Leftover>,
    /// What cannot be reached, the oldest first.
    pub others: Vec<Increment>,
}

impl Joined {
    pub(super) fn of(found: Vec<Increment>, tip: Option<&Mark>) -> Joined {
        let headers: Vec<&Header> = found.iter().map(|one| &one.header).collect();
        let places = tip.map_or(Vec::new(), |tip| chain(&headers, tip.id));
        let mut found: Vec<Option<Increment>> = found.into_iter().map(Some).collect();
        let chain: Vec<Increment> = places.into_iter().filter_map(|at| found[at].take()).collect();
        let mut rest: Vec<Increment> = found.into_iter().flatten().collect();
        rest.sort_by_key(|one| one.header.from.epoch);
        // A part begins or ends within the one that it was merged into.
        let within = |one: &Increment| one.header.merged.clone();
        let merged: HashMap<Id, usize> =
            chain.iter().enumerate().flat_map(|(at, one)| within(one).into_iter().map(move |id| (id, at))).collect();
        let mut joined = Joined::default();
        for one in rest {
            let Header { from, to, .. } = &one.header;
            let into = merged.get(&from.id).or(merged.get(&to.id)).map(|at| &chain[*at]);
            match into.filter(|into| into.header.has_part(&one.header)) {
                Some(into) => joined.leftovers.push(Leftover { increment: one, merged: into.path.clone() }),
                None => joined.others.push(one),
            }
        }
        Joined { chain, ..joined }
    }
}

/// The increments that join up to a snapshot, the oldest first. Where two lead to one snapshot the one with the older
/// history behind it is taken, and of two with the same the one that spans more: it was merged of the others.
pub(super) fn chain(headers: &[&Header], tip: Id) -> Vec<usize> {
    let mut ascending: Vec<usize> = (0..headers.len()).collect();
    ascending.sort_by_key(|at| headers[*at].from.epoch);
    // How far back each leads, and which one leads best to each snapshot.
    let mut best: HashMap<Id, (Epoch, usize)> = HashMap::new();
    for at in ascending {
        let Header { from, to, .. } = headers[at];
        let reaches = best.get(&from.id).map_or(from.epoch, |(reaches, _)| *reaches);
        let is_better = best.get(&to.id).is_none_or(|(other, _)| reaches < *other);
        if is_better {
            best.insert(to.id, (reaches, at));
        }
    }
    let mut chain = Vec::new();
    let mut next = tip;
    let mut before = Epoch::MAX;
    while let Some((_, at)) = best.get(&next) {
        // Ids that contradict the epochs lead in circles.
        if headers[*at].from.epoch >= before {
            break;
        }
        chain.push(*at);
        (before, next) = (headers[*at].from.epoch, headers[*at].from.id);
    }
    chain.reverse();
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::purpose::Purpose;

    fn mark(epoch: u32, history: &str) -> Mark {
        let id = Id::of_parts(history, &[&epoch.to_le_bytes()]);
        let (name, time) = (format!("{history}{epoch}"), Timestamp::default());
        Mark { epoch: Epoch::new(epoch), id, name, time, purpose: Purpose::Plain, offline: false }
    }

    fn increment(from: Mark, to: Mark) -> Header {
        let id = Id::default();
        let (base_name, track_bytes, hash_seed, merged) = (String::new(), 65_536, 1, Vec::new());
        Header { store: id, base_id: id, base: 0, base_name, from, to, track_bytes, hash_seed, merged }
    }

    fn names(headers: &[Header], tip: &Mark) -> Vec<String> {
        let all: Vec<&Header> = headers.iter().collect();
        chain(&all, tip.id).into_iter().map(|at| headers[at].from.name.clone()).collect()
    }

    #[test]
    fn a_chain_ends_where_an_increment_is_missing() {
        let all: Vec<Header> =
            [1, 2, 4, 5].map(|epoch| increment(mark(epoch, "a"), mark(epoch + 1, "a"))).into_iter().collect();
        assert_eq!(names(&all, &mark(6, "a")), ["a4", "a5"]);
        assert_eq!(names(&all, &mark(3, "a")), ["a1", "a2"]);
        assert_eq!(names(&all, &mark(9, "a")), [""; 0]);
    }

    #[test]
    fn the_increments_of_a_copy_are_another_chain() {
        let all = [
            increment(mark(1, "a"), mark(2, "a")),
            increment(mark(2, "a"), mark(3, "a")),
            increment(mark(2, "a"), mark(3, "copy")),
            increment(mark(3, "copy"), mark(4, "copy")),
        ];
        assert_eq!(names(&all, &mark(3, "a")), ["a1", "a2"]);
        assert_eq!(names(&all, &mark(4, "copy")), ["a1", "a2", "copy3"]);
        let headers: Vec<&Header> = all.iter().collect();
        let holds = |wanted: &'static str| move |mark: &Mark| Ok(mark.name == wanted);
        assert_eq!(tip(&headers, &holds("a3")).unwrap(), Some(mark(3, "a")));
        assert_eq!(tip(&headers, &holds("a9")).unwrap(), None);
    }

    #[test]
    fn what_was_merged_is_taken_before_its_parts() {
        let merged = increment(mark(1, "a"), mark(3, "a"));
        let parts = [increment(mark(1, "a"), mark(2, "a")), increment(mark(2, "a"), mark(3, "a"))];
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let all = [merged.clone(), parts[0].clone(), parts[1].clone()];
            let all: Vec<Header> = order.into_iter().map(|at| all[at].clone()).collect();
            let whole: Vec<&Header> = all.iter().collect();
            let found = chain(&whole, mark(3, "a").id);
            assert_eq!(found.len(), 1);
            assert_eq!(all[found[0]], merged);
        }
        // One of the parts is gone already.
        assert_eq!(names(&[parts[1].clone(), merged.clone()], &mark(3, "a")), ["a1"]);
    }

    #[test]
    fn contradicting_ids_end_the_chain() {
        let all = [increment(mark(5, "a"), mark(6, "a")), increment(mark(6, "a"), mark(7, "a")), {
            let mut circle = increment(mark(8, "a"), mark(9, "a"));
            circle.to.id = mark(5, "a").id;
            circle.from.id = mark(7, "a").id;
            circle
        }];
        assert!(names(&all, &mark(7, "a")).len() <= 3);
    }
}
