//! What a directory says of itself to be an archive: a small text file, made with it. Only the format in it is ever changed.

use super::{failed, sync};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::media::Directory;
use crate::shown::shown_file;

/// The label's name in the archive's directory.
pub const LABEL: &str = "archive";
const FIRST_LINE: &str = "pitfs archive";
/// From 5 on increments are sets.
const FORMAT: u32 = 5;
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
    pub fn read(directory: &Directory) -> Result<Option<Label>> {
        let path = directory.path().join(LABEL);
        let read = directory.read_label(LABEL, BYTES_MAX);
        let Some(text) = read.map_err(|error| failed("reading", &path, error))? else { return Ok(None) };
        parse(&text).map(Some).map_err(|problem| match problem {
            Problem::Damaged => Error::corrupt(
                shown_file(&path).to_string(),
                "it is no label of an archive; remove it, and `pitfs archive attach` makes one anew",
            ),
            Problem::Newer(format) => Error::Store(format!(
                "the archive {} has format {format}, and this pitfs knows formats up to {FORMAT}; use a newer pitfs",
                shown_file(directory.path())
            )),
        })
    }

    /// Labels a directory that has no label, durably; fails where somebody else was faster.
    pub fn create(&self, directory: &Directory) -> Result<()> {
        let made = directory.make_label(LABEL, &self.text());
        made.map_err(|error| failed("writing", &directory.path().join(LABEL), error))
    }

    /// Says of an archive of an older format that it has what programs of that time do not know.
    pub fn raise(directory: &Directory) -> Result<()> {
        let path = directory.path().join(LABEL);
        let failed = |error| failed("writing", &path, error);
        let read = directory.read_label(LABEL, BYTES_MAX).map_err(failed)?;
        let format = |text: &String| text.lines().nth(1).and_then(|line| line.strip_prefix("format ")?.parse().ok());
        if read.as_ref().and_then(format).is_none_or(|format: u32| format >= FORMAT) {
            return Ok(());
        }
        let Some(label) = Label::read(directory)? else { return Ok(()) };
        directory.replace_label(LABEL, &label.text()).map_err(failed)
    }

    fn text(&self) -> String {
        let Label { archive, store, base } = self;
        format!("{FIRST_LINE}\nformat {FORMAT}\nid {archive}\nstore {store}\nbase {base}\n")
    }

    /// Takes the label away again, durably.
    pub fn remove(directory: &Directory) -> Result<()> {
        directory.remove(LABEL).map_err(|error| failed("removing", &directory.path().join(LABEL), error))?;
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
        let directory = Directory::open(dir.path()).unwrap();
        assert_eq!(Label::read(&directory).unwrap(), None);
        let (first, second) = (label(), label());
        first.create(&directory).unwrap();
        assert!(second.create(&directory).is_err());
        assert_eq!(Label::read(&directory).unwrap(), Some(first));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_label_is_said() {
        let dir = TempDir::new().unwrap();
        let directory = Directory::open(dir.path()).unwrap();
        let path = dir.path().join(LABEL);
        for text in [&b""[..], b"pitfs archive", b"pitfs archive\nformat 4\nid 12\n", &[0xff; 9000]] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Label::read(&directory), Err(Error::Corrupt { .. })), "{text:?}");
        }
        std::fs::write(&path, "pitfs archive\nformat 6\n").unwrap();
        assert!(matches!(Label::read(&directory), Err(Error::Store(_))));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(Label::read(&directory).is_err());
    }
}
