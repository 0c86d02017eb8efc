//! One change of a writer's directory that reaches the daemon as one request, and drawing one that the model says will succeed.

use super::model::{Content, Model};
use super::rng::Rng;
use rustix::fs::{FallocateFlags, OFlags};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const PAGE: u64 = 4096;
/// The track size of the stores that are loaded.
pub const TRACK: u64 = 16 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    Create {
        path: String,
        mode: u32,
    },
    MakeDirectory(String),
    Symlink {
        target: String,
        path: String,
    },
    Link {
        from: String,
        to: String,
    },
    /// The bytes are those that the seed gives.
    Write {
        path: String,
        offset: u64,
        len: usize,
        seed: u64,
    },
    Truncate {
        path: String,
        len: u64,
    },
    Punch {
        path: String,
        offset: u64,
        len: u64,
    },
    /// The beginning of one file over that of another, with copy_file_range(2).
    Copy {
        from: String,
        to: String,
        len: u64,
    },
    Rename {
        from: String,
        to: String,
    },
    Remove(String),
    RemoveDirectory(String),
    Mode {
        path: String,
        mode: u32,
    },
    Xattr {
        path: String,
        name: String,
        len: usize,
        seed: u64,
    },
}

pub fn bytes_of(seed: u64, len: usize) -> Vec<u8> {
    Rng::new(seed).bytes(len)
}

impl Operation {
    /// What was done: this, or, of a copy, a part.
    pub fn carry_out(&self, root: &Path) -> io::Result<Operation> {
        use Operation::*;
        let write = |path: &str| File::options().write(true).open(root.join(path));
        let done: io::Result<()> = match self {
            Create { path, mode } => {
                File::options().write(true).create_new(true).mode(*mode).open(root.join(path)).map(|_| ())
            }
            MakeDirectory(path) => fs::create_dir(root.join(path)),
            Symlink { target, path } => std::os::unix::fs::symlink(target, root.join(path)),
            Link { from, to } => fs::hard_link(root.join(from), root.join(to)),
            Write { path, offset, len, seed } => {
                // The kernel sends a page of which only the end is written as a request of its own, unless it
                // is told not to keep pages.
                let is_one = offset.is_multiple_of(PAGE) || offset % PAGE + *len as u64 <= PAGE;
                let flags = if is_one { OFlags::empty() } else { OFlags::DIRECT };
                let file = File::options().write(true).custom_flags(flags.bits() as i32).open(root.join(path))?;
                file.write_all_at(&bytes_of(*seed, *len), *offset)
            }
            Truncate { path, len } => write(path)?.set_len(*len),
            Punch { path, offset, len } => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                Ok(rustix::fs::fallocate(write(path)?, flags, *offset, *len)?)
            }
            Copy { from: from_path, to: to_path, len } => {
                let (from, to) = (File::open(root.join(from_path))?, write(to_path)?);
                let len = rustix::fs::copy_file_range(&from, None, &to, None, *len as usize)? as u64;
                return Ok(Copy { from: from_path.clone(), to: to_path.clone(), len });
            }
            Rename { from, to } => fs::rename(root.join(from), root.join(to)),
            Remove(path) => fs::remove_file(root.join(path)),
            RemoveDirectory(path) => fs::remove_dir(root.join(path)),
            Mode { path, mode } => fs::set_permissions(root.join(path), Permissions::from_mode(*mode)),
            Xattr { path, name, len, seed } => {
                let (path, value) = (root.join(path), bytes_of(*seed, *len));
                Ok(rustix::fs::setxattr(path, name.as_str(), &value, rustix::fs::XattrFlags::empty())?)
            }
        };
        done.map(|()| self.clone())
    }
}

/// What a writer is like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Many new files, as when a tar file is unpacked.
    Unpacks,
    /// Writes into few files, and syncs them.
    Overwrites,
    /// A bit of everything.
    Mixes,
}

impl Kind {
    pub fn of(writer: usize) -> Kind {
        [Kind::Unpacks, Kind::Overwrites, Kind::Mixes][writer % 3]
    }

