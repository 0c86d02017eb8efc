//! What is said of work that outlives an operation, looked at without doing it.

use super::past::{BASE, INODE, INODE_WALK, InodeWalk, SEPARATE, SETTLE, SNAPSHOT, SWEEP, Settle, WALKED, work_number};
use super::separate::{LEFT, Left, Separate};
use crate::error::{Error, Result};
use crate::meta::{Table, decode, record_name};
/// Whether a record can be work: its key, and what is decoded of its value.
pub fn check_work(key: &[u8], value: &[u8]) -> Result<()> {
    let number = work_number(key)?;
    let table = Table::Orphan;
    match key[4] {
        INODE | BASE | WALKED => Ok(()),
        SNAPSHOT | SWEEP => decode::<serde_bytes::ByteBuf>(table, key, value).map(drop),
        SETTLE => Settle::of(key, value).map(drop),
        INODE_WALK => decode::<InodeWalk>(table, key, value).map(drop),
        SEPARATE if number == LEFT => decode::<Left>(table, key, value).map(drop),
        SEPARATE => decode::<Separate>(table, key, value).map(drop),
        kind => Err(Error::corrupt(record_name(table, key), format!("there is no work of kind {kind}"))),
    }
}
