//! Packing a moment of a base into a tar archive.

use super::{IsWanted, Stream, StreamReport, acl, pax};
use crate::daemon::copy_out::decode_device;
use crate::daemon::{OnProgress, Progress};
use crate::device::{InodeNo, Moment};
use crate::error::{Errno, Error, Result};
use crate::shown::shown;
use crate::tree::{Inode, Kind, Tree, join, names_of};
use crate::view::{View, Views};
use serde_bytes::ByteBuf;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;
use tar::{EntryType, Header};

/// Bytes that are read at once.
const PIECE: u64 = 1 << 20;
const BLOCK: u64 = 512;
/// Names that a header has room for by itself.
const NAME_BYTES: usize = 100;

struct Get<'a, 'b, 's> {
    tree: &'a Tree,
    moment: Moment,
    out: &'b mut Stream<IsWanted<'s>>,
    /// Files of several names: where the first one lies.
    names: HashMap<InodeNo, Vec<u8>>,
    /// Directories that were packed.
    entered: HashSet<InodeNo>,
    report: StreamReport,
}

/// Why packing ended.
enum Ended {
    Stream(io::Error),
    Store(Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::Stream(error)
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Ended {
        Ended::Store(error)
    }
}

type Packed = std::result::Result<(), Ended>;

/// Packs paths of a moment into a stream; all of it, where none are given.
pub fn get(
    views: &Views,
    snapshot: &[u8],
    paths: &[ByteBuf],
    stream: Arc<File>,
    progress: OnProgress<'_>,
) -> Result<StreamReport> {
    let View { base, moment } = views.view(snapshot)?;
    let tree = views.tree();
    let all = [ByteBuf::new()];
    let paths = if paths.is_empty() { &all } else { paths };
    let mut found = Vec::new();
    for path in paths {
        let path: Vec<&[u8]> = names_of(path).collect();
        let path = path.join(&b'/');
        let inode = tree.names().resolve(base, &path, moment).map_err(|error| match error.errno() {
            Errno::NOENT | Errno::NOTDIR => {
                let text = format!("there is no {:?} in {:?}", shown(&path).to_string(), shown(snapshot).to_string());
                Error::Refused(Errno::NOENT, text)
            }
            _ => error,
        })?;
        found.push((path, inode));
    }
    let mut tell = |bytes| progress(&Progress { files: 0, bytes, total_bytes: 0 });
    let mut stream = Stream::new(stream, &mut tell as IsWanted<'_>);
    let mut get = Get {
        tree,
        moment,
        out: &mut stream,
        names: HashMap::new(),
        entered: HashSet::new(),
        report: StreamReport::default(),
    };
    let packed = found.into_iter().try_for_each(|(path, inode)| get.all(path, inode)).and_then(|()| get.end());
    let report = get.report;
    match packed {
        Ok(()) => Ok(report),
        Err(Ended::Store(error)) => Err(error),
        Err(Ended::Stream(error)) => Err(stream.failed("writing the tar archive", error)),
    }
}

impl Get<'_, '_, '_> {
    /// What is at a path, with all below it.
    fn all(&mut self, path: Vec<u8>, inode: InodeNo) -> Packed {
        let mut pending = vec![(path, inode)];
        while let Some((path, inode)) = pending.pop() {
            let packed = self.one(&path, inode);
            match packed {
                Err(Ended::Store(error)) => self.problem(&path, &error),
                packed => packed?,
            }
            let mut below = Vec::new();
            // Of a damaged store: one that is in itself, or has several names, would never end.
            let is_entered = |inode| self.entered.contains(&inode);
            let listed = match self.tree.inode(inode.at(self.moment)) {
                Ok(found) if found.is_directory() && is_entered(inode) => Err(Error::corrupt(
                    format!("directory {}", inode.number()),
                    "it has several names, or is in itself",
                )),
                Ok(found) if found.is_directory() => self.tree.names().list(inode.at(self.moment), 0, |entry| {
                    below.push((join(&path, &entry.name), entry.inode));
                    Ok(true)
                }),
                _ => Ok(()),
            };
            if let Err(error) = listed {
                self.problem(&path, &error);
            }
            if !below.is_empty() {
                self.entered.insert(inode);
            }
            pending.extend(below.into_iter().rev());
        }
        Ok(())
    }

    fn problem(&mut self, path: &[u8], error: &Error) {
        self.report.problem(path, error);
    }

    fn one(&mut self, path: &[u8], inode: InodeNo) -> Packed {
        let found = self.tree.inode(inode.at(self.moment))?;
        let mut name = if path.is_empty() { b".".to_vec() } else { path.to_vec() };
        let kind = match found.kind() {
            Kind::Directory => EntryType::Directory,
            Kind::Symlink => EntryType::Symlink,
            Kind::CharDevice => EntryType::Char,
            Kind::BlockDevice => EntryType::Block,
            Kind::Fifo => EntryType::Fifo,
            Kind::File => EntryType::Regular,
            // A tar archive has no sockets: it is left out, as tar(1) does.
            Kind::Socket => return Ok(()),
        };
        if kind == EntryType::Directory {
            name.push(b'/');
        }
        let mut records = Vec::new();
        pax::push(&mut records, b"mtime", pax::time_text(found.mtime).as_bytes());
        if found.links > 1
            && kind != EntryType::Directory
            && let Some(first) = self.names.get(&inode).cloned()
        {
            return self.header(&found, EntryType::Link, (&name, &first), 0, records);
        }
        for (key, value) in self.tree.attributes().xattrs(inode.at(self.moment))? {
            let list = acl::RECORDS.iter().find(|(_, list)| *list == key);
            match list.and_then(|(record, _)| Some((record, acl::to_text(&value)?))) {
                Some((record, text)) => pax::push(&mut records, record, text.as_bytes()),
                None => pax::push(&mut records, &[pax::XATTR, &pax::escaped(&key)].concat(), &value),
            }
        }
        match kind {
            EntryType::Regular => self.file(inode, &found, &name, records)?,
            EntryType::Symlink => {
                let target = self.tree.names().read_link(inode.at(self.moment))?;
                self.header(&found, kind, (&name, &target), 0, records)?;
            }
            _ => self.header(&found, kind, (&name, b""), 0, records)?,
        }
        if found.links > 1 && kind != EntryType::Directory {
            self.names.insert(inode, name);
        }
        self.report.files += 1;
        Ok(())
    }

    fn file(&mut self, inode: InodeNo, found: &Inode, name: &[u8], mut records: Vec<u8>) -> Packed {
        let ranges = self.tree.files().data_ranges(inode.at(self.moment), found.size);
        let pieces = ranges.collect::<Result<Vec<Range<u64>>>>()?;
        // What cannot be read must be known before it is said how much comes.
        let first = pieces.first().map_or(0..0, |piece| piece.start..piece.end.min(piece.start + PIECE));
        let first = self.read(inode, &first)?;
        let held: u64 = pieces.iter().map(|piece| piece.end - piece.start).sum();
        if held == found.size {
            self.header(found, EntryType::Regular, (name, b""), held, records)?;
        } else {
            // Some take the end of the last piece for that of the file.
            let end = (pieces.last().is_none_or(|last| last.end < found.size)).then_some(found.size..found.size);
            let map = pax::sparse_map(&pieces.iter().cloned().chain(end).collect::<Vec<_>>());
            pax::push(&mut records, b"GNU.sparse.major", b"1");
            pax::push(&mut records, b"GNU.sparse.minor", b"0");
            pax::push(&mut records, b"GNU.sparse.name", name);
            pax::push(&mut records, b"GNU.sparse.realsize", found.size.to_string().as_bytes());
            let (above, last) = match name.iter().rposition(|byte| *byte == b'/') {
                Some(at) => (&name[..=at], &name[at + 1..]),
                None => (&name[..0], name),
            };
            let inner = [above, b"GNUSparseFile.0/", last].concat();
            self.header(found, EntryType::Regular, (&inner, b""), held + map.len() as u64, records)?;
            self.out.write_all(&map)?;
        }
        let mut read = Some(first);
        for piece in &pieces {
            let mut at = piece.start;
            while at < piece.end {
                let end = piece.end.min(at + PIECE);
                let bytes = match read.take() {
                    Some(first) => first,
                    // The header has said that it comes: zeros keep the archive whole, and the file is named.
                    None => self.read(inode, &(at..end)).unwrap_or_else(|error| {
                        self.problem(name, &error);
                        vec![0; (end - at) as usize]
                    }),
                };
                self.out.write_all(&bytes)?;
                at = end;
            }
        }
        let now = self.tree.inode(inode.at(self.moment));
        if self.moment == Moment::Live && !now.is_ok_and(|now| (now.ctime, now.size) == (found.ctime, found.size)) {
            self.report.problem(name, "it was written to while it was packed: what was packed is of no one moment");
        }
        self.report.bytes += held;
        self.fill_up(held)
    }

    fn read(&self, inode: InodeNo, bytes: &Range<u64>) -> Result<Vec<u8>> {
        let len = bytes.end - bytes.start;
        let mut read = self.tree.files().read(inode.at(self.moment), bytes.start, len as usize)?;
        // Of a file that somebody cuts meanwhile.
        read.resize(len as usize, 0);
        Ok(read)
    }

    /// The header of an entry, with an extended one in front.
    fn header(
        &mut self,
        found: &Inode,
        kind: EntryType,
        (name, link): (&[u8], &[u8]),
        size: u64,
        mut records: Vec<u8>,
    ) -> Packed {
        const SMALL: u64 = 1 << 21;
        if name.len() > NAME_BYTES {
            pax::push(&mut records, b"path", name);
        }
        if link.len() > NAME_BYTES {
            pax::push(&mut records, b"linkpath", link);
        }
        for (key, number, most) in
            [("size", size, 1 << 33), ("uid", found.uid.into(), SMALL), ("gid", found.gid.into(), SMALL)]
        {
            if number >= most {
                pax::push(&mut records, key.as_bytes(), number.to_string().as_bytes());
            }
        }
        let mut extended = ustar(b"pax", b"", EntryType::XHeader, records.len() as u64);
        extended.set_cksum();
        self.out.write_all(extended.as_bytes())?;
        self.out.write_all(&records)?;
        self.fill_up(records.len() as u64)?;
        let mut header = ustar(name, link, kind, if size < 1 << 33 { size } else { 0 });
        header.set_mode(found.permissions());
        header.set_uid(u64::from(found.uid).min(SMALL - 1));
        header.set_gid(u64::from(found.gid).min(SMALL - 1));
        header.set_mtime(found.mtime.seconds.clamp(0, (1 << 33) - 1) as u64);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            let device = decode_device(found.rdev);
            header.set_device_major(rustix::fs::major(device))?;
            header.set_device_minor(rustix::fs::minor(device))?;
        }
        header.set_cksum();
        Ok(self.out.write_all(header.as_bytes())?)
    }

    /// Zeros up to the end of a block.
    fn fill_up(&mut self, len: u64) -> Packed {
        let zeros = len.next_multiple_of(BLOCK) - len;
        Ok(io::copy(&mut io::repeat(0).take(zeros), &mut &mut *self.out).map(drop)?)
    }

    fn end(&mut self) -> Packed {
        Ok(self.out.write_all(&[0; 2 * BLOCK as usize])?)
    }
}

/// A header with names as far as there is room for them: an extended one has what is longer.
fn ustar(name: &[u8], link: &[u8], kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    let raw = header.as_old_mut();
    let put = |field: &mut [u8; NAME_BYTES], text: &[u8]| {
        let len = text.len().min(NAME_BYTES);
        field[..len].copy_from_slice(&text[..len]);
    };
    put(&mut raw.name, name);
    put(&mut raw.linkname, link);
    header.set_entry_type(kind);
    header.set_size(size);
    header
}
