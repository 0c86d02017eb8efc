//! Real files in a real directory.

use super::{Access, Directory, Media, MediaDir, Room, open_directory, replacement_of};
use crate::limits::BLOCK_BYTES;
use crate::shown::shown_file;
use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, RenameFlags, fallocate, renameat_with};
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// The files of a store, in a directory that is opened at the first use if it is not given.
#[derive(Debug)]
pub struct DiskDir {
    path: PathBuf,
    directory: OnceLock<Arc<Directory>>,
}

impl DiskDir {
    pub fn new(path: &Path) -> DiskDir {
        DiskDir { path: path.to_path_buf(), directory: OnceLock::new() }
    }

    pub fn of(directory: Arc<Directory>) -> DiskDir {
        DiskDir { path: directory.path().to_path_buf(), directory: OnceLock::from(directory) }
    }

    fn directory(&self) -> io::Result<&Directory> {
        if let Some(directory) = self.directory.get() {
            return Ok(directory);
        }
        let opened = Arc::new(Directory::open(&self.path)?);
        Ok(self.directory.get_or_init(|| opened))
    }
}

impl MediaDir for DiskDir {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn Media>> {
        let directory = self.directory()?;
        let (file, is_new) = match create {
            true => directory.open_or_make(name, Access::ReadWrite)?,
            false => (directory.open_file(name, Access::ReadWrite)?, false),
        };
        if is_new {
            file.sync_all()?;
            directory.sync()?;
        }
        Ok(Arc::new(DiskFile { file }))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.directory()?.kind(name)?.is_some())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.directory()?.remove(name)
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let (directory, temporary) = (self.directory()?, replacement_of(name));
        // What is left of one that was interrupted, or was put there.
        directory.remove(&temporary)?;
        let replaced =
            write_whole(directory, &temporary, content, name).and_then(|()| directory.rename(&temporary, name));
        if replaced.is_err() {
            // It would take room, and the error says enough.
            drop(directory.remove(&temporary));
        }
        replaced?;
        directory.sync()
    }

    fn room(&self) -> io::Result<Room> {
        let stat = rustix::fs::fstatvfs(self.directory()?.as_file())?;
        Ok(Room { total: stat.f_blocks * stat.f_frsize, available: stat.f_bavail * stat.f_frsize })
    }

    fn describe(&self) -> String {
        shown_file(&self.path).to_string()
    }
}

/// Makes a file, durably, with the owner and mode of the one that it is to replace.
fn write_whole(directory: &Directory, name: &str, content: &[u8], model: &str) -> io::Result<()> {
    let file = directory.make_file(name)?;
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
    file.sync_all()
}

/// Returns once the names in a directory would survive a power cut.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    open_directory(path)?.sync_all()
}

/// Gives a file its final name, in the same directory; fails where something has that name already.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system can do that; linking never replaces either.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        result => Ok(result?),
    }
}

/// Opens what is expected to be a plain file, or a link to one; fails at once where it is a pipe, a device or a directory.
pub fn open_regular(path: &Path) -> io::Result<File> {
    open_to_read(path, OFlags::empty())
}

/// The same for a file that pitfs makes: a link was put there by somebody else, and is not followed to where it leads.
pub fn open_plain(path: &Path) -> io::Result<File> {
    open_to_read(path, OFlags::NOFOLLOW)
}

fn open_to_read(path: &Path, flags: OFlags) -> io::Result<File> {
    let not_plain = || io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file");
    let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        // A link that is not followed, or a socket.
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => return Err(not_plain()),
        opened => File::from(opened?),
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_plain()) }
}

#[derive(Debug)]
struct DiskFile {
    file: File,
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
        self.file.sync_data()
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
