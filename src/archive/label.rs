//! What a directory says of itself to be an archive: a small text file, made with it and never changed.

use super::{failed, make_temporary, sync};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::media::{open_plain, rename_new, sync_directory};
use crate::shown::shown_file;
use std::io::{self, Read, Write};
use std::path::Path;

/// The label's name in the archive's directory.
pub const LABEL: &str = "archive";
const FIRST_LINE: &str = "pitfs archive";
const FORMAT: u32 = 4;
const BYTES_MAX: u64 = 4096;

/// Which archive it is, and whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    pub archive: Id,
    pub store: Id,
    pub base: Id,
}

impl Label {
    /// The label in a directory; `None` without any.
    pub fn read(directory: &Path) -> Result<Option<Label>> {
        let path = directory.join(LABEL);
        let mut text = String::new();
        match open_plain(&path).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text)) {
            Ok(_) => {}
            // Of the directory itself, or of what is in its place.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => text.clear(),
            Err(error) => return Err(failed("reading", &path, error)),
        }
        parse(&text).map(Some).map_err(|problem| match problem {
            Problem::Damaged => Error::corrupt(
                shown_file(&path).to_string(),
                "it is no label of an archive; remove it, and `pitfs archive attach` makes one anew",
            ),
            Problem::Newer(format) => Error::Store(format!(
                "the archive {} has format {format}, and this pitfs knows formats up to {FORMAT}; use a newer pitfs",
                shown_file(directory)
            )),
        })
    }

    /// Labels a directory that has no label, durably; fails where somebody else was faster.
    pub fn create(&self, directory: &Path) -> Result<()> {
        let path = directory.join(LABEL);
        let temporary = directory.join(format!(".{LABEL}.{}.new", Id::random().short()));
        let Label { archive, store, base } = self;
        let text = format!("{FIRST_LINE}\nformat {FORMAT}\nid {archive}\nstore {store}\nbase {base}\n");
        let write = || {
            let mut file = make_temporary(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            rename_new(&temporary, &path)?;
            sync_directory(directory)
        };
        write().map_err(|error| {
            // The error says enough.
            drop(std::fs::remove_file(&temporary));
            failed("writing", &path, error)
        })
    }

    /// Takes the label away again, durably.
    pub fn remove(directory: &Path) -> Result<()> {
        let path = directory.join(LABEL);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("removing", &path, error)),
            _ => {}
        }
        sync(directory)
    }
}

enum Problem {
    Damaged,
    Newer(u32),
}

fn parse(text: &str) -> Result<Label, Problem> {
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return Err(Problem::Damaged);
    }
    let format = lines.next().and_then(|line| line.strip_prefix("format ")?.parse().ok()).ok_or(Problem::Damaged)?;
    if format > FORMAT {
        return Err(Problem::Newer(format));
    }
    let mut id = |word: &str| {
        let found = lines.next().and_then(|line| line.strip_prefix(word)?.strip_prefix(' ')?.parse().ok());
        found.ok_or(Problem::Damaged)
    };
    Ok(Label { archive: id("id")?, store: id("store")?, base: id("base")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn label() -> Label {
        Label { archive: Id::random(), store: Id::random(), base: Id::random() }
    }

    #[test]
    fn a_label_comes_back_and_is_never_replaced() {
        let dir = TempDir::new().unwrap();
        assert_eq!(Label::read(dir.path()).unwrap(), None);
        let (first, second) = (label(), label());
        first.create(dir.path()).unwrap();
        assert!(second.create(dir.path()).is_err());
        assert_eq!(Label::read(dir.path()).unwrap(), Some(first));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_label_is_said() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join(LABEL);
        for text in [&b""[..], b"pitfs archive", b"pitfs archive\nformat 4\nid 12\n", &[0xff; 9000]] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Label::read(dir.path()), Err(Error::Corrupt { .. })), "{text:?}");
        }
        std::fs::write(&path, "pitfs archive\nformat 5\n").unwrap();
        assert!(matches!(Label::read(dir.path()), Err(Error::Store(_))));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(Label::read(dir.path()).is_err());
    }
}
