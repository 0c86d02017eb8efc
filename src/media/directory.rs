//! A directory of ours, opened once, and the files in it by their names.
//!
//! Whoever may write to the directory can put anything in a file's place. So no link is followed, what is opened is a plain
//! file with one name that belongs to somebody who may have made it, and what is made is made new.

use crate::id::Id;
use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RawMode, RenameFlags, StatxFlags, flock, openat,
    renameat_with, statx,
};
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    ReadWrite,
    /// Whatever is written goes behind what is there.
    Append,
}

impl Access {
    fn flags(self) -> OFlags {
        match self {
            Access::Read => OFlags::RDONLY,
            Access::ReadWrite => OFlags::RDWR,
            Access::Append => OFlags::WRONLY | OFlags::APPEND,
        }
    }
}

/// Mode of what is made.
const MODE: RawMode = 0o600;

#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    file: File,
    owner: u32,
    /// The only user whose files are opened, if it is to be one.
    only: Option<u32>,
    /// What is made becomes the directory's owner's.
    gives: bool,
}

impl Directory {
    /// `path` may lead through links; what it leads to stays this directory's, wherever it is moved.
    pub fn open(path: &Path) -> io::Result<Directory> {
        Directory::of(open_directory(path)?, path)
    }

    /// One that is open, with its path for messages.
    pub fn of(file: File, path: &Path) -> io::Result<Directory> {
        let owner = file.metadata()?.uid();
        Ok(Directory { path: path.to_path_buf(), file, owner, only: None, gives: false })
    }

    /// Opens and makes files of one user only, whoever the directory belongs to. Else they may be its owner's, root's, or of
    /// whoever runs this.
    pub fn only_of(self, user: u32) -> Directory {
        Directory { only: Some(user), ..self }
    }

    /// Files that root makes become the directory's owner's: he is to be able to go on with them.
    pub fn giving(self) -> Directory {
        Directory { gives: true, ..self }
    }

