//! The members of a tar archive, one after the other, as they come: each with its name, its records, and where its bytes go.
//! Headers are those of POSIX, with what GNU tar adds to them; what is in front of a member to describe it is taken in here.

use super::pax;
use crate::limits::FILE_BYTES_MAX;
use std::io::{self, Read};
use std::ops::Range;
use tar::{EntryType, GnuExtSparseHeader, Header};

const BLOCK: usize = 512;
/// Bytes of what describes a member in front of it, at most; also of what holds for all.
const FRONT_BYTES_MAX: u64 = 4 << 20;
/// Pieces of a file between holes, at most.
const PIECES_MAX: usize = 1 << 20;
/// Bytes of a path, at most.
const PATH_BYTES_MAX: usize = 64 << 10;

pub type Records = Vec<(Vec<u8>, Vec<u8>)>;

pub struct Member {
    pub header: Header,
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub records: Records,
    pub size: u64,
    /// Why its bytes cannot be told apart from what they are not.
    pub problem: Option<&'static str>,
    /// Where its bytes go, one piece after the other.
    pub pieces: Vec<Range<u64>>,
}

pub struct Members<R> {
    from: R,
    /// Bytes of the member under way that were not read yet, and what fills up its last block.
    left: u64,
    filling: u64,
    /// Records that hold for all that follows, and their bytes.
    global: Records,
    global_bytes: u64,
    /// The block that ends an archive came.
    has_end: bool,
}

fn wrong(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it is no tar archive, or damaged: {problem}"))
}

impl<R: Read> Members<R> {
    pub fn new(from: R) -> Members<R> {
        Members { from, left: 0, filling: 0, global: Vec::new(), global_bytes: 0, has_end: false }
    }

