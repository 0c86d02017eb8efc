//! Real files in a real directory.

use super::{Access, Directory, Media, MediaDir, Room, replacement_of};
use crate::limits::BLOCK_BYTES;
use crate::shown::shown_file;
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

/// The files of a store.
#[derive(Debug)]
pub struct DiskDir {
    directory: Arc<Directory>,
    /// They are to outlive the process.
    are_kept: bool,
}

impl DiskDir {
    pub fn open(path: &Path) -> io::Result<DiskDir> {
        Ok(DiskDir::of(Arc::new(Directory::open(path)?)))
    }

    pub fn of(directory: Arc<Directory>) -> DiskDir {
        DiskDir { directory, are_kept: true }
    }

    /// The files of one that goes with its process: nothing waits for the disk.
    pub fn passing(directory: Arc<Directory>) -> DiskDir {
        DiskDir { directory, are_kept: false }
    }
}

impl MediaDir for DiskDir {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn Media>> {
        let directory = &self.directory;
        let (file, is_new) = match create {
            true => directory.open_or_make(name, Access::ReadWrite)?,
            false => (directory.open_file(name, Access::ReadWrite)?, false),
        };
        if is_new && self.are_kept {
            file.sync_all()?;
            directory.sync()?;
        }
        Ok(Arc::new(DiskFile { file, is_kept: self.are_kept }))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.directory.kind(name)?.is_some())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.directory.remove(name)
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let (directory, temporary) = (&self.directory, replacement_of(name));
        let durable = |file: File| if self.are_kept { file.sync_all() } else { Ok(()) };
        let written = write_whole(directory, &temporary, content, name).and_then(durable);
        let replaced = written.and_then(|()| directory.rename(&temporary, name));
        if replaced.is_err() {
            // It would take room, and the error says enough.
            drop(directory.remove(&temporary));
        }
        replaced?;
        if self.are_kept { directory.sync() } else { Ok(()) }
    }

    fn room(&self) -> io::Result<Room> {
        let stat = rustix::fs::fstatvfs(self.directory.as_file())?;
        Ok(Room { total: stat.f_blocks * stat.f_frsize, available: stat.f_bavail * stat.f_frsize })
    }

    fn describe(&self) -> String {
        shown_file(self.directory.path()).to_string()
    }
}

/// Makes a file with the owner and mode of the one that it is to replace.
fn write_whole(directory: &Directory, name: &str, content: &[u8], model: &str) -> io::Result<File> {
    let file = directory.make_anew(name)?;
    if let Ok(model) = directory.open_file(model, Access::Read).and_then(|model| model.metadata()) {
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (model.uid(), model.gid()) {
            std::os::unix::fs::fchown(&file, Some(model.uid()), Some(model.gid()))?;
        }
        file.set_permissions(Permissions::from_mode(model.mode() & 0o666))?;
    }
    file.set_len(content.len() as u64)?;
    let mut offset = 0;
    let is_zeros = |block: &&[u8]| block.iter().all(|&byte| byte == 0);
    for run in content.chunks(BLOCK_BYTES).collect::<Vec<_>>().chunk_by(|a, b| is_zeros(a) == is_zeros(b)) {
        let bytes = run.iter().map(|block| block.len()).sum::<usize>();
        if !is_zeros(&run[0]) {
            file.write_all_at(&content[offset..offset + bytes], offset as u64)?;
        }
        offset += bytes;
    }
    Ok(file)
}

#[derive(Debug)]
struct DiskFile {
    file: File,
    is_kept: bool,
}

impl Media for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        if self.is_kept { self.file.sync_data() } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::empty(), offset, len) {
            // Not every file system can promise room; there, a full disk shows when writing.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                if self.len()? < offset + len {
                    self.file.set_len(offset + len)?;
                }
                Ok(())
            }
            result => Ok(result?),
        }
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len) {
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            result => Ok(result?),
        }
    }
}
