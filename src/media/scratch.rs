//! Files that are not to be changed, with what is written over them kept aside, for as long as they are open.

use super::{Access, Directory, DiskDir, Media, MediaDir, Room};
use crate::limits::BLOCK_BYTES;
use crate::shown::shown_file;
use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// What is written goes to a file without a name in the directory for temporary files, or in memory where that takes none.
#[derive(Debug)]
pub struct ScratchMedia {
    below: Option<File>,
    above: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    len: u64,
    /// From here on, what is not in `written` is zeros.
    below_len: u64,
    /// Blocks that lie above.
    written: BTreeSet<u64>,
}

const BLOCK: u64 = BLOCK_BYTES as u64;

impl ScratchMedia {
    /// Over a file, or over nothing.
    pub fn over(below: Option<File>) -> io::Result<ScratchMedia> {
        let len = below.as_ref().map_or(Ok(0), |below| below.metadata().map(|found| found.len()))?;
        let state = State { len, below_len: len, written: BTreeSet::new() };
        Ok(ScratchMedia { below, above: temporary()?, state: Mutex::new(state) })
    }

    /// Bytes of the blocks that were written.
    fn written_bytes(&self) -> u64 {
        self.state.lock().written.len() as u64 * BLOCK
    }

    fn read_block(&self, state: &State, block: u64, out: &mut [u8; BLOCK_BYTES]) -> io::Result<()> {
        out.fill(0);
        if state.written.contains(&block) {
            return self.above.read_exact_at(out, block * BLOCK);
        }
        let there = state.below_len.saturating_sub(block * BLOCK).min(BLOCK) as usize;
        match &self.below {
            Some(below) => below.read_exact_at(&mut out[..there], block * BLOCK),
            None => Ok(()),
        }
    }

    fn write(&self, state: &mut State, offset: u64, data: &[u8]) -> io::Result<()> {
        for (block, within, part) in pieces(offset, data.len()) {
            let mut bytes = [0; BLOCK_BYTES];
            if part.len() < BLOCK_BYTES {
                self.read_block(state, block, &mut bytes)?;
            }
            bytes[within..][..part.len()].copy_from_slice(&data[part]);
            self.above.write_all_at(&bytes, block * BLOCK)?;
            state.written.insert(block);
        }
        state.len = state.len.max(offset + data.len() as u64);
        Ok(())
    }
}

/// The blocks that a range touches: each with the offset in it, and the part of the range that lies there.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % BLOCK) as usize;
        let part = done..len.min(done + BLOCK_BYTES - within);
        done = part.end;
        (!part.is_empty()).then_some((at / BLOCK, within, part))
    })
}

fn temporary() -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        Err(_) => Ok(memfd_create("pitfs", MemfdFlags::CLOEXEC)?.into()),
    }
}

impl Media for ScratchMedia {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().len)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock();
        if offset + out.len() as u64 > state.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = offset + out.len() as u64;
        let is_below =
            end <= state.below_len && state.written.range(offset / BLOCK..end.div_ceil(BLOCK)).next().is_none();
        if let (true, Some(below)) = (is_below, &self.below) {
            drop(state);
            return below.read_exact_at(out, offset);
        }
        for (block, within, part) in pieces(offset, out.len()) {
            let mut bytes = [0; BLOCK_BYTES];
            self.read_block(&state, block, &mut bytes)?;
            let len = part.len();
            out[part].copy_from_slice(&bytes[within..][..len]);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write(&mut self.state.lock(), offset, data)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        if len < state.len {
            state.below_len = state.below_len.min(len);
            drop(state.written.split_off(&len.div_ceil(BLOCK)));
            if state.written.contains(&(len / BLOCK)) {
                let zeros = vec![0; (BLOCK - len % BLOCK) as usize];
                self.write(&mut state, len, &zeros)?;
            }
            self.above.set_len(len.next_multiple_of(BLOCK))?;
        }
        state.len = len;
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.len = state.len.max(offset + len);
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let end = state.len.min(offset + len);
        let zeros = vec![0; end.saturating_sub(offset) as usize];
        if zeros.is_empty() { Ok(()) } else { self.write(&mut state, offset, &zeros) }
    }
}

