//! Tracks in memory: what was written and has no place on the media yet.

use crate::limits::BLOCK_BYTES;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A track that is dirty or being flushed.
#[derive(Clone, Debug)]
pub(super) enum Dirty {
    /// All that the track holds; zeros follow to its end.
    Whole(Arc<Vec<u8>>),
    /// Sections to be laid over what the track held before.
    Patched(Arc<Patches>),
}

impl Dirty {
    pub fn bytes(&self) -> usize {
        match self {
            Dirty::Whole(bytes) => bytes.len(),
            Dirty::Patched(patches) => patches.bytes,
        }
    }

    /// Whether both are the same, not only alike.
    pub fn is(&self, other: &Dirty) -> bool {
        match (self, other) {
            (Dirty::Whole(a), Dirty::Whole(b)) => Arc::ptr_eq(a, b),
            (Dirty::Patched(a), Dirty::Patched(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// Sections of one track that neither overlap nor touch, by their first byte.
#[derive(Clone, Debug, Default)]
pub struct Patches {
    sections: BTreeMap<usize, Vec<u8>>,
    bytes: usize,
}

impl Patches {
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.sections.iter().map(|(at, bytes)| (*at, bytes.as_slice()))
    }

    /// The end of the last section.
    pub fn end(&self) -> usize {
        self.sections.last_key_value().map_or(0, |(at, bytes)| at + bytes.len())
    }

    /// Blocks that the sections take when each is stored by itself.
    pub fn blocks(&self) -> usize {
        self.sections.values().map(|bytes| bytes.len().div_ceil(BLOCK_BYTES)).sum()
    }

    /// How many sections there are.
    pub fn count(&self) -> usize {
        self.sections.len()
    }

    pub fn write(&mut self, at: usize, data: &[u8]) {
        let end = at + data.len();
        // The last section that begins at or before `at` takes it up, if it reaches that far.
        let first = match self.sections.range_mut(..=at).next_back() {
            Some((&start, bytes)) if start + bytes.len() >= at => {
                let overlap = (start + bytes.len()).min(end) - at;
                bytes[at - start..at - start + overlap].copy_from_slice(&data[..overlap]);
                bytes.extend_from_slice(&data[overlap..]);
                self.bytes += data.len() - overlap;
                start
            }
            _ => {
                self.bytes += data.len();
                self.sections.insert(at, data.to_vec());
                at
            }
        };
        // Sections that the new bytes reach become part of it.
        while let Some((&next, _)) = self.sections.range(first + 1..=end).next() {
            let bytes = self.sections.remove(&next).unwrap_or_default();
            let covered = bytes.len().min(end - next);
            self.bytes -= covered;
            if let Some(section) = self.sections.get_mut(&first) {
                section.extend_from_slice(&bytes[covered..]);
            }
        }
    }

    /// Copies these sections over what `out`, which begins at `start` in the track, holds.
    pub fn lay_over(&self, start: usize, out: &mut [u8]) {
        for (at, bytes) in self.iter() {
            lay_over(at, bytes, start, out);
        }
    }

    /// The bytes of a range, if one section has them all.
    pub fn get(&self, range: &Range<usize>) -> Option<&[u8]> {
        let (start, bytes) = self.sections.range(..=range.start).next_back()?;
        bytes.get(range.start - start..range.end - start)
    }

    /// Whether a section lies in the range, or a part of one.
    pub fn touches(&self, range: &Range<usize>) -> bool {
        self.sections.range(..range.end).next_back().is_some_and(|(at, bytes)| at + bytes.len() > range.start)
    }
}

/// Copies the part of `bytes`, which begins at `at` in the track, that lies in `out`, which begins at `start`.
pub(super) fn lay_over(at: usize, bytes: &[u8], start: usize, out: &mut [u8]) {
    let from = at.max(start);
    let to = (at + bytes.len()).min(start + out.len());
    if from < to {
        out[from - start..to - start].copy_from_slice(&bytes[from - at..to - at]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn patches_hold_what_was_written_last(writes in prop::collection::vec((0usize..300, 1usize..80), 1..40)) {
            let mut patches = Patches::default();
            let mut expected = vec![None; 400];
            for (i, (at, len)) in writes.iter().enumerate() {
                patches.write(*at, &vec![i as u8 + 1; *len]);
                expected[*at..at + len].fill(Some(i as u8 + 1));
            }
            let mut out = vec![0; 400];
            patches.lay_over(0, &mut out);
            let shown: Vec<u8> = expected.iter().map(|byte| byte.unwrap_or(0)).collect();
            prop_assert_eq!(&out, &shown);
            prop_assert_eq!(patches.bytes, expected.iter().flatten().count());
            prop_assert_eq!(patches.bytes, patches.iter().map(|(_, bytes)| bytes.len()).sum::<usize>());
            let mut end = None;
            for (at, bytes) in patches.iter() {
                prop_assert!(end.is_none_or(|end| at > end), "sections touch");
                end = Some(at + bytes.len());
                prop_assert_eq!(patches.get(&(at..at + bytes.len())), Some(bytes));
            }
            for start in (0..390).step_by(7) {
                let range = start..start + 10;
                prop_assert_eq!(patches.touches(&range), expected[range].iter().any(Option::is_some));
            }
        }
    }
}
