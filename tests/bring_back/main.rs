//! Bringing single files and directories back in place.

#[path = "../mounted/guard.rs"]
mod guard;
mod kinds;
mod mounted_store;
mod random;
mod store;
