//! What was looked up in the durable tables a moment ago: an operation asks for the same record several times, and the next one
//! for what lies beside it. A durable state does not change, so that all of this stays true as long as the state is looked at.

use super::Table;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Records that are kept, each in the place that its key says.
const PLACES: usize = 256;
/// Longer ones are not.
const VALUE_BYTES_MAX: usize = 512;
/// Keys up to so long need no memory of their own.
const KEY_BYTES: usize = 32;

/// A record's bytes, or that there is none.
type Value = Option<Arc<[u8]>>;

pub(super) struct Known(Box<[Mutex<Option<Lookup>>]>);

struct Lookup {
    table: Table,
    key: SmallVec<[u8; KEY_BYTES]>,
    value: Value,
}

impl Default for Known {
    fn default() -> Known {
        Known((0..PLACES).map(|_| Mutex::default()).collect())
    }
}

impl Known {
    /// What a key has, if that is known.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<Value> {
        let place = self.place(table, key).lock();
        let found = place.as_ref().filter(|found| found.table == table && found.key.as_slice() == key)?;
        Some(found.value.clone())
    }

    /// A key was looked up.
    pub(super) fn note(&self, table: Table, key: &[u8], value: Option<&[u8]>) {
        if value.is_none_or(|value| value.len() <= VALUE_BYTES_MAX) {
            let found = Lookup { table, key: SmallVec::from_slice(key), value: value.map(Arc::from) };
            *self.place(table, key).lock() = Some(found);
        }
    }

    fn place(&self, table: Table, key: &[u8]) -> &Mutex<Option<Lookup>> {
        &self.0[xxh3_64_with_seed(key, table as u64) as usize % PLACES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_what_was_looked_up_under_that_very_key() {
        let known = Known::default();
        let key = |number: u32| number.to_be_bytes();
        let mut still = 0;
        for number in 0..4 * PLACES as u32 {
            let value = (!number.is_multiple_of(3)).then(|| key(number).to_vec());
            known.note(Table::Inode, &key(number), value.as_deref());
            assert_eq!(known.get(Table::Inode, &key(number)).unwrap().as_deref(), value.as_deref());
            assert!(known.get(Table::Dirent, &key(number)).is_none());
        }
        for number in 0..4 * PLACES as u32 {
            let Some(value) = known.get(Table::Inode, &key(number)) else { continue };
            assert_eq!(value.is_none(), number.is_multiple_of(3));
            assert!(value.is_none_or(|value| *value == key(number)));
            still += 1;
        }
        assert!(still > PLACES / 2 && still <= PLACES, "{still} are known");
        known.note(Table::Xattr, b"long", Some(&[7; VALUE_BYTES_MAX + 1]));
        assert!(known.get(Table::Xattr, b"long").is_none());
    }
}