    /// The next member, after what was not read of the one before.
    pub fn next(&mut self) -> io::Result<Option<Member>> {
        // Neither is longer than a file can be.
        let skipped = self.left + self.filling;
        if io::copy(&mut (&mut self.from).take(skipped), &mut io::sink())? < skipped {
            return Err(wrong("it ends in the middle of a file"));
        }
        (self.left, self.filling) = (0, 0);
        let (mut records, mut long_name, mut long_link) = (self.global.clone(), None, None);
        let mut front_bytes = self.global_bytes;
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size().map_err(|_| wrong("a size makes no sense"))?;
            let kind = header.entry_type();
            let is_front = matches!(
                kind,
                EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink
            );
            if !is_front {
                return self.member(header, size, records, (long_name, long_link)).map(Some);
            }
            front_bytes = front_bytes.saturating_add(size.max(BLOCK as u64));
            if front_bytes > FRONT_BYTES_MAX {
                return Err(wrong("what describes a file is too long"));
            }
            let front = self.front(size)?;
            match kind {
                EntryType::XHeader => records.extend(parse(&front)?),
                EntryType::XGlobalHeader => {
                    let more = parse(&front)?;
                    records.extend(more.iter().cloned());
                    self.global.extend(more);
                    self.global_bytes = self.global_bytes.saturating_add(size.max(BLOCK as u64));
                }
                EntryType::GNULongName => long_name = Some(ended(front)),
                _ => long_link = Some(ended(front)),
            }
        }
    }

    fn member(
        &mut self,
        header: Header,
        size: u64,
        records: Records,
        (long_name, long_link): (Option<Vec<u8>>, Option<Vec<u8>>),
    ) -> io::Result<Member> {
        let find = |key: &[u8]| {
            let value = records.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.clone());
            // An empty one says that the header counts.
            value.filter(|value| !value.is_empty())
        };
        let number = |key: &[u8]| {
            let number = |value: Vec<u8>| pax::number(&value).ok_or_else(|| wrong("a number makes no sense"));
            find(key).map(number).transpose()
        };
        let path = find(b"GNU.sparse.name").or_else(|| find(b"path")).or(long_name);
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = find(b"linkpath").or(long_link);
        let link = link.unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
        let kind = header.entry_type();
        let stored = match kind {
            EntryType::Link | EntryType::Symlink | EntryType::Directory => 0,
            EntryType::Char | EntryType::Block | EntryType::Fifo => 0,
            _ => number(b"size")?.unwrap_or(size),
        };
        if stored > FILE_BYTES_MAX || path.len() > PATH_BYTES_MAX {
            return Err(wrong("the size or the name of a file cannot be"));
        }
        self.left = stored;
        self.filling = stored.next_multiple_of(BLOCK as u64) - stored;
        let is_sparse = records.iter().any(|(key, _)| key.starts_with(b"GNU.sparse."));
        let (size, pieces) = match number(b"GNU.sparse.major")? {
            Some(1) => (number(b"GNU.sparse.realsize")?.unwrap_or(stored), self.map()?),
            None | Some(0) if is_sparse => (number(b"GNU.sparse.size")?.unwrap_or(stored), recorded(&records)?),
            None if kind == EntryType::GNUSparse => self.old_map(&header)?,
            None => (stored, std::iter::once(0..stored).collect()),
            Some(_) => (0, Vec::new()),
        };
        let ends = pieces.iter().map(|piece| piece.end);
        let is_in_order = pieces.iter().skip(1).zip(ends).all(|(piece, end)| piece.start >= end);
        let held = pieces.iter().try_fold(0u64, |sum, piece| sum.checked_add(piece.end - piece.start));
        let is_whole = held == Some(self.left) && is_in_order && pieces.last().is_none_or(|last| last.end <= size);
        let problem =
            (!is_whole || size > FILE_BYTES_MAX).then_some("the map of its holes makes no sense, or is not known");
        Ok(Member { header, path, link, records, size, problem, pieces })
    }

    /// Reads what comes behind the last member, as far as that is what archives are filled up with; whether the archive has
    /// its end.
    pub fn finish(&mut self) -> io::Result<bool> {
        const RECORD: u64 = 1 << 20;
        io::copy(&mut (&mut self.from).take(RECORD), &mut io::sink())?;
        Ok(self.has_end)
    }

    /// Some of the bytes of the member under way.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.from.read(&mut buffer[..most])?;
        self.left -= read as u64;
        Ok(read)
    }

    fn block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut have = 0;
        while have < BLOCK {
            match self.from.read(&mut block[have..])? {
                0 if have == 0 => return Ok(None),
                0 => return Err(wrong("it ends in the middle of a block")),
                read => have += read,
            }
        }
        Ok(Some(block))
    }

    /// The next header; none at the end, which a block of zeros is.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let Some(block) = self.block()? else { return Ok(None) };
        self.has_end = block.iter().all(|byte| *byte == 0);
        if self.has_end {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        // Its own checksum counts as blanks.
        let bytes = block[..148].iter().chain(&[b' '; 8]).chain(&block[156..]);
        let sum: u32 = bytes.map(|byte| u32::from(*byte)).sum();
        match header.cksum() {
            Ok(said) if said == sum => Ok(Some(header)),
            _ => Err(wrong("the checksum of a header does not fit")),
        }
    }

    /// What lies in front of a member to describe it.
    fn front(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > FRONT_BYTES_MAX {
            return Err(wrong("what describes a file is too long"));
        }
        let mut bytes = Vec::new();
        (&mut self.from).take(size.next_multiple_of(BLOCK as u64)).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < size {
            return Err(wrong("it ends in the middle of what describes a file"));
        }
        bytes.truncate(size as usize);
        Ok(bytes)
    }

    /// The map of holes in front of the data, as GNU tar 1.0 has it: numbers in lines.
    fn map(&mut self) -> io::Result<Vec<Range<u64>>> {
        let (mut text, mut numbers, mut line) = (Vec::new(), Vec::new(), 0);
        loop {
            if self.left < BLOCK as u64 || text.len() > 64 * PIECES_MAX || text.len() > line + 2 * BLOCK {
                return Err(wrong("the map of the holes of a file makes no sense"));
            }
            text.extend(self.block()?.ok_or_else(|| wrong("it ends in the map of the holes of a file"))?);
            self.left -= BLOCK as u64;
            if numbers.len() > 2 * PIECES_MAX {
                return Err(wrong("a file has too many holes"));
            }
            while let Some(end) = text[line..].iter().position(|byte| *byte == b'\n') {
                numbers.push(pax::number(&text[line..line + end]).ok_or_else(|| wrong("a number makes no sense"))?);
                line += end + 1;
                let count = numbers[0].checked_mul(2).and_then(|count| count.checked_add(1));
                if count == Some(numbers.len() as u64) {
                    return numbers[1..].chunks_exact(2).map(|piece| range(piece[0], piece[1])).collect();
                }
            }
        }
    }

    /// The map of holes of GNU tar's own old format, in the header and in blocks behind it.
    fn old_map(&mut self, header: &Header) -> io::Result<(u64, Vec<Range<u64>>)> {
        let damaged = |_| wrong("the map of the holes of a file makes no sense");
        let gnu = header.as_gnu().ok_or_else(|| wrong("a file with holes has no map of them"))?;
        let mut pieces = Vec::new();
        let mut add = |sparse: &[tar::GnuSparseHeader]| {
            if pieces.len() > PIECES_MAX {
                return Err(wrong("a file has too many holes"));
            }
            for piece in sparse.iter().filter(|piece| !piece.is_empty()) {
                pieces.push(range(piece.offset().map_err(damaged)?, piece.length().map_err(damaged)?)?);
            }
            Ok::<_, io::Error>(())
        };
        add(&gnu.sparse)?;
        let mut goes_on = gnu.is_extended();
        while goes_on {
            let mut more = GnuExtSparseHeader::new();
            self.from.read_exact(more.as_mut_bytes())?;
            add(more.sparse())?;
            goes_on = more.is_extended();
        }
        Ok((gnu.real_size().map_err(damaged)?, pieces))
    }
}

