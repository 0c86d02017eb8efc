//! What a record that changed means to whoever shows the tree.

use super::names::Entry;
use super::{Kind, Tree, is_root};
use crate::device::InodeNo;
use crate::error::Result;
use crate::meta::Table;

/// Something of a live tree that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Altered {
    /// A name of a directory, and what it led to, if anything.
    Name {
        directory: InodeNo,
        name: Vec<u8>,
        then: Option<(InodeNo, Kind)>,
    },
    Inode(InodeNo),
}

/// What a change of a record means, with the record's value before; nothing where nobody outside can know of it.
pub(super) fn altered(tree: &Tree, table: Table, key: &[u8], before: Option<&[u8]>) -> Result<Option<Altered>> {
    let is_known = |inode: InodeNo| tree.held.is_known_outside(inode) || is_root(inode);
    if table != Table::Dirent {
        return Ok(InodeNo::of_key(key).filter(|inode| is_known(*inode)).map(Altered::Inode));
    }
    let (directory, name) = super::names::place_of(key)?;
    if !is_known(directory) {
        return Ok(None);
    }
    let then: Option<Entry> = before.map(|value| tree.names().entry_of(key, value)).transpose()?;
    let then = then.map(|entry| (entry.inode, entry.kind));
    Ok(Some(Altered::Name { directory, name: name.to_vec(), then }))
}
