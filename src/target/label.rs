//! What a directory says of itself to be a target: a small text file, made with it and never changed.

use super::failed;
use crate::error::{Error, Result};
use crate::id::Id;
use crate::media::Directory;
use crate::shown::shown_file;

const LABEL: &str = "target";
const FIRST_LINE: &str = "pitfs target";
const FORMAT: u32 = 1;
const BYTES_MAX: u64 = 4096;

/// Which target it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    pub target: Id,
}

impl Label {
    /// The label in a directory; `None` without any.
    pub fn read(directory: &Directory) -> Result<Option<Label>> {
        let path = directory.path().join(LABEL);
        let read = directory.read_label(LABEL, BYTES_MAX);
        let Some(text) = read.map_err(|error| failed("reading", &path, error))? else { return Ok(None) };
        let mut lines = text.lines();
        let is_ours = lines.next() == Some(FIRST_LINE);
        let format: Option<u32> = lines.next().and_then(|line| line.strip_prefix("format ")?.parse().ok());
        let id = lines.next().and_then(|line| line.strip_prefix("id ")?.parse().ok());
        match (is_ours, format, id) {
            (true, Some(FORMAT), Some(target)) => Ok(Some(Label { target })),
            (true, Some(format), _) if format > FORMAT => Err(Error::Store(format!(
                "the target {} has format {format}, and this pitfs knows format {FORMAT}; use a newer pitfs",
                shown_file(directory.path())
            ))),
            _ => Err(Error::corrupt(shown_file(&path).to_string(), "it is no label of a target")),
        }
    }

    /// Labels a directory that has no label, durably.
    pub(super) fn create(&self, directory: &Directory) -> Result<()> {
        let text = format!("{FIRST_LINE}\nformat {FORMAT}\nid {}\n", self.target);
        let made = directory.make_label(LABEL, &text);
        made.map_err(|error| failed("writing", &directory.path().join(LABEL), error))
    }
}
