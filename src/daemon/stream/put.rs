//! Unpacking a tar archive into a base as it is now.
//!
//! Invariants:
//! - nothing is made outside the directory that was named: a name that leads out of it, or through what is no directory, is a
//!   problem;
//! - what has a name already is replaced by what comes, but a directory by a directory, which stays with what is in it;
//! - a file gets its owner, then its mode, then its times when all of its bytes are there; directories, the deepest first,
//!   when everything is;
//! - what cannot be made is reported, and the rest is done.

use super::members::{Member, Members};
use super::{IsWanted, Stream, StreamReport, acl, pax};
use crate::clock::Timestamp;
use crate::daemon::copy_out::encode_device;
use crate::daemon::{Daemon, OnProgress, Owner, Progress};
use crate::device::InodeNo;
use crate::error::{Errno, Error, Result};
use crate::shown::shown;
use crate::tree::{Caller, Change, Inode, Kind, New, SetTime, SetXattr, Tree, names_of, root_of};
use crate::view::Views;
use std::cell::Cell;
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use tar::EntryType;

/// Bytes that are read and written at once.
const PIECE: usize = 1 << 20;
/// Zeros of this length are left out: they read the same.
const HOLE: usize = 64 << 10;

/// For what is made before its owner is known.
const MAKER: Caller = Caller { uid: 0, gid: 0, umask: 0 };
const MADE: u32 = 0o600;

/// What an entry is to become, besides its name and its bytes.
struct Facts {
    permissions: u32,
    uid: u32,
    gid: u32,
    mtime: Timestamp,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

struct Put<'a> {
    tree: &'a Tree,
    /// Nothing is made outside this directory.
    root: InodeNo,
    owner: Owner,
    /// Directories that came, in their order.
    directories: Vec<(InodeNo, Facts)>,
    report: StreamReport,
}

/// Unpacks what comes through a stream into a directory of a base.
pub fn put(
    daemon: &Daemon,
    views: &Views,
    directory: &[u8],
    stream: Arc<File>,
    progress: OnProgress<'_>,
) -> Result<StreamReport> {
    views.check_writable()?;
    // What is unpacked and what is synced would make each other's files.
    let _alone = daemon.alone_with_files()?;
    let mut put = Put {
        tree: views.tree(),
        root: root_of(views.base()),
        owner: Owner::of_this_process(),
        directories: Vec::new(),
        report: StreamReport::default(),
    };
    put.root = put.directory_at(put.root, directory)?;
    let counted = Cell::new(0u64);
    let mut tell = |bytes| progress(&Progress { files: counted.get(), bytes, total_bytes: 0 });
    let mut stream = Stream::new(stream, &mut tell as IsWanted<'_>);
    let unpacked = unpack(&mut put, &mut stream, &counted);
    if let Err(error) = unpacked {
        let error = stream.failed("reading the tar archive", error);
        put.finish_directories();
        views.tree().commit()?;
        return Err(error);
    }
    put.finish_directories();
    let what = format!("put {:?}; files: {}", shown(directory).to_string(), put.report.files);
    views.note_done(&what)?;
    views.tree().commit()?;
    Ok(put.report)
}

fn unpack(put: &mut Put<'_>, stream: &mut Stream<IsWanted<'_>>, counted: &Cell<u64>) -> std::io::Result<()> {
    let mut members = Members::new(stream);
    while let Some(member) = members.next()? {
        match put.member(&member, &mut members) {
            Ok(()) => put.report.files += 1,
            // The stream itself; there is no more to be had of it.
            Err(Failed::Stream(error)) => return Err(error),
            Err(Failed::Entry(text)) => put.report.problem(&member.path, text),
        }
        counted.set(put.report.files);
    }
    // What fills up the last record of an archive, so that whoever writes it comes to an end.
    if !members.finish()? {
        put.report.problem(b"the archive", "it has no end: whoever wrote it broke off, and files may be missing");
    }
    Ok(())
}

enum Failed {
    Stream(std::io::Error),
    Entry(String),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Entry(error.to_string())
    }
}

fn told(text: impl Into<String>) -> Failed {
    Failed::Entry(text.into())
}

