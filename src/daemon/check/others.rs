//! Records that nothing else in a store leans on: each by itself, whether it can be what its table has.

use super::{Check, Paths, epochs};
use crate::device::InodeNo;
use crate::error::Result;
use crate::meta::Table;
use crate::{device, logstore, tree, view};

/// Whether a table is looked at where what it has leans on other records.
const fn is_looked_at_elsewhere(table: Table) -> bool {
    use Table::*;
    matches!(table, Inode | Dirent | Track | Link | Preimage | Increment | Segment | Shared | Base)
}

pub(super) fn all(check: &mut Check<'_>) -> Result<()> {
    for table in Table::ALL.into_iter().filter(|table| !is_looked_at_elsewhere(*table)) {
        check.each(table, |check, (key, value)| {
            if table == Table::Xattr {
                epochs::born(check, table, &key, &value);
            }
            let mut problem = check_record(table, &key, &value).err();
            if problem.is_none() && table == Table::Room {
                problem = logstore::check::room_of_nothing(&check.meta, &key)?;
            }
            if let Some(error) = problem
                && check.is_current(table, &key, &value)
            {
                let inode = InodeNo::of_key(&key).filter(|_| table == Table::Xattr);
                let paths = inode.map_or_else(Paths::default, |inode| check.paths_now(inode));
                check.problem(error.to_string(), paths);
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Whoever owns a table, or a key of `state`, says what is wrong with it. What opening a store takes apart, it says itself.
fn check_record(table: Table, key: &[u8], value: &[u8]) -> Result<()> {
    let owners = [
        view::check::check_record,
        tree::check::check_record,
        device::check::check_record,
        logstore::check::check_record,
    ];
    owners.iter().try_for_each(|owner| owner(table, key, value))
}
