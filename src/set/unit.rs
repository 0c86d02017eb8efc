//! Tracks that are written together: a label that says whose they are, and their bytes, packed and compressed together.
//!
//! ```text
//! label: number, frames, stored of each frame …, tracks and changes: key, birth, len << 2 | form …
//!        form 0: a record that changed, without its value · 1: a track · 2: what was removed
//! ```
//!
//! A unit can be told by its label alone: of what set it is, the how manieth, and what of the moment is in it. The bytes of the
//! tracks are those of the frames behind it, one behind the other in the order of the label.

use super::layout::{Bytes, DATA, LABEL, START, compress};
use super::node::Place;
use super::seal::Seal;
use crate::clock::Epoch;
use crate::limits::{SET_DATA_BYTES, SET_KEY_BYTES_MAX, SET_UNIT_BYTES, SET_UNIT_TOLD_BYTES, TRACK_BYTES_MAX};
use crate::meta::packed::{put_key, put_number};
use zstd::bulk::Compressor;

/// What a label says of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub key: Vec<u8>,
    pub birth: Epoch,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Record,
    Track { len: u32 },
    Gone,
}

/// What a label says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Label {
    /// Counts the units of a set.
    pub number: u64,
    /// What is stored of each frame.
    pub frames: Vec<u32>,
    /// In ascending order of keys.
    pub told: Vec<Told>,
}

impl Label {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_number(&mut out, self.number);
        put_number(&mut out, self.frames.len() as u64);
        self.frames.iter().for_each(|stored| put_number(&mut out, (*stored).into()));
        let mut before: &[u8] = b"";
        for Told { key, birth, what } in &self.told {
            put_key(&mut out, before, key);
            before = key;
            put_number(&mut out, birth.number().into());
            put_number(
                &mut out,
                match what {
                    What::Record => 0,
                    What::Track { len } => u64::from(*len) << 2 | 1,
                    What::Gone => 2,
                },
            );
        }
        out
    }

    /// What a label says, or what is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Label, String> {
        let mut rest = Bytes(bytes);
        let mut label = Label { number: rest.number()?, ..Label::default() };
        let count = rest.number_below(bytes.len() as u64 + 1, "the number of frames")?;
        for _ in 0..count {
            label.frames.push(rest.number_below(1 << 32, "a length")? as u32);
        }
        while !rest.is_empty() {
            let before: &[u8] = label.told.last().map_or(b"", |told| &told.key);
            let key = rest.key(before, label.told.is_empty(), SET_KEY_BYTES_MAX)?;
            let birth = Epoch::new(rest.number_below(1 << 32, "a birth")? as u32);
            let number = rest.number()?;
            let what = match (number & 3, number >> 2) {
                (0, 0) => What::Record,
                (1, len) if len <= TRACK_BYTES_MAX as u64 => What::Track { len: len as u32 },
                (2, 0) => What::Gone,
                (form, len) => return Err(format!("something has form {form} and {len} bytes")),
            };
            label.told.push(Told { key, birth, what });
        }
        Ok(label)
    }
}

/// A unit that is being filled.
#[derive(Default)]
pub(super) struct Unit {
    number: u64,
    told: Vec<Told>,
    /// Bytes of their keys.
    told_bytes: usize,
    bytes: Vec<u8>,
    /// For each track the frame in which it begins, and the first byte there.
    starts: Vec<(usize, u32)>,
    /// Where each frame begins in `bytes`.
    frames: Vec<usize>,
}

/// Stands for the frame of a track whose unit is not written yet; the place in it is then the track's number in the unit.
pub(super) const OPEN: u64 = u64::MAX;

/// A unit as it is to be written, and where its tracks are then.
pub(super) struct Packed {
    /// Kinds and compressed contents, the label first.
    pub frames: Vec<(u8, Vec<u8>)>,
    pub places: Vec<Place>,
}

impl Unit {
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Whether it has tracks, for which entries wait.
    pub fn has_tracks(&self) -> bool {
        !self.starts.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.bytes.len() >= SET_UNIT_BYTES || self.told_bytes >= SET_UNIT_TOLD_BYTES
    }

    pub fn tell(&mut self, key: &[u8], birth: Epoch, what: What) {
        self.told_bytes += key.len() + 8;
        self.told.push(Told { key: key.to_vec(), birth, what });
    }

    /// Adds a track; where it is, as long as the unit is open.
    pub fn track(&mut self, key: &[u8], birth: Epoch, bytes: &[u8]) -> Place {
        let len = bytes.len() as u32;
        self.tell(key, birth, What::Track { len });
        let is_full = |start: &usize| self.bytes.len() - start + bytes.len() > SET_DATA_BYTES;
        if self.frames.last().is_none_or(is_full) {
            self.frames.push(self.bytes.len());
        }
        let frame = self.frames.len() - 1;
        self.starts.push((frame, (self.bytes.len() - self.frames[frame]) as u32));
        self.bytes.extend_from_slice(bytes);
        Place { set: 0, offset: OPEN, stored: len, at: self.starts.len() as u32 - 1 }
    }

    /// Compresses what there is, to be written from an offset on, and begins the next unit.
    pub fn pack(&mut self, compressor: &mut Compressor<'_>, seal: &Seal, offset: u64) -> Packed {
        let next = Unit { number: self.number + 1, ..Unit::default() };
        let Unit { number, told, bytes, starts, frames, .. } = std::mem::replace(self, next);
        let ends = frames.iter().copied().skip(1).chain([bytes.len()]);
        let contents: Vec<Vec<u8>> =
            frames.iter().zip(ends).map(|(start, end)| compress(compressor, &bytes[*start..end])).collect();
        let whole = |content: &Vec<u8>| content.len() + seal.overhead();
        let label = Label { number, frames: contents.iter().map(|content| whole(content) as u32).collect(), told };
        let stored = label.frames.clone();
        let label = compress(compressor, &label.encode());
        let start = START as u64;
        let mut at = offset + start + whole(&label) as u64;
        let mut offsets = Vec::new();
        for stored in &stored {
            offsets.push(at);
            at += start + u64::from(*stored);
        }
        let place =
            |(frame, at): &(usize, u32)| Place { set: 0, offset: offsets[*frame], stored: stored[*frame], at: *at };
        let places = starts.iter().map(place).collect();
        let frames = std::iter::once((LABEL, label)).chain(contents.into_iter().map(|content| (DATA, content)));
        Packed { frames: frames.collect(), places }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_says_what_is_in_its_unit() {
        let told = |key: &[u8], what| Told { key: key.to_vec(), birth: Epoch::new(5), what };
        let all = vec![told(b"a", What::Record), told(b"b", What::Gone), told(b"c", What::Track { len: 70_000 })];
        let label = Label { number: 7, frames: vec![100, 2_000_000], told: all };
        let bytes = label.encode();
        assert_eq!(Label::decode(&bytes).unwrap(), label);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x81;
            let _any = (Label::decode(&changed), Label::decode(&bytes[..at]));
        }
    }
}