impl Put<'_> {
    /// The directory at a path, made where it is missing.
    fn directory_at(&self, from: InodeNo, path: &[u8]) -> Result<InodeNo> {
        let mut at = from;
        for name in names_of(path) {
            at = match (name, self.tree.names().lookup(at.live(), name)) {
                (b"..", _) => {
                    let text = format!("the path {:?} leads out of it", shown(path).to_string());
                    return Err(Error::Refused(Errno::INVAL, text));
                }
                (_, Ok((inode, found))) if found.is_directory() => inode,
                (_, Ok(_)) => {
                    let text = format!("{:?} is not a directory", shown(name).to_string());
                    return Err(Error::Refused(Errno::NOTDIR, text));
                }
                (_, Err(Error::Posix(Errno::NOENT))) => {
                    let new = New { kind: Kind::Directory, permissions: 0o755, rdev: 0, target: b"" };
                    self.tree.names().make(MAKER, at, name, new)?.0
                }
                (_, Err(error)) => return Err(error),
            };
        }
        Ok(at)
    }

    /// The directory that a name is in, and the name; nothing for the root itself.
    fn place<'p>(&self, path: &'p [u8]) -> Result<Option<(InodeNo, &'p [u8])>> {
        let names: Vec<&[u8]> = names_of(path).filter(|name| *name != b".").collect();
        let Some((name, above)) = names.split_last() else { return Ok(None) };
        if *name == b".." {
            let text = format!("the path {:?} leads out of it", shown(path).to_string());
            return Err(Error::Refused(Errno::INVAL, text));
        }
        Ok(Some((self.directory_at(self.root, &above.join(&b'/'))?, name)))
    }

    fn member<R: Read>(&mut self, member: &Member, members: &mut Members<R>) -> std::result::Result<(), Failed> {
        let facts = facts(member)?;
        let kind = match member.header.entry_type() {
            // As archives of the seventh Unix have directories.
            EntryType::Regular if member.path.ends_with(b"/") => EntryType::Directory,
            kind => kind,
        };
        let Some((parent, name)) = self.place(&member.path)? else {
            if !kind.is_dir() {
                return Err(told("it has no name"));
            }
            self.arrived(self.root, facts);
            return Ok(());
        };
        let found = match self.tree.names().lookup(parent.live(), name) {
            Ok(found) => Some(found),
            Err(Error::Posix(Errno::NOENT)) => None,
            Err(error) => return Err(error.into()),
        };
        if kind.is_dir() {
            return Ok(self.directory(parent, name, found, facts)?);
        }
        if kind.is_hard_link() {
            return self.hard_link(parent, name, found, &member.link);
        }
        let made = match kind {
            EntryType::Symlink => Kind::Symlink,
            EntryType::Char => Kind::CharDevice,
            EntryType::Block => Kind::BlockDevice,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            other => return Err(told(format!("what kind of file {:?} is, is not known", char::from(other.as_byte())))),
        };
        if made == Kind::File {
            return self.file(member, members, (parent, name), &facts);
        }
        let target: &[u8] = if made == Kind::Symlink { &member.link } else { b"" };
        let rdev = if matches!(made, Kind::CharDevice | Kind::BlockDevice) { device(&member.header)? } else { 0 };
        self.make_way(parent, name, found)?;
        let inode = self.make(parent, name, New { kind: made, permissions: MADE, rdev, target })?;
        Ok(self.attributes(inode, &facts, made == Kind::Symlink)?)
    }

    /// A file has all that it is to have before it takes the place of what has its name.
    fn file<R: Read>(
        &mut self,
        member: &Member,
        members: &mut Members<R>,
        (parent, name): (InodeNo, &[u8]),
        facts: &Facts,
    ) -> std::result::Result<(), Failed> {
        if let Some(problem) = member.problem {
            return Err(told(problem));
        }
        let inode = self.tree.likeness().make_nameless_file(self.root.base(), MADE)?;
        let filled = self.fill(member, members, inode);
        let placed = filled.and_then(|()| {
            let attributes = self.attributes(inode, facts, false);
            self.tree.likeness().place(inode, parent, name)?;
            Ok(attributes?)
        });
        self.tree.made(inode);
        placed
    }

    fn directory(&mut self, parent: InodeNo, name: &[u8], found: Option<(InodeNo, Inode)>, facts: Facts) -> Result<()> {
        let inode = match found {
            Some((inode, old)) if old.is_directory() => inode,
            found => {
                self.make_way(parent, name, found)?;
                let new = New { kind: Kind::Directory, permissions: 0o700, rdev: 0, target: b"" };
                self.make(parent, name, new)?
            }
        };
        self.arrived(inode, facts);
        Ok(())
    }

    /// Makes what came, without the access lists that its directory has for what is made in it: it has those that came.
    fn make(&self, parent: InodeNo, name: &[u8], new: New<'_>) -> Result<InodeNo> {
        let (inode, _) = self.tree.names().make(MAKER, parent, name, new)?;
        for (_, list) in acl::RECORDS {
            self.tree.attributes().remove_xattr(inode, list)?;
        }
        Ok(inode)
    }

    /// A directory has its xattrs at once, and the rest when all is in it.
    fn arrived(&mut self, inode: InodeNo, mut facts: Facts) {
        for (name, value) in std::mem::take(&mut facts.xattrs) {
            if let Err(error) = self.tree.attributes().set_xattr(inode, &name, &value, SetXattr::default()) {
                self.not_set(inode, &name, &error);
            }
        }
        self.directories.push((inode, facts));
    }

    fn not_set(&mut self, inode: InodeNo, name: &[u8], error: &Error) {
        let path = self.tree.names().paths(inode.live()).unwrap_or_default().pop().unwrap_or_default();
        self.report.problem(&path, format!("the xattr {:?} could not be set: {error}", shown(name).to_string()));
    }

    fn hard_link(
        &self,
        parent: InodeNo,
        name: &[u8],
        found: Option<(InodeNo, Inode)>,
        to: &[u8],
    ) -> std::result::Result<(), Failed> {
        let missing = || told(format!("what it is a link to, {:?}, is not there", shown(to).to_string()));
        // Nothing is made on the way to it.
        let mut target = self.root;
        for step in names_of(to).filter(|step| *step != b".") {
            target = self.tree.names().lookup(target.live(), step).map_err(|_| missing())?.0;
        }
        if self.tree.inode(target.live())?.is_directory() {
            return Err(told("a directory has one name only"));
        }
        if found.as_ref().is_some_and(|(inode, _)| *inode == target) {
            return Ok(());
        }
        self.make_way(parent, name, found)?;
        self.tree.names().link(target, parent, name)?;
        Ok(())
    }

    /// Removes what has a name, unless that is a directory with something in it.
    fn make_way(&self, parent: InodeNo, name: &[u8], found: Option<(InodeNo, Inode)>) -> Result<()> {
        match found {
            None => Ok(()),
            Some((_, old)) if old.is_directory() => self.tree.names().remove_directory(parent, name).map(drop),
            Some(_) => self.tree.names().unlink(parent, name).map(drop),
        }
    }

    /// The bytes of a file.
    fn fill<R: Read>(
        &mut self,
        member: &Member,
        members: &mut Members<R>,
        inode: InodeNo,
    ) -> std::result::Result<(), Failed> {
        let mut buffer = vec![0; PIECE];
        for piece in &member.pieces {
            let mut at = piece.start;
            while at < piece.end {
                let len = buffer.len().min(usize::try_from(piece.end - at).unwrap_or(usize::MAX));
                let read = members.read(&mut buffer[..len]).map_err(Failed::Stream)?;
                if read == 0 {
                    return Err(told("the archive has less of it than it says"));
                }
                self.write(inode, at, &buffer[..read])?;
                at += read as u64;
                self.report.bytes += read as u64;
            }
        }
        let found = self.tree.inode(inode.live())?;
        if found.size < member.size {
            self.tree.attributes().change(inode, Change { size: Some(member.size), ..Change::default() })?;
        }
        Ok(())
    }

    /// Zeros where there is nothing yet are left out.
    fn write(&self, inode: InodeNo, offset: u64, data: &[u8]) -> Result<()> {
        let mut done = 0;
        for chunk in data.chunks(HOLE) {
            if chunk.len() < HOLE || chunk.iter().any(|byte| *byte != 0) {
                self.tree.files().write(inode, offset + done, chunk, false)?;
            }
            done += chunk.len() as u64;
        }
        Ok(())
    }

    fn attributes(&self, inode: InodeNo, facts: &Facts, is_link: bool) -> Result<()> {
        let Facts { permissions, mtime, .. } = *facts;
        let (uid, gid) = self.owner.of(facts.uid, facts.gid);
        let owner = Change { uid: Some(uid), gid: Some(gid), ..Change::default() };
        self.tree.attributes().change(inode, owner)?;
        let mut last = Change { atime: Some(SetTime::To(mtime)), mtime: Some(SetTime::To(mtime)), ..Change::default() };
        let mut refused = Ok(());
        if !is_link {
            for (name, value) in &facts.xattrs {
                refused = refused.and(self.tree.attributes().set_xattr(inode, name, value, SetXattr::default()));
            }
            // Lists change it.
            last.permissions = Some(permissions);
        }
        self.tree.attributes().change(inode, last)?;
        refused
    }

    fn finish_directories(&mut self) {
        // What came later lies deeper, or beside.
        let mut done = HashSet::new();
        for (inode, facts) in std::mem::take(&mut self.directories).into_iter().rev() {
            // Of one that came twice, the last counts.
            if !done.insert(inode) {
                continue;
            }
            if let Err(error) = self.attributes(inode, &facts, false) {
                let path = self.tree.names().paths(inode.live()).unwrap_or_default().pop().unwrap_or_default();
                self.report.problem(&path, error);
            }
        }
    }
}

