//! Work that outlives an operation: in which order it is done, and what is said of it, looked at without doing it.

use super::past::{
    BASE, BaseId, INODE, INODE_WALK, InodeWalk, SEPARATE, SETTLE, SNAPSHOT, SWEEP, Settle, WALKED, work_number,
};
use super::separate::{LEFT, Left, Separate};
use crate::error::{Error, Result};
use crate::meta::{Table, decode, record_name};

/// Does a piece of the first that has something to do; false where none has. What is damaged in one holds up no other, and
/// is told when there is nothing else to do.
pub(super) fn first_that_works(
    bases: impl IntoIterator<Item = BaseId>,
    mut step: impl FnMut(BaseId) -> Result<bool>,
) -> Result<bool> {
    let mut damage = None;
    for base in bases {
        match step(base) {
            Ok(false) => {}
            Err(error @ Error::Corrupt { .. }) => damage = damage.or(Some(error)),
            done => return done,
        }
    }
    damage.map_or(Ok(false), Err)
}

/// Whether a record can be work: its key, and what is decoded of its value.
pub(super) fn check_work(key: &[u8], value: &[u8]) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::LIVE;

    #[test]
    fn damage_in_one_holds_up_no_other_and_is_told() {
        let bases = [LIVE, LIVE.next(), LIVE.next().next()];
        let corrupt = || Err(Error::corrupt("a base", "is damaged"));
        let with = |at: BaseId, what: fn() -> Result<bool>| {
            move |base| match base {
                LIVE => corrupt(),
                base if base == at => what(),
                _ => Ok(false),
            }
        };
        assert!(first_that_works(bases, with(bases[2], || Ok(true))).unwrap());
        assert!(matches!(first_that_works(bases, with(bases[2], || Ok(false))), Err(Error::Corrupt { .. })));
        // What is wrong with the store concerns all.
        let stopped = first_that_works(bases, with(bases[1], || Err(Error::Stopped(String::new()))));
        assert!(matches!(stopped, Err(Error::Stopped(_))));
        assert!(!first_that_works(bases, |_| Ok(false)).unwrap());
    }
}