    /// Of a hundred steps.
    pub fn syncs(self) -> u64 {
        match self {
            Kind::Unpacks => 1,
            Kind::Overwrites => 20,
            Kind::Mixes => 6,
        }
    }

    /// Entries that the directory is kept at.
    fn entries(self) -> usize {
        match self {
            Kind::Unpacks => 60,
            Kind::Overwrites => 5,
            Kind::Mixes => 25,
        }
    }
}

const OFFSETS: [u64; 8] = [0, 0, 500, 1024, 16_000, 16_384, 65_536, 100_000];
const LENGTHS: [usize; 9] = [1, 100, 1000, 1024, 4096, 5000, 16_384, 40_000, 120_000];

pub fn draw(model: &Model, kind: Kind, rng: &mut Rng) -> Operation {
    let is_full = model.len() >= kind.entries();
    loop {
        let choice = match kind {
            // What was made last is written, as tar does.
            Kind::Unpacks if !is_full && rng.percent(45) => rng.below(20),
            Kind::Overwrites if rng.percent(85) => 30,
            _ if is_full && rng.percent(40) => 70 + rng.below(15),
            _ => rng.below(100),
        };
        if let Some(operation) = try_draw(model, choice, is_full, rng) {
            return operation;
        }
    }
}

/// `None` where the model has nothing of the kind.
fn try_draw(model: &Model, choice: u64, is_full: bool, rng: &mut Rng) -> Option<Operation> {
    let file = |rng: &mut Rng| model.any(rng, |content| matches!(content, Content::File(_)));
    let no_directory = |rng: &mut Rng| model.any(rng, |content| !matches!(content, Content::Directory));
    let new = |rng: &mut Rng| if is_full { None } else { model.new_path(rng) };
    Some(match choice {
        0..14 => Operation::Create { path: new(rng)?, mode: 0o600 | rng.below(0o100) as u32 },
        14..18 => Operation::MakeDirectory(new(rng)?),
        18..20 => Operation::Symlink { target: format!("target {}", rng.below(1000)), path: new(rng)? },
        20..24 => Operation::Link { from: no_directory(rng)?, to: new(rng)? },
        24..55 => {
            let (offset, len) = (rng.pick(&OFFSETS) + rng.below(3), rng.pick(&LENGTHS));
            Operation::Write { path: file(rng)?, offset, len, seed: rng.next() }
        }
        55..60 => Operation::Truncate { path: file(rng)?, len: rng.pick(&OFFSETS) + rng.below(3) },
        60..62 => Operation::Punch { path: file(rng)?, offset: rng.pick(&OFFSETS), len: 1 + rng.below(50_000) },
        62..65 => {
            let (from, to) = (file(rng)?, file(rng)?);
            // Whole tracks are copied in one step, and so is what fits into one.
            let size = model.size(&from);
            let len = if size <= TRACK { size } else { size / TRACK * TRACK };
            if len == 0 || model.is_same(&from, &to) {
                return None;
            }
            Operation::Copy { from, to, len }
        }
        65..70 => Operation::Rename { from: model.any_path(rng)?, to: new(rng)? }.possible(model)?,
        70..74 => Operation::Rename { from: no_directory(rng)?, to: no_directory(rng)? }.possible(model)?,
        74..83 => Operation::Remove(no_directory(rng)?),
        83..85 => Operation::RemoveDirectory(model.any_empty_directory(rng)?),
        85..92 => {
            let path = model.any(rng, |content| !matches!(content, Content::Symlink(_)))?;
            Operation::Mode { path, mode: 0o700 | rng.below(0o100) as u32 }
        }
        _ => {
            let path = model.any(rng, |content| !matches!(content, Content::Symlink(_)))?;
            let len = rng.pick(&[3, 200, 3000]);
            Operation::Xattr { path, name: format!("user.{}", rng.below(3)), len, seed: rng.next() }
        }
    })
}

impl Operation {
    /// A renaming that changes something: not into itself, and not between two names of one file.
    fn possible(self, model: &Model) -> Option<Operation> {
        match &self {
            Operation::Rename { from, to } if model.is_same(from, to) || to.starts_with(&format!("{from}/")) => None,
            _ => Some(self),
        }
    }
}