fn device(header: &tar::Header) -> std::result::Result<u32, Failed> {
    const PART_MAX: [u32; 2] = [0xfff, 0xf_ffff];
    let parts = [header.device_major(), header.device_minor()].map(|part| part.ok().flatten());
    match parts {
        [Some(major), Some(minor)] if [major, minor].iter().zip(PART_MAX).all(|(part, most)| *part <= most) => {
            Ok(encode_device(rustix::fs::makedev(major, minor)))
        }
        _ => Err(told("its device makes no sense")),
    }
}

/// What a member says of itself. What it does not say is as for whoever knows nothing of owners and times; what makes no
/// sense is not taken for that.
fn facts(member: &Member) -> std::result::Result<Facts, Failed> {
    let senseless = |what: &str| told(format!("its {what} makes no sense"));
    let (header, fields) = (&member.header, member.header.as_old());
    let number = |what, field: &[u8], number: std::io::Result<u64>, blank| match number {
        Ok(number) => Ok(number),
        Err(_) if field.iter().all(|byte| matches!(byte, 0 | b' ')) => Ok(blank),
        Err(_) => Err(senseless(what)),
    };
    let id = |what, field: &[u8], id| {
        let id = number(what, field, id, 0)?;
        u32::try_from(id).map_err(|_| senseless(what))
    };
    let mut facts = Facts {
        permissions: number("mode", &fields.mode, header.mode().map(u64::from), 0o644)? as u32 & 0o7777,
        uid: id("owner", &fields.uid, header.uid())?,
        gid: id("group", &fields.gid, header.gid())?,
        mtime: Timestamp { seconds: number("time", &fields.mtime, header.mtime(), 0)? as i64, nanos: 0 },
        xattrs: Vec::new(),
    };
    let recorded = |what, value: &[u8]| {
        let id = pax::number(value).and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| senseless(what))
    };
    let is_said = |record: &[u8]| member.records.iter().any(|(key, value)| key == record && !is_blank(value));
    for (key, value) in &member.records {
        match key.as_slice() {
            // An empty one says that the header counts.
            b"mtime" | b"uid" | b"gid" if value.is_empty() => {}
            b"mtime" => facts.mtime = pax::time(value).ok_or_else(|| senseless("time"))?,
            b"uid" => facts.uid = recorded("owner", value)?,
            b"gid" => facts.gid = recorded("group", value)?,
            key => {
                let as_text = acl::RECORDS.into_iter().find(|(record, _)| *record == key);
                if let Some((_, list)) = as_text.filter(|_| !is_blank(value)) {
                    let text = std::str::from_utf8(value).map_err(|_| senseless("access list"))?;
                    facts.xattrs.push((list.to_vec(), acl::of_text(text).map_err(told)?));
                }
                if let Some(name) = key.strip_prefix(pax::XATTR).map(pax::unescaped)
                    // A list that comes as text as well counts as that.
                    && !acl::RECORDS.into_iter().any(|(record, list)| list == name && is_said(record))
                {
                    facts.xattrs.push((name, value.clone()));
                }
            }
        }
    }
    Ok(facts)
}

fn is_blank(value: &[u8]) -> bool {
    value.trim_ascii().is_empty()
}
