//! Holds: snapshots that nothing takes away before everybody who wants them has said that they may go.

use super::refused;
use super::snapshot::Snapshots;
use crate::device::{HOLD_TAG, Snapshot, SnapshotRecord};
use crate::error::{Errno, Result};
use crate::limits::{HOLD_TAGS_MAX, NAME_BYTES_MAX};
use crate::shown::shown;

impl Snapshots<'_> {
    /// Holds snapshots for a reason, in one step; none of them if one cannot be.
    pub fn hold(self, names: &[&[u8]], tag: Option<&[u8]>) -> Result<Vec<Snapshot>> {
        let tag = tag.map(check_tag).transpose()?;
        let what = what("hold", tag);
        self.update_all(names, &what, |record| add_hold(record, tag.unwrap_or(HOLD_TAG)))
    }

    /// Takes a reason away, or all; of none of them if one is not held for it.
    pub fn release(self, names: &[&[u8]], tag: Option<&[u8]>) -> Result<Vec<Snapshot>> {
        let tag = tag.map(check_tag).transpose()?;
        let what = what("release", tag);
        self.update_all(names, &what, |record| {
            let tags = record.hold_tags();
            match (record.end_hold(tag), tag) {
                (false, Some(tag)) => {
                    let text = match tags.is_empty() {
                        true => format!("{:?} is not held", record.name),
                        false => {
                            format!("{:?} is not held with the tag {tag:?}, but with {}", record.name, tags.join(", "))
                        }
                    };
                    Err(refused(Errno::NOENT, text))
                }
                _ => Ok(()),
            }
        })
    }
}

/// Adds a reason to hold a snapshot, if there is room for one more.
pub(super) fn add_hold(record: &mut SnapshotRecord, tag: &str) -> Result<()> {
    record.add_hold(tag);
    match record.tags.len() > HOLD_TAGS_MAX {
        true => Err(refused(
            Errno::NOSPC,
            format!("{:?} is held for {HOLD_TAGS_MAX} reasons, and can have no more", record.name),
        )),
        false => Ok(()),
    }
}

/// For the history.
fn what(verb: &str, tag: Option<&str>) -> String {
    tag.map_or_else(|| verb.to_string(), |tag| format!("{verb} --tag {tag:?}"))
}

fn check_tag(tag: &[u8]) -> Result<&str> {
    let text = std::str::from_utf8(tag).ok();
    let fits = |text: &&str| !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control);
    text.filter(fits).ok_or_else(|| {
        let shown = shown(tag);
        let text = format!(
            "{shown:?} cannot be a tag: it has to be text of 1 to {NAME_BYTES_MAX} bytes without control characters"
        );
        refused(Errno::INVAL, text)
    })
}
