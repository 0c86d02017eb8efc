//! The bytes of one file, in pages; what was never written takes no room.

use std::collections::BTreeMap;
use std::sync::Arc;

pub const PAGE: u64 = 4096;

#[derive(Clone, Default)]
pub struct Bytes {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE as usize]>>,
}

/// Splits a range of bytes at the borders of pages: (page, first byte within it, length).
fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut at = offset;
    std::iter::from_fn(move || {
        let left = offset + len - at;
        let within = at % PAGE;
        let piece = (at / PAGE, within as usize, left.min(PAGE - within) as usize);
        at += piece.2 as u64;
        (left > 0).then_some(piece)
    })
}

impl Bytes {
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Room taken, in bytes.
    pub fn room(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }

    pub fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let len = len.min(self.len.saturating_sub(offset));
        let mut out = Vec::with_capacity(len as usize);
        for (page, within, count) in pieces(offset, len) {
            match self.pages.get(&page) {
                Some(bytes) => out.extend_from_slice(&bytes[within..within + count]),
                None => out.resize(out.len() + count, 0),
            }
        }
        out
    }

    fn page(&mut self, page: u64) -> &mut [u8; PAGE as usize] {
        Arc::make_mut(self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE as usize])))
    }

    /// Writes; a file that is too short grows.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let mut rest = data;
        for (page, within, count) in pieces(offset, data.len() as u64) {
            let (piece, after) = rest.split_at(count);
            self.page(page)[within..within + count].copy_from_slice(piece);
            rest = after;
        }
        self.len = self.len.max(offset + data.len() as u64);
    }

    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.punch(len, self.len - len);
            self.pages.split_off(&len.div_ceil(PAGE));
        }
        self.len = len;
    }

    /// Takes room for a range, which goes on reading as it did.
    pub fn allocate(&mut self, offset: u64, len: u64) {
        let empty = Arc::new([0; PAGE as usize]);
        for (page, _, _) in pieces(offset, len) {
            self.pages.entry(page).or_insert_with(|| empty.clone());
        }
    }

    /// Gives the room of a range back; it reads as zeros.
    pub fn punch(&mut self, offset: u64, len: u64) {
        for (page, within, count) in pieces(offset, len) {
            if count == PAGE as usize {
                self.pages.remove(&page);
            } else if self.pages.contains_key(&page) {
                self.page(page)[within..within + count].fill(0);
            }
        }
    }

    /// Room that a change of this range would take beyond what the file has, in bytes.
    pub fn missing(&self, offset: u64, len: u64) -> u64 {
        pieces(offset, len).filter(|(page, _, _)| !self.pages.contains_key(page)).count() as u64 * PAGE
    }
}