/// Pieces as GNU tar 0.0 and 0.1 have them: in records.
fn recorded(records: &Records) -> io::Result<Vec<Range<u64>>> {
    let makes_no_sense = || wrong("the map of the holes of a file makes no sense");
    let map = records.iter().rev().find(|(key, _)| key == b"GNU.sparse.map").map(|(_, value)| value.as_slice());
    let numbers: Option<Vec<u64>> = match map {
        Some(map) => map.split(|byte| *byte == b',').map(pax::number).collect(),
        None => {
            let is_one = |key: &[u8]| key == b"GNU.sparse.offset" || key == b"GNU.sparse.numbytes";
            records.iter().filter(|(key, _)| is_one(key)).map(|(_, value)| pax::number(value)).collect()
        }
    };
    let numbers = numbers.filter(|numbers| numbers.len() % 2 == 0).ok_or_else(makes_no_sense)?;
    numbers.chunks_exact(2).map(|piece| range(piece[0], piece[1])).collect()
}

fn range(start: u64, len: u64) -> io::Result<Range<u64>> {
    let end = start.checked_add(len).ok_or_else(|| wrong("a piece of a file lies nowhere"))?;
    Ok(start..end)
}

/// A name that ends with a zero.
fn ended(mut name: Vec<u8>) -> Vec<u8> {
    if name.last() == Some(&0) {
        name.pop();
    }
    name
}

/// Records `LENGTH KEY=VALUE\n`; a value may have any bytes, newlines as well.
fn parse(mut bytes: &[u8]) -> io::Result<Records> {
    let damaged = || wrong("a record makes no sense");
    let mut records = Records::new();
    while !bytes.is_empty() {
        let blank = bytes.iter().position(|byte| *byte == b' ').ok_or_else(damaged)?;
        let len = pax::number(&bytes[..blank]).and_then(|len| usize::try_from(len).ok()).ok_or_else(damaged)?;
        let record = bytes.get(blank + 1..len).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(damaged)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(damaged)?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        bytes = &bytes[len..];
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_any_bytes() {
        let mut bytes = Vec::new();
        pax::push(&mut bytes, b"SCHILY.acl.access", b"user::rwx\ngroup::r-x\n");
        pax::push(&mut bytes, b"k", b"a=b\n\0");
        let records = parse(&bytes).unwrap();
        assert_eq!(records[0].1, b"user::rwx\ngroup::r-x\n");
        assert_eq!(records[1], (b"k".to_vec(), b"a=b\n\0".to_vec()));
        for wrong in [&b"5"[..], b"x k=v\n", b"99 k=v\n", b"6 k=v\n6", b"5 kv\n", b"0 \n"] {
            assert!(parse(wrong).is_err(), "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_archive_is_said() {
        assert!(Members::new(&b""[..]).next().unwrap().is_none());
        assert!(Members::new(&[0; 1024][..]).next().unwrap().is_none());
        for (archive, has_end) in [(&b""[..], false), (&[0; 512], true), (&[0; 1024], true)] {
            let mut members = Members::new(archive);
            assert!(members.next().unwrap().is_none());
            assert_eq!(members.finish().unwrap(), has_end);
        }
        for wrong in [&b"no archive"[..], &[b'x'; 512][..]] {
            assert!(Members::new(wrong).next().is_err());
        }
    }
}
