//! How a view's number and an inode's own make one number.
//!
//! ```text
//! 0 … 2^31     the first base as it is now
//! 2^31 … 2^32  short: a view and an inode that fit into 31 bits together
//! from 2^32    long: the view in the high 24 bits, the inode in the low 40
//! ```
//!
//! Programs that know 32 bits only can neither list nor stat what has a long one. So the bits of a short one are shared out
//! in eight ways: 3 bits say how, and each pair has the first way in which it fits. A number stays what it is
//! whatever else comes and goes, and nothing has to be kept to know it.

use super::{KernelNo, VIRTUAL};
use crate::limits::{BASES_MAX, INODE_BITS, VIEWS_PASSING};
use crate::view::{BASE_NUMBERS, ViewNo};

const SHORT: u64 = 1 << 31;
const LONG: u64 = 1 << 32;
/// Bits of a short number behind those that say how they are shared out.
const SHARED_BITS: u32 = 28;
/// Of these, how many are the inode's.
const OWN_BITS: [u32; 8] = [22, 20, 18, 16, 14, 12, 10, 8];

/// A long number of an inode of the first base as it is now, whose own number would be taken for a short one.
const LIVE_ASIDE: u64 = 1 << (INODE_BITS - 1);

const _: () = assert!(LIVE_ASIDE > 2 * BASES_MAX as u64);

/// A view's number with the small ones first, whatever kind it is of.
fn packed(way: ViewNo) -> u64 {
    let (kind, number) = match way {
        VIRTUAL => (3, 0),
        VIEWS_PASSING.. => (2, way - VIEWS_PASSING),
        BASE_NUMBERS.. => (1, VIEWS_PASSING - 1 - way),
        _ => (0, way),
    };
    u64::from(number) << 2 | kind
}

fn unpacked(packed: u64) -> ViewNo {
    let number = (packed >> 2) as ViewNo;
    match packed & 3 {
        0 => number,
        1 => VIEWS_PASSING - 1 - number,
        2 => VIEWS_PASSING + number,
        _ => VIRTUAL,
    }
}

/// The number of an inode behind a view's number.
pub(super) fn join(way: ViewNo, own: u64) -> KernelNo {
    KernelNo(match way {
        0 if !(SHORT..LONG).contains(&own) => own,
        0 => u64::from(VIRTUAL) << INODE_BITS | LIVE_ASIDE | own,
        _ => join_view(way, own),
    })
}

fn join_view(way: ViewNo, own: u64) -> u64 {
    let view = packed(way);
    let fits = |own_bits: u32| own >> own_bits == 0 && view >> (SHARED_BITS - own_bits) == 0;
    match OWN_BITS.iter().position(|own_bits| fits(*own_bits)) {
        Some(how) => SHORT | (how as u64) << SHARED_BITS | view << OWN_BITS[how] | own,
        None => u64::from(way) << INODE_BITS | own,
    }
}

/// The view's number and the inode's own.
pub(super) fn split(KernelNo(number): KernelNo) -> (ViewNo, u64) {
    if number < SHORT {
        return (0, number);
    }
    if number < LONG {
        let own_bits = OWN_BITS[(number >> SHARED_BITS & 7) as usize];
        let shared = number & ((1 << SHARED_BITS) - 1);
        return (unpacked(shared >> own_bits), shared & ((1 << own_bits) - 1));
    }
    let (way, own) = ((number >> INODE_BITS) as ViewNo, number & ((1 << INODE_BITS) - 1));
    match way {
        VIRTUAL if own & LIVE_ASIDE != 0 => (0, own & !LIVE_ASIDE),
        _ => (way, own),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::VIEW_BITS;
    use std::collections::HashMap;

    /// Numbers around every border.
    fn edges(bits: u32) -> impl Iterator<Item = u64> {
        let around = |bit: u32| [(1u64 << bit).saturating_sub(1), 1 << bit, (1 << bit) + 1];
        (0..bits).flat_map(around).chain([(1 << bits) - 1])
    }

    #[test]
    fn every_pair_has_a_number_of_its_own_that_leads_back() {
        let mut seen = HashMap::new();
        let mut ways: Vec<ViewNo> = edges(VIEW_BITS).map(|way| way as ViewNo).collect();
        ways.extend((0..4).flat_map(|i| [BASE_NUMBERS + i, VIEWS_PASSING - 1 - i, VIEWS_PASSING + i, VIRTUAL - i]));
        for way in ways {
            for own in edges(INODE_BITS).filter(|own| way != VIRTUAL || *own < LIVE_ASIDE) {
                let number = join(way, own);
                assert_eq!(split(number), (way, own), "{number:x?}");
                assert_eq!(*seen.entry(number).or_insert((way, own)), (way, own), "{number:x?}");
            }
        }
    }

    #[test]
    fn what_is_small_fits_into_32_bits_and_live_keeps_its_numbers() {
        assert_eq!(join(0, 77), KernelNo(77));
        let clone = VIEWS_PASSING - 3;
        let door = VIEWS_PASSING + 5;
        for (way, own) in
            [(15, 4_000_000), (60, 1_000_000), (1000, 60_000), (4000, 16_000), (200_000, 200), (clone, 1_000_000)]
        {
            assert!(join(way, own).0 < LONG, "{way} {own}");
        }
        assert!(join(door, 500_000).0 < LONG && join(VIRTUAL, u64::from(BASES_MAX) + 1000).0 < LONG);
        assert!(join(5, 1 << 30).0 >= LONG);
    }
}