    /// The names in it.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.file)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        Ok(names)
    }

    /// Where it was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it still is what is at its path, through the same mount: another one may be read-only, or not any more.
    pub fn is_there(&self) -> bool {
        let identity = |at: BorrowedFd<'_>, path: &Path, flags| {
            let found = statx(at, path, flags, StatxFlags::INO | StatxFlags::MNT_ID)?;
            rustix::io::Result::Ok((found.stx_dev_major, found.stx_dev_minor, found.stx_ino, found.stx_mnt_id))
        };
        let opened = identity(self.file.as_fd(), Path::new(""), AtFlags::EMPTY_PATH);
        opened.is_ok_and(|opened| identity(CWD, &self.path, AtFlags::empty()) == Ok(opened))
    }

    pub fn as_file(&self) -> &File {
        &self.file
    }

    /// The user whose it was when it was opened.
    pub fn owner(&self) -> u32 {
        self.owner
    }

    /// Opens a file that is there.
    pub fn open_file(&self, name: &str, access: Access) -> io::Result<File> {
        // A pipe or a device must not make anybody wait.
        let flags = access.flags() | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match openat(&self.file, name, flags, Mode::empty()) {
            Err(rustix::io::Errno::LOOP) => return Err(not_ours("it is a symbolic link")),
            // What a pipe without a reader says, or a socket.
            Err(rustix::io::Errno::NXIO) => return Err(not_ours("it is no plain file")),
            opened => File::from(opened?),
        };
        self.check(&file.metadata()?)?;
        Ok(file)
    }

    /// Opens a plain file to be read, whoever it belongs to and however many names it has: copies of it may be somebody else's.
    pub fn open_plain(&self, name: &str) -> io::Result<File> {
        open_to_read(&self.file, Path::new(name), OFlags::NOFOLLOW)
    }

    /// Makes a file; an error where anything has the name.
    pub fn make_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(&self.file, name, flags, Mode::from_raw_mode(MODE))?);
        if self.gives && rustix::process::geteuid().is_root() && self.owner != 0 {
            std::os::unix::fs::fchown(&file, Some(self.owner), None)?;
        }
        Ok(file)
    }

    /// Makes a file in place of what is left of one that was interrupted, or was put there.
    pub fn make_anew(&self, name: &str) -> io::Result<File> {
        self.remove(name)?;
        self.make_file(name)
    }

    /// Opens a file, or makes it; true where it was made.
    pub fn open_or_make(&self, name: &str, access: Access) -> io::Result<(File, bool)> {
        match self.open_file(name, access) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened.map(|file| (file, false)),
        }
        match self.make_file(name) {
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.open_file(name, access).map(|file| (file, false))
            }
            Err(error) => Err(error),
            Ok(_) => self.open_file(name, access).map(|file| (file, true)),
        }
    }

    /// All of a file that is not longer than `most` bytes.
    pub fn read_file(&self, name: &str, most: u64) -> io::Result<Vec<u8>> {
        use std::io::Read;
        let mut bytes = Vec::new();
        self.open_file(name, Access::Read)?.take(most + 1).read_to_end(&mut bytes)?;
        match bytes.len() as u64 > most {
            true => Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is longer than {most} bytes"))),
            false => Ok(bytes),
        }
    }

    /// The text of a small plain file, whoever it belongs to: no more than `most` bytes of it, and nothing of what is no text. `None` where
    /// there is none.
    pub fn read_label(&self, name: &str, most: u64) -> io::Result<Option<String>> {
        use std::io::Read;
        let mut text = String::new();
        match self.open_plain(name).and_then(|file| file.take(most).read_to_string(&mut text)) {
            Ok(_) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Some(String::new())),
            Err(error) => Err(error),
        }
    }

    /// Makes such a file, whole and durable; fails where somebody else was faster.
    pub fn make_label(&self, name: &str, text: &str) -> io::Result<()> {
        self.put_label(name, text, Directory::rename_new)
    }

    /// The same in the place of one that is there.
    pub fn replace_label(&self, name: &str, text: &str) -> io::Result<()> {
        self.put_label(name, text, Directory::rename)
    }

    fn put_label(&self, name: &str, text: &str, place: fn(&Directory, &str, &str) -> io::Result<()>) -> io::Result<()> {
        use std::io::Write;
        let temporary = format!(".{name}.{}.new", Id::random().short());
        let write = || {
            let mut file = self.make_anew(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            place(self, &temporary, name)?;
            self.sync()
        };
        write().inspect_err(|_| {
            // The error says enough.
            drop(self.remove(&temporary));
        })
    }

    fn check(&self, found: &Metadata) -> io::Result<()> {
        if !found.is_file() {
            return Err(not_ours("it is no plain file"));
        }
        // Of a file that was removed meanwhile, nobody can have made another name.
        if found.nlink() > 1 {
            return Err(not_ours(&format!("it has {} names (hard links)", found.nlink())));
        }
        let owner = found.uid();
        let may_be = match self.only {
            Some(only) => owner == only,
            None => [self.owner, 0, rustix::process::geteuid().as_raw()].contains(&owner),
        };
        match may_be {
            true => Ok(()),
            false => Err(not_ours(&format!("it belongs to user {owner}"))),
        }
    }

    /// What is at a name, without following it if it is a link, and whose it is.
    pub fn look(&self, name: &str) -> io::Result<Option<(FileType, u32)>> {
        match rustix::fs::statat(&self.file, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some((FileType::from_raw_mode(found.st_mode), found.st_uid))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub fn kind(&self, name: &str) -> io::Result<Option<FileType>> {
        Ok(self.look(name)?.map(|(kind, _)| kind))
    }

    /// Length of what is at a name, where that is a plain file; 0 of anything else.
    pub fn bytes(&self, name: &str) -> io::Result<Option<u64>> {
        match rustix::fs::statat(&self.file, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if FileType::from_raw_mode(found.st_mode).is_file() => Ok(Some(found.st_size as u64)),
            Ok(_) => Ok(Some(0)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a name, if it is there.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.unlink(name, AtFlags::empty())
    }

    /// Removes a directory without anything in it, if it is there.
    pub fn remove_directory(&self, name: &str) -> io::Result<()> {
        self.unlink(name, AtFlags::REMOVEDIR)
    }

    fn unlink(&self, name: &str, flags: AtFlags) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.file, name, flags) {
            Err(rustix::io::Errno::NOENT) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Gives a file another name, in place of whatever has that.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat_with(&self.file, from, &self.file, to, RenameFlags::empty())?)
    }

    /// Gives a file its final name; fails where something has that name already.
    pub fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        match renameat_with(&self.file, from, &self.file, to, RenameFlags::NOREPLACE) {
            // Not every file system can do that; linking never replaces either.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                rustix::fs::linkat(&self.file, from, &self.file, to, AtFlags::empty())?;
                self.remove(from)
            }
            result => Ok(result?),
        }
    }

    /// Returns once the names would survive a power cut.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Locks a file of it for this process, if nobody has it locked.
    pub fn try_lock(&self, name: &str) -> io::Result<Option<File>> {
        let (file, _) = self.open_or_make(name, Access::ReadWrite)?;
        locked(file, FlockOperation::NonBlockingLockExclusive)
    }

    /// Locks a file of it, which cannot be written to, beside others who do the same; where it is missing, the directory.
    pub fn try_lock_shared(&self, name: &str) -> io::Result<Option<File>> {
        match self.open_file(name, Access::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.try_lock_whole(true),
            opened => locked(opened?, FlockOperation::NonBlockingLockShared),
        }
    }

    /// Locks the directory itself, for as long as the file is open, if nobody has it locked; beside others who only share it,
    /// if that is enough.
    pub fn try_lock_whole(&self, is_shared: bool) -> io::Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let how =
            if is_shared { FlockOperation::NonBlockingLockShared } else { FlockOperation::NonBlockingLockExclusive };
        locked(openat(&self.file, ".", flags, Mode::empty())?.into(), how)
    }
}

