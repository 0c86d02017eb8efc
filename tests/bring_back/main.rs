//! Bringing single files and directories back in place.

mod kinds;
mod mounted_store;
mod random;
mod store;
