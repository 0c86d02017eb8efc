//! What of a moment in a set cannot be read: by path, as far as the way to it can.

use super::inode::Inode;
use crate::error::{Error, Result};
use crate::id::Id;
use crate::meta::{Table, decode};
use crate::set::{Sets, Spot, Value};
use crate::shown::shown;
use std::collections::BTreeSet;

/// Paths that are named.
const PATHS_MOST: usize = 1000;
/// Directories above one, after which a circle is suspected.
const DEPTH_MOST: usize = 10_000;

/// What is lost of a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Files of which something cannot be read.
    pub paths: Vec<String>,
    pub more_paths: u64,
    /// Pieces of the index that cannot be read, and why: what they name may be missing.
    pub index: Vec<String>,
}

impl Lost {
    pub fn is_nothing(&self) -> bool {
        self.paths.is_empty() && self.index.is_empty()
    }
}

/// Looks through a moment; `is_damaged` says of a frame with data whether it is.
pub fn lost_of(sets: &Sets, moment: Id, is_damaged: &dyn Fn(&Spot) -> bool) -> Result<Lost> {
    let mut lost = Lost::default();
    let mut inodes: BTreeSet<Vec<u8>> = BTreeSet::new();
    let all = match sets.scan(moment, b"", &[0xff]) {
        Err(error @ (Error::Corrupt { .. } | Error::Store(_) | Error::Media { .. })) => {
            lost.index.push(error.to_string());
            return Ok(lost);
        }
        scan => scan?,
    };
    for entry in all {
        match entry {
            Ok(entry) => {
                let is_lost = match &entry.value {
                    Value::Record(_) => false,
                    Value::Track { place, .. } => is_damaged(place),
                    Value::Lost => true,
                };
                if is_lost && let Some(inode) = entry.key.get(1..9) {
                    inodes.insert(inode.to_vec());
                }
            }
            Err(error @ (Error::Corrupt { .. } | Error::Store(_) | Error::Media { .. })) => {
                lost.index.push(error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    lost.more_paths = inodes.len().saturating_sub(PATHS_MOST) as u64;
    lost.paths = inodes.iter().take(PATHS_MOST).map(|inode| path_of(sets, moment, inode)).collect();
    Ok(lost)
}

/// The path of an inode in a moment; what cannot be found of it is `?`.
fn path_of(sets: &Sets, moment: Id, inode: &[u8]) -> String {
    let (mut names, mut at) = (Vec::new(), inode.to_vec());
    for _ in 0..DEPTH_MOST {
        let key = [&[Table::Inode as u8][..], &at].concat();
        let record = match sets.find(moment, &key) {
            Ok(Some(entry)) => match entry.value {
                Value::Record(record) => decode::<Inode>(Table::Inode, &key, &record).ok(),
                Value::Track { .. } | Value::Lost => None,
            },
            Ok(None) | Err(_) => None,
        };
        let Some(found) = record else {
            names.push(b"?".to_vec());
            break;
        };
        // The root has no name.
        if found.name.is_empty() {
            break;
        }
        names.push(found.name.to_vec());
        at = found.parent.number().to_be_bytes().to_vec();
    }
    names.reverse();
    shown(&names.join(&b'/')).to_string()
}