fn locked(file: File, how: FlockOperation) -> io::Result<Option<File>> {
    match flock(&file, how) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory to be read; fails at once where something else is in its place, such as a pipe, for which open(2) waits.
pub fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// Opens what is expected to be a plain file, or a link to one; fails at once where it is a pipe, a device or a directory.
pub fn open_regular(path: &Path) -> io::Result<File> {
    open_to_read(CWD, path, OFlags::empty())
}

fn open_to_read(at: impl AsFd, path: &Path, flags: OFlags) -> io::Result<File> {
    let not_plain = || io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file");
    let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(at, path, flags, Mode::empty()) {
        // A link that is not followed, or a socket.
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => return Err(not_plain()),
        opened => File::from(opened?),
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_plain()) }
}

fn not_ours(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{why}, and pitfs works with plain files of its own only"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn refused(directory: &Directory, name: &str) -> String {
        for access in [Access::Read, Access::ReadWrite, Access::Append] {
            assert_eq!(directory.open_file(name, access).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        directory.open_or_make(name, Access::ReadWrite).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_file_of_its_own_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let directory = Directory::open(dir.path()).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let victim = elsewhere.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        symlink(&victim, at("link")).unwrap();
        symlink(elsewhere.path().join("none"), at("dangling")).unwrap();
        std::fs::hard_link(&victim, at("hard")).unwrap_or_else(|_| std::fs::write(at("hard"), "").unwrap());
        std::fs::create_dir(at("directory")).unwrap();
        rustix::fs::mkfifoat(directory.as_file(), "pipe", Mode::from_raw_mode(0o600)).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert!(refused(&directory, "link").contains("symbolic link"));
        assert!(refused(&directory, "dangling").contains("symbolic link"));
        assert!(refused(&directory, "pipe").contains("no plain file"));
        assert!(refused(&directory, "socket").contains("no plain file"));
        if victim.metadata().unwrap().nlink() == 2 {
            assert!(refused(&directory, "hard").contains("2 names"));
        }
        assert!(directory.open_file("directory", Access::Read).is_err());
        assert!(directory.open_file("directory", Access::ReadWrite).is_err());
        for name in ["link", "dangling", "pipe", "socket", "directory"] {
            assert_eq!(directory.make_file(name).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        }
        assert!(!elsewhere.path().join("none").exists());
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn what_is_only_read_may_have_several_names_but_is_a_plain_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let directory = Directory::open(dir.path()).unwrap();
        std::fs::write(at("file"), "12").unwrap();
        std::fs::hard_link(at("file"), at("hard")).unwrap();
        symlink(at("file"), at("link")).unwrap();
        std::fs::create_dir(at("directory")).unwrap();
        rustix::fs::mkfifoat(directory.as_file(), "pipe", Mode::from_raw_mode(0o600)).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        directory.open_plain("hard").unwrap();
        assert_eq!((directory.bytes("hard").unwrap(), directory.bytes("link").unwrap()), (Some(2), Some(0)));
        assert_eq!(directory.bytes("none").unwrap(), None);
        assert_eq!(directory.open_plain("none").unwrap_err().kind(), io::ErrorKind::NotFound);
        for name in ["link", "directory", "pipe", "socket"] {
            assert_eq!(directory.open_plain(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
            assert_eq!(directory.rename_new("file", name).unwrap_err().kind(), io::ErrorKind::AlreadyExists, "{name}");
        }
        directory.rename_new("file", "new").unwrap();
        assert_eq!((directory.bytes("file").unwrap(), directory.bytes("new").unwrap()), (None, Some(2)));
    }

    #[test]
    fn what_belongs_to_a_stranger_is_not_opened() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("not run: needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path()).unwrap();
        directory.make_file("f").unwrap();
        std::os::unix::fs::chown(dir.path().join("f"), Some(65534), None).unwrap();
        assert!(refused(&directory, "f").contains("belongs to user 65534"));
        // Its own owner's are, and what is made there is his.
        std::os::unix::fs::chown(dir.path(), Some(65534), None).unwrap();
        let of_owner = Directory::open(dir.path()).unwrap();
        of_owner.open_file("f", Access::ReadWrite).unwrap();
        assert_eq!(of_owner.make_file("mine").unwrap().metadata().unwrap().uid(), 0);
        let giving = Directory::open(dir.path()).unwrap().giving();
        assert_eq!(giving.make_file("new").unwrap().metadata().unwrap().uid(), 65534);
        let of_root = Directory::open(dir.path()).unwrap().only_of(0);
        assert!(refused(&of_root, "new").contains("belongs to user 65534"));
        assert_eq!(of_root.make_file("newer").unwrap().metadata().unwrap().uid(), 0);
        of_root.open_file("newer", Access::ReadWrite).unwrap();
    }

    #[test]
    fn files_are_made_for_nobody_else_and_read_up_to_a_length() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path()).unwrap();
        let (file, is_new) = directory.open_or_make("f", Access::ReadWrite).unwrap();
        assert!(is_new && file.metadata().unwrap().permissions().mode() & 0o7777 == 0o600);
        assert!(!directory.open_or_make("f", Access::ReadWrite).unwrap().1);
        std::fs::write(dir.path().join("f"), "12345").unwrap();
        assert_eq!(directory.read_file("f", 5).unwrap(), b"12345");
        assert_eq!(directory.read_file("f", 4).unwrap_err().kind(), io::ErrorKind::InvalidData);
        directory.rename("f", "g").unwrap();
        assert_eq!((directory.kind("f").unwrap(), directory.kind("g").unwrap()), (None, Some(FileType::RegularFile)));
        directory.remove("g").and_then(|()| directory.remove("g")).unwrap();
        assert_eq!(directory.kind("g").unwrap(), None);
    }
}
