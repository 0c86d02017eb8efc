//! The members of a tar archive, one after the other, as they come: each with its name, its records, and where its bytes go.
//! Headers are those of POSIX, with what GNU tar adds to them; what is in front of a member to describe it is taken in here.

use super::pax;
use std::io::{self, Read};
use std::ops::Range;
use tar::{EntryType, GnuExtSparseHeader, Header};

const BLOCK: usize = 512;
/// Bytes of records, of a name, or of a map of holes, at most.
const FRONT_BYTES_MAX: u64 = 64 << 20;

pub type Records = Vec<(Vec<u8>, Vec<u8>)>;

pub struct Member {
    pub header: Header,
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub records: Records,
    pub size: u64,
    /// Where its bytes go, one piece after the other.
    pub pieces: Vec<Range<u64>>,
}

pub struct Members<R> {
    from: R,
    /// Bytes of the member under way that were not read yet, and what fills up its last block.
    left: u64,
    filling: u64,
    /// Records that hold for all that follows.
    global: Records,
}

fn wrong(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it is no tar archive, or damaged: {problem}"))
}

impl<R: Read> Members<R> {
    pub fn new(from: R) -> Members<R> {
        Members { from, left: 0, filling: 0, global: Vec::new() }
    }

    /// The next member, after what was not read of the one before.
    pub fn next(&mut self) -> io::Result<Option<Member>> {
        let skipped = self.left + self.filling;
        if io::copy(&mut (&mut self.from).take(skipped), &mut io::sink())? < skipped {
            return Err(wrong("it ends in the middle of a file"));
        }
        (self.left, self.filling) = (0, 0);
        let (mut records, mut long_name, mut long_link) = (self.global.clone(), None, None);
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size().map_err(|_| wrong("a size makes no sense"))?;
            match header.entry_type() {
                EntryType::XHeader => {
                    let front = self.front(size)?;
                    records.extend(parse(&front)?);
                }
                EntryType::XGlobalHeader => {
                    let front = self.front(size)?;
                    self.global.extend(parse(&front)?);
                    records.splice(0..0, self.global.clone());
                }
                EntryType::GNULongName => long_name = Some(ended(self.front(size)?)),
                EntryType::GNULongLink => long_link = Some(ended(self.front(size)?)),
                _ => return self.member(header, size, records, (long_name, long_link)).map(Some),
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
        let find = |key: &[u8]| records.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.clone());
        let number = |key: &[u8]| find(key).and_then(|value| std::str::from_utf8(&value).ok()?.parse::<u64>().ok());
        let path = find(b"GNU.sparse.name").or_else(|| find(b"path")).or(long_name);
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = find(b"linkpath").or(long_link);
        let link = link.unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
        let kind = header.entry_type();
        let stored = match kind {
            EntryType::Link | EntryType::Symlink | EntryType::Directory => 0,
            EntryType::Char | EntryType::Block | EntryType::Fifo => 0,
            _ => number(b"size").unwrap_or(size),
        };
        self.left = stored;
        self.filling = stored.next_multiple_of(BLOCK as u64) - stored;
        let (size, pieces) = match number(b"GNU.sparse.major") {
            Some(1) => (number(b"GNU.sparse.realsize").unwrap_or(stored), self.map()?),
            _ if kind == EntryType::GNUSparse => self.old_map(&header)?,
            _ => (stored, std::iter::once(0..stored).collect()),
        };
        Ok(Member { header, path, link, records, size, pieces })
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
        let Some(block) = self.block()?.filter(|block| block.iter().any(|byte| *byte != 0)) else { return Ok(None) };
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
            if self.left < BLOCK as u64 || text.len() as u64 > FRONT_BYTES_MAX {
                return Err(wrong("the map of the holes of a file makes no sense"));
            }
            text.extend(self.block()?.ok_or_else(|| wrong("it ends in the map of the holes of a file"))?);
            self.left -= BLOCK as u64;
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
        for wrong in [&b"no archive"[..], &[b'x'; 512][..]] {
            assert!(Members::new(wrong).next().is_err());
        }
    }
}
