//! Writing an increment, entry by entry.
//!
//! ```text
//! record, track ──▶ open tracks ──flush_tracks()──▶ block of tracks
//!             └───▶ level 0 ───────close(0)───────▶ block of records
//!                   level 1 ◀── first key, offset ──┘ ──close(1)──▶ block of the index …
//! ```
//!
//! Invariants:
//! - while a block of tracks is open nothing else is written, so that its offset is known before it is: the present
//!   end of the file;
//! - blocks that an open block names are in the file before it;
//! - after a failed write nothing more is taken.

use super::cursor::{NEXT_TRACK, PLACED_TRACK, RECORD};
use super::layout::{
    BLOCK_START, BlockStart, CHECK, FOOTER, Footer, PLAIN, RECORDS, Seed, TRACKS, ZSTD, encode_head, number_at,
};
use super::{Header, Summary};
use crate::archive::temporary_name;
use crate::clock::Epoch;
use crate::error::{Errno, Error, Result};
use crate::limits::{
    ARCHIVE_KEY_BYTES_MAX, ARCHIVE_RECORDS_BYTES, ARCHIVE_TRACKS_BYTES, ARCHIVE_VALUE_BYTES_MAX, TRACK_BYTES_MAX,
};
use crate::media::Directory;
use crate::meta::hex;
use crate::meta::packed::{put_key, put_number};
use crate::shown::shown_file;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use zstd::bulk::Compressor;

/// The bytes at which a block is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub tracks: usize,
    pub records: usize,
}

impl Sizes {
    const DEFAULT: Sizes = Sizes { tracks: ARCHIVE_TRACKS_BYTES, records: ARCHIVE_RECORDS_BYTES };
}

/// An increment that is being written, under a temporary name that goes with it unless it is finished.
pub struct Writer {
    out: Output,
    sizes: Sizes,
    /// The open block of tracks; one without bytes is open as well if it has a track of none.
    tracks: Option<Vec<u8>>,
    /// The open block of records, then that of each level of the index.
    levels: Vec<Level>,
    counts: Footer,
}

/// An open block with keys.
#[derive(Default)]
struct Level {
    bytes: Vec<u8>,
    first: Vec<u8>,
    /// The last key that was put in, into this block or the one before.
    last: Vec<u8>,
    /// Lines in the block, of an index.
    children: usize,
    last_child: u64,
}

impl Level {
    fn put_key(&mut self, key: &[u8]) {
        if self.bytes.is_empty() {
            self.first = key.to_vec();
            self.last.clear();
        }
        put_key(&mut self.bytes, &self.last, key);
        self.last.clear();
        self.last.extend_from_slice(key);
    }

    fn put_child(&mut self, first: &[u8], offset: u64) {
        self.put_key(first);
        put_number(&mut self.bytes, offset);
        self.children += 1;
        self.last_child = offset;
    }
}

impl Writer {
    /// Begins a file in a directory under a temporary name, `.NAME.new`. A file that is left over under that name is
    /// replaced; one under the final name never is. `level` is that of zstd.
    pub fn create(directory: &Arc<Directory>, name: &str, header: &Header, level: i32) -> Result<Writer> {
        Writer::create_with(directory, name, header, level, Sizes::DEFAULT)
    }

    pub(super) fn create_with(
        directory: &Arc<Directory>,
        name: &str,
        header: &Header,
        level: i32,
        sizes: Sizes,
    ) -> Result<Writer> {
        let out = Output::create(directory, name, header, level)?;
        Ok(Writer { out, sizes, tracks: None, levels: vec![Level::default()], counts: Footer::default() })
    }

    /// Adds a record's old value, without its birth. Entries come in ascending order of table and key.
    pub fn record(&mut self, table: u8, key: &[u8], birth: Epoch, value: &[u8]) -> Result<()> {
        self.begin_entry(table, key, birth, value.len(), ARCHIVE_VALUE_BYTES_MAX)?;
        let entries = &mut self.levels[0].bytes;
        put_number(entries, (value.len() as u64) << 2 | RECORD);
        entries.extend_from_slice(value);
        self.counts.records += 1;
        self.end_entry()
    }

