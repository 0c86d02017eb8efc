//! What a file outside the store looked like when it was brought in, to skip it while it stays so.
//!
//! These records have no history: they only save work.

use super::likeness::Likeness;
use crate::clock::Timestamp;
use crate::device::{InodeNo, Txn};
use crate::error::Result;
use crate::meta::Table;
use serde::{Deserialize, Serialize};

/// The facts by which a source file is taken for unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    /// The change time that the stored copy had afterwards: if it differs, the copy was changed.
    pub copy_ctime: Timestamp,
}

impl Likeness<'_> {
    pub fn origin(self, number: InodeNo) -> Result<Option<Origin>> {
        self.tree.device.look()?.meta().get(Table::Origin, &number.prefix())
    }

    pub fn set_origin(self, number: InodeNo, origin: &Origin) -> Result<()> {
        let mut txn = self.tree.device.begin()?;
        txn.meta_mut().put(Table::Origin, &number.prefix(), origin);
        txn.finish()
    }
}

pub(super) fn forget(txn: &mut Txn<'_>, number: InodeNo) -> Result<()> {
    if txn.meta().contains(Table::Origin, &number.prefix())? {
        txn.meta_mut().remove(Table::Origin, &number.prefix());
    }
    Ok(())
}
