//! The kinds of numbers that records have, and how keys begin with them.

use crate::error::{Error, Result};
use crate::limits::{BASES_MAX, INODE_BITS};
use crate::meta::hex;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

const NUMBERS: u64 = 1 << INODE_BITS;

/// A tree that is written to. Numbers are not used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BaseId(u32);

/// The base that every store starts with.
pub const LIVE: BaseId = BaseId(0);

impl BaseId {
    pub const fn new(number: u32) -> BaseId {
        BaseId(number)
    }

    pub const fn number(self) -> u32 {
        self.0
    }

    /// The one whose keys come next.
    pub const fn next(self) -> BaseId {
        BaseId(self.0 + 1)
    }

    /// The beginning of the keys of all of its records.
    pub const fn prefix(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }

    /// The base that the key of a record begins with.
    pub fn of_key(key: &[u8]) -> Result<BaseId> {
        let base = key.first_chunk().map(|base| BaseId(u32::from_be_bytes(*base)));
        base.ok_or_else(|| Error::corrupt(format!("record {}", hex(key)), "its key names no base"))
    }
}

impl fmt::Display for BaseId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// An inode of a base. Stored as one number: the base in the high 24 bits, the inode's own number in the low 40.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InodeNo(u64);

impl InodeNo {
    /// The inode of a base that has this number there, of which 40 bits count.
    pub const fn new(base: BaseId, number: u64) -> InodeNo {
        InodeNo(((base.0 as u64) << INODE_BITS) | (number % NUMBERS))
    }

    pub const fn base(self) -> BaseId {
        BaseId((self.0 >> INODE_BITS) as u32)
    }

    /// The number in its base, which is the same in all that were made of it.
    pub const fn number(self) -> u64 {
        self.0 % NUMBERS
    }

    /// The inode of another base that has the same number there.
    pub const fn in_base(self, base: BaseId) -> InodeNo {
        InodeNo::new(base, self.number())
    }

    /// As a record within a base names it, without the base.
    pub const fn bare(self) -> InodeNo {
        InodeNo(self.number())
    }

    /// The inode that a record within a base names so, if there can be one.
    pub fn from_bare(number: u64) -> Option<InodeNo> {
        (number < NUMBERS).then_some(InodeNo(number))
    }

    pub const fn is_bare(self) -> bool {
        self.0 < NUMBERS
    }

    /// The beginning of the keys of all of its records.
    pub fn prefix(self) -> [u8; 12] {
        let mut key = [0; 12];
        key[..4].copy_from_slice(&self.base().prefix());
        key[4..].copy_from_slice(&self.number().to_be_bytes());
        key
    }

    /// The inode that the key of a record of an inode begins with, if it is one.
    pub fn of_key(key: &[u8]) -> Option<InodeNo> {
        let base = BaseId::of_key(key).ok()?;
        let number = u64::from_be_bytes(key.get(4..12)?.try_into().ok()?);
        (number < NUMBERS && base.0 < BASES_MAX).then(|| InodeNo::new(base, number))
    }

    /// The same where no other key can be.
    pub(in crate::device) fn expect_of_key(key: &[u8]) -> Result<InodeNo> {
        InodeNo::of_key(key).ok_or_else(|| Error::corrupt(format!("record {}", hex(key)), "its key names no inode"))
    }
}

/// For messages: the number, and of what is not in the first base that in front of it.
impl fmt::Display for InodeNo {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.base() {
            LIVE => self.number().fmt(out),
            _ => write!(out, "{self:?}"),
        }
    }
}

/// As base and number, since the one that is stored says nothing to anyone.
impl fmt::Debug for InodeNo {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.base(), self.number())
    }
}

/// A track of a file: the piece of its bytes from this number times the store's size of tracks on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TrackNo(u64);

impl TrackNo {
    pub const FIRST: TrackNo = TrackNo(0);
    /// After all that can be.
    pub const MAX: TrackNo = TrackNo(u64::MAX);
    pub const ALL: Range<TrackNo> = TrackNo(0)..TrackNo(u64::MAX);

    pub const fn new(number: u64) -> TrackNo {
        TrackNo(number)
    }

    pub const fn number(self) -> u64 {
        self.0
    }

    /// The track that has a byte of a file.
    pub const fn of(offset: u64, track_bytes: u64) -> TrackNo {
        TrackNo(offset / track_bytes)
    }

    /// The first track that has nothing of a file of this length.
    pub const fn behind(len: u64, track_bytes: u64) -> TrackNo {
        TrackNo(len.div_ceil(track_bytes))
    }

    /// The first byte of a file that it has.
    pub const fn start(self, track_bytes: u64) -> u64 {
        self.0.saturating_mul(track_bytes)
    }

    /// So many tracks behind it, if there can be one.
    pub const fn plus(self, tracks: u64) -> TrackNo {
        TrackNo(self.0.saturating_add(tracks))
    }

    pub const fn next(self) -> TrackNo {
        self.plus(1)
    }

    /// Each of a range, in order.
    pub fn each(range: Range<TrackNo>) -> impl DoubleEndedIterator<Item = TrackNo> + Clone {
        (range.start.0..range.end.0).map(TrackNo)
    }
}

impl fmt::Display for TrackNo {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// A track of an inode.
pub type TrackKey = (InodeNo, TrackNo);