    /// Adds the bytes of an old track. Entries come in ascending order of table and key.
    pub fn track(&mut self, table: u8, key: &[u8], birth: Epoch, bytes: &[u8]) -> Result<()> {
        self.begin_entry(table, key, birth, bytes.len(), TRACK_BYTES_MAX)?;
        let entries = &mut self.levels[0].bytes;
        let len = (bytes.len() as u64) << 2;
        match &mut self.tracks {
            Some(open) => {
                put_number(entries, len | NEXT_TRACK);
                open.extend_from_slice(bytes);
            }
            None => {
                put_number(entries, len | PLACED_TRACK);
                put_number(entries, self.out.end);
                put_number(entries, 0);
                self.tracks = Some(bytes.to_vec());
            }
        }
        self.counts.tracks += 1;
        self.counts.track_bytes += bytes.len() as u64;
        if self.tracks.as_ref().is_some_and(|open| open.len() >= self.sizes.tracks) {
            self.flush_tracks()?;
        }
        self.end_entry()
    }

    /// Writes the index and the end, syncs the file, gives it its final name and syncs the directory. With that the
    /// increment exists, whole.
    pub fn finish(mut self) -> Result<Summary> {
        self.out.refuse_after_failure()?;
        let (root_kind, root) = self.write_root()?;
        let footer = Footer { root, root_kind, bytes: self.out.end + FOOTER as u64, ..self.counts };
        self.out.append(&footer.encode(self.out.seed))?;
        self.out.finish()?;
        let Footer { records, tracks, track_bytes, bytes, .. } = footer;
        Ok(Summary { path: self.out.path(), bytes, records, tracks, track_bytes })
    }

    fn begin_entry(&mut self, table: u8, key: &[u8], birth: Epoch, len: usize, len_max: usize) -> Result<()> {
        self.out.refuse_after_failure()?;
        let refused = |problem| {
            let text = format!("{}: record {} of table {table} {problem}", shown_file(&self.out.path()), hex(key));
            Err(Error::Refused(Errno::INVAL, text))
        };
        if key.len() > ARCHIVE_KEY_BYTES_MAX {
            return refused(format!("has a key of {} bytes, and {ARCHIVE_KEY_BYTES_MAX} are possible", key.len()));
        }
        if len > len_max {
            return refused(format!("has {len} bytes, and {len_max} are possible"));
        }
        let full = [&[table], key].concat();
        let entries = &mut self.levels[0];
        if full <= entries.last {
            return refused(format!("does not come after {}, the one before, table and key", hex(&entries.last)));
        }
        entries.put_key(&full);
        put_number(&mut entries.bytes, birth.number().into());
        Ok(())
    }

    fn end_entry(&mut self) -> Result<()> {
        if self.levels[0].bytes.len() >= self.sizes.records {
            self.flush_tracks()?;
            self.close(0)?;
        }
        Ok(())
    }

    fn flush_tracks(&mut self) -> Result<()> {
        if let Some(bytes) = self.tracks.take() {
            self.out.write_block(TRACKS, &bytes)?;
        }
        Ok(())
    }

    /// Writes the open block of a level, and a line for it into the level above.
    fn close(&mut self, level: usize) -> Result<()> {
        let open = &mut self.levels[level];
        let (bytes, first) = (std::mem::take(&mut open.bytes), std::mem::take(&mut open.first));
        open.children = 0;
        let offset = self.out.write_block(RECORDS + level as u8, &bytes)?;
        if self.levels.len() == level + 1 {
            self.levels.push(Level::default());
        }
        let above = &mut self.levels[level + 1];
        above.put_child(&first, offset);
        if above.bytes.len() >= self.sizes.records && above.children > 1 { self.close(level + 1) } else { Ok(()) }
    }

    /// Closes what is open, level by level, until one block leads to all others: its kind and offset, or zeros
    /// without entries.
    fn write_root(&mut self) -> Result<(u8, u64)> {
        self.flush_tracks()?;
        let mut level = 0;
        while level < self.levels.len() {
            let (open, is_top) = (&self.levels[level], level + 1 == self.levels.len());
            if is_top && level > 0 && open.children == 1 {
                return Ok((RECORDS + level as u8 - 1, open.last_child));
            }
            if !open.bytes.is_empty() {
                self.close(level)?;
            }
            level += 1;
        }
        // Only level 0 without entries has none above it: every other way leads to a top with one line.
        Ok((0, 0))
    }
}

/// The file itself.
struct Output {
    directory: Arc<Directory>,
    name: String,
    file: File,
    compressor: Compressor<'static>,
    /// The block that is being written.
    buffer: Vec<u8>,
    seed: Seed,
    end: u64,
    has_failed: bool,
    is_finished: bool,
}

