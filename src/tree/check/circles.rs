//! Directories that are in each other, so that no way leads to them from the root.

use super::super::{Entry, Kind, is_root};
use crate::device::InodeNo;
use std::collections::HashMap;

/// Members of a circle that are told.
const SHOWN_MAX: usize = 8;

/// In which directory each directory is, as entries say.
#[derive(Default)]
pub struct Above(HashMap<InodeNo, InodeNo>);

impl Above {
    pub fn add(&mut self, directory: InodeNo, entry: &Entry) {
        if entry.kind == Kind::Directory {
            self.0.insert(entry.inode, directory);
        }
    }
}

/// The circles that these directories make, each from its smallest number on.
pub fn circles(Above(above): &Above) -> Vec<Vec<InodeNo>> {
    let mut found = Vec::new();
    // Whether those that were met are on the way from where the walk under way began.
    let mut met: HashMap<InodeNo, bool> = HashMap::new();
    let mut way = Vec::new();
    let mut all: Vec<InodeNo> = above.keys().copied().collect();
    all.sort_unstable();
    for mut at in all {
        while !is_root(at) && !met.contains_key(&at) {
            met.insert(at, true);
            way.push(at);
            match above.get(&at) {
                Some(directory) => at = *directory,
                // It has no name, which is said elsewhere.
                None => break,
            }
        }
        let has_come_back = way.last().is_some_and(|last| above.get(last) == Some(&at)) && met.get(&at) == Some(&true);
        if let (true, Some(start)) = (has_come_back, way.iter().position(|member| *member == at)) {
            let mut circle = way[start..].to_vec();
            let least = circle.iter().enumerate().min_by_key(|(_, member)| **member).map_or(0, |(place, _)| place);
            circle.rotate_left(least);
            found.push(circle);
        }
        for member in way.drain(..) {
            met.insert(member, false);
        }
    }
    found.sort_unstable();
    found
}

/// What is wrong with directories that are in a circle.
pub fn circle_problem(circle: &[InodeNo]) -> String {
    let mut numbers: Vec<String> = circle.iter().take(SHOWN_MAX).map(|member| member.number().to_string()).collect();
    if circle.len() > SHOWN_MAX {
        numbers.push(format!("and {} more", circle.len() - SHOWN_MAX));
    }
    match circle {
        [one] => format!("directory {} is in itself: no way leads to it from the root", one.number()),
        _ => format!("directories {} are in each other: no way leads to them from the root", numbers.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::LIVE;

    #[test]
    fn each_circle_is_found_once() {
        let inode = |number| InodeNo::new(LIVE, number);
        let above = |pairs: &[(u64, u64)]| Above(pairs.iter().map(|(a, b)| (inode(*a), inode(*b))).collect());
        assert!(circles(&above(&[(3, 2), (4, 3), (5, 4), (6, 9)])).is_empty());
        assert_eq!(circles(&above(&[(3, 3), (4, 3), (5, 4)])), [[inode(3)]]);
        let two = above(&[(3, 2), (9, 7), (7, 8), (8, 9), (4, 8), (5, 6), (6, 5), (10, 4)]);
        assert_eq!(circles(&two), [[5, 6].map(inode).to_vec(), [7, 8, 9].map(inode).to_vec()]);
        let many: Vec<_> = (3..100_000).map(|number| (number, number + 1)).chain([(100_000, 3)]).collect();
        assert_eq!(circles(&above(&many)).len(), 1);
    }
}
