//! Filling a store through the library, faster than through its mount.

use crate::Result;
use pitfs::device::{InodeAt, InodeNo};
use pitfs::tree::{Caller, Kind, New, Position, ROOT, Tree};

const CALLER: Caller = Caller { uid: 0, gid: 0, umask: 0o022 };
const FILES_EACH: usize = 1000;

fn make(tree: &Tree, parent: InodeNo, name: &str, kind: Kind) -> Result<InodeNo> {
    let permissions = if kind == Kind::Directory { 0o755 } else { 0o644 };
    let new = New { kind, permissions, rdev: 0, target: b"" };
    Ok(tree.names().make(CALLER, parent, name.as_bytes(), new)?.0)
}

/// Makes `count` files in directories of a thousand, `d0/f0` and so on; `fill` says what is in each.
pub fn files(tree: &Tree, count: usize, mut fill: impl FnMut(usize, InodeNo) -> Result<()>) -> Result<Vec<InodeNo>> {
    let mut numbers = Vec::with_capacity(count);
    let mut directory = ROOT;
    for i in 0..count {
        if i % FILES_EACH == 0 {
            directory = make(tree, ROOT, &format!("d{}", i / FILES_EACH), Kind::Directory)?;
        }
        let number = make(tree, directory, &format!("f{i}"), Kind::File)?;
        fill(i, number)?;
        numbers.push(number);
    }
    tree.commit()?;
    Ok(numbers)
}

/// Where [`files`] puts a file.
pub fn path(i: usize) -> String {
    format!("d{}/f{i}", i / FILES_EACH)
}

pub fn write(tree: &Tree, number: InodeNo, content: &[u8]) -> Result<()> {
    Ok(tree.files().write(number, 0, content, false)?)
}

/// A file at the root.
pub fn file(tree: &Tree, name: &str) -> Result<InodeNo> {
    make(tree, ROOT, name, Kind::File)
}

/// Gives a file the first bytes of another one, as that is at a moment; whole tracks are shared.
pub fn share(tree: &Tree, from: InodeAt, to: InodeNo, bytes: u64) -> Result<()> {
    let mut done = 0;
    while done < bytes {
        let position = Position { of: from, offset: 0 };
        let copied = tree.files().copy_range(position, to, done, bytes - done, false)?;
        if copied == 0 {
            return Err("there was nothing to share".into());
        }
        done += copied;
    }
    Ok(())
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| next()).take(len).collect()
}