/// A directory in which something is tried: what is in it stays as it is.
#[derive(Debug)]
pub struct ScratchDir {
    below: Arc<Directory>,
    open: Mutex<BTreeMap<String, Arc<ScratchMedia>>>,
}

impl ScratchDir {
    pub fn over(below: Arc<Directory>) -> ScratchDir {
        ScratchDir { below, open: Mutex::default() }
    }

    /// The room that what was tried takes at most, as it would be done.
    pub fn written_bytes(&self) -> u64 {
        self.open.lock().values().map(|media| media.written_bytes()).sum()
    }
}

impl MediaDir for ScratchDir {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn Media>> {
        let mut open = self.open.lock();
        if let Some(media) = open.get(name) {
            return Ok(media.clone());
        }
        let below = match self.below.open_file(name, Access::Read) {
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened?),
        };
        let media = Arc::new(ScratchMedia::over(below)?);
        open.insert(name.to_string(), media.clone());
        Ok(media)
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.open.lock().contains_key(name) || self.below.kind(name)?.is_some())
    }

    /// What is there already stays.
    fn remove(&self, name: &str) -> io::Result<()> {
        self.open.lock().remove(name);
        Ok(())
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let media = ScratchMedia::over(None)?;
        media.write_at(0, content)?;
        self.open.lock().insert(name.to_string(), Arc::new(media));
        Ok(())
    }

    fn room(&self) -> io::Result<Room> {
        DiskDir::of(self.below.clone()).room()
    }

    fn describe(&self) -> String {
        shown_file(self.below.path()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
        Punch(u64, u64),
        Allocate(u64, u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let bytes = prop::collection::vec(1u8.., 1..9000);
        let step = prop_oneof![
            (0..20_000u64, bytes).prop_map(|(at, bytes)| Step::Write(at, bytes)),
            (0..20_000u64).prop_map(Step::SetLen),
            (0..20_000u64, 1..9000u64).prop_map(|(at, len)| Step::Punch(at, len)),
            (0..20_000u64, 1..9000u64).prop_map(|(at, len)| Step::Allocate(at, len)),
        ];
        prop::collection::vec(step, 1..20)
    }

    proptest! {
        #[test]
        fn it_is_as_if_the_file_were_written_to_and_the_file_stays(has_file: bool, steps in steps()) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("file");
            let before: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
            std::fs::write(&path, &before).unwrap();
            let media = ScratchMedia::over(has_file.then(|| File::open(&path).unwrap())).unwrap();
            let mut model = if has_file { before.clone() } else { Vec::new() };
            for step in steps {
                match step {
                    Step::Write(at, bytes) => {
                        media.write_at(at, &bytes).unwrap();
                        let end = at as usize + bytes.len();
                        model.resize(model.len().max(end), 0);
                        model[at as usize..end].copy_from_slice(&bytes);
                    }
                    Step::SetLen(len) => {
                        media.set_len(len).unwrap();
                        model.resize(len as usize, 0);
                    }
                    Step::Punch(at, len) => {
                        media.punch(at, len).unwrap();
                        let end = model.len().min((at + len) as usize);
                        if let Some(range) = model.get_mut(at as usize..end) {
                            range.fill(0);
                        }
                    }
                    Step::Allocate(at, len) => {
                        media.allocate(at, len).unwrap();
                        model.resize(model.len().max((at + len) as usize), 0);
                    }
                }
                prop_assert_eq!(media.len().unwrap(), model.len() as u64);
                let mut all = vec![0; model.len()];
                media.read_at(0, &mut all).unwrap();
                prop_assert!(all == model);
                prop_assert!(media.read_at(1, &mut all[..]).is_err() || all.is_empty());
            }
            prop_assert!(std::fs::read(&path).unwrap() == before);
        }
    }
}
