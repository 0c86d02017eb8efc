//! Increments outside the store: files that need nothing else to be read, written once and never changed.
//!
//! This layer knows how such a file is laid out, and that its records have a table, a key, a birth and a value. What
//! they mean, and which increments belong together, is for the layers above.

mod catalog;
mod increment;

pub use catalog::{Archive, Broken, Increment, IndexEntry, file_name, survey};
pub use increment::{Entries, Entry, Header, LEVEL, Mark, Place, Reader, Summary, Value, Writer};