impl Output {
    fn create(directory: &Arc<Directory>, name: &str, header: &Header, level: i32) -> Result<Output> {
        let head = encode_head(&directory.path().join(name), header)?;
        let temporary = temporary_name(name);
        let failed =
            |source| Error::media(format!("making {}", shown_file(&directory.path().join(&temporary))), source);
        let compressor = Compressor::new(level).map_err(failed)?;
        let file = directory.make_anew(&temporary).map_err(failed)?;
        let seed = Seed(number_at(&head, head.len() - CHECK));
        let mut out = Output {
            directory: directory.clone(),
            name: name.into(),
            file,
            compressor,
            buffer: Vec::new(),
            seed,
            end: 0,
            has_failed: false,
            is_finished: false,
        };
        out.append(&head)?;
        Ok(out)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join(&self.name)
    }

    fn temporary_path(&self) -> PathBuf {
        self.directory.path().join(temporary_name(&self.name))
    }

    fn refuse_after_failure(&self) -> Result<()> {
        match self.has_failed {
            true => Err(self.failed("writing", io::Error::other("an earlier write failed"))),
            false => Ok(()),
        }
    }

    fn failed(&self, doing: &str, source: io::Error) -> Error {
        Error::media(format!("{doing} {}", shown_file(&self.temporary_path())), source)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if let Err(error) = self.file.write_all_at(bytes, self.end) {
            self.has_failed = true;
            return Err(self.failed("writing", error));
        }
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Writes a block, compressed if that makes it smaller, and returns its offset.
    fn write_block(&mut self, kind: u8, raw: &[u8]) -> Result<u64> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.resize(BLOCK_START + zstd::compress_bound(raw.len()), 0);
        let place = &mut buffer[BLOCK_START..];
        // Only a lack of memory fails here; the block is then stored as it is.
        let (codec, stored) = match self.compressor.compress_to_buffer(raw, place) {
            Ok(len) if len < raw.len() => (ZSTD, len),
            _ => {
                place[..raw.len()].copy_from_slice(raw);
                (PLAIN, raw.len())
            }
        };
        buffer.truncate(BLOCK_START + stored);
        let mut start = BlockStart { check: 0, stored: stored as u32, raw: raw.len() as u32, kind, codec };
        buffer[..BLOCK_START].copy_from_slice(&start.encode());
        start.check = self.seed.check(self.end, &buffer[CHECK..]);
        buffer[..BLOCK_START].copy_from_slice(&start.encode());
        let offset = self.end;
        self.append(&buffer)?;
        self.buffer = buffer;
        Ok(offset)
    }

    fn finish(&mut self) -> Result<()> {
        self.file.sync_all().map_err(|error| self.failed("syncing", error))?;
        let renamed = self.directory.rename_new(&temporary_name(&self.name), &self.name);
        renamed.map_err(|error| self.failed("renaming", error))?;
        self.is_finished = true;
        crate::archive::sync(&self.directory)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.is_finished
            && let Err(error) = self.directory.remove(&temporary_name(&self.name))
        {
            log::warn!("{} stays behind: {error}", shown_file(&self.temporary_path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Mark;
    use crate::id::Id;
    use crate::purpose::Purpose;
    use tempfile::TempDir;

    #[test]
    fn after_a_failed_write_nothing_is_taken_and_nothing_stays() {
        let id = Id::default();
        let time = Default::default();
        let mark = |epoch| Mark { epoch, id, name: "m".into(), time, purpose: Purpose::Plain, offline: false };
        let (from, to, base_name) = (mark(Epoch::new(1)), mark(Epoch::new(2)), "live".into());
        let (track_bytes, merged) = (65_536, Vec::new());
        let header = Header { store: id, base_id: id, base: 1, base_name, from, to, track_bytes, hash_seed: 1, merged };
        let dir = TempDir::new().unwrap();
        let directory = Arc::new(Directory::open(dir.path()).unwrap());
        let mut writer = Writer::create(&directory, "increment", &header, 1).unwrap();
        writer.record(1, b"a", Epoch::new(1), b"x").unwrap();
        // A file that is only open for reading cannot be written to.
        writer.out.file = File::open(writer.out.temporary_path()).unwrap();
        let large = vec![7; TRACK_BYTES_MAX];
        assert!(matches!(writer.track(4, b"b", Epoch::new(1), &large), Err(Error::Media { .. })));
        let message = writer.record(5, b"c", Epoch::new(1), b"x").unwrap_err().to_string();
        assert!(message.ends_with(".increment.new: an earlier write failed"), "{message}");
        assert!(matches!(writer.finish(), Err(Error::Media { .. })));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
