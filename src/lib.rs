//! pitfs shows every point in time of a tree of files as an ordinary directory.
//!
//! Layers, from the top; calls go down this list and never up:
//! `cli`, `control`, `daemon`, `fuse`, `view`, `tree`, `device`, `logstore`, `target`, `archive`, `set`, `journal`,
//! `meta`, `media`. Below all of them are `clock`, `error`, `fault`, `id`, `limits`, `purpose`, `shown` and `system`.
//! `docs/design.md` says what each knows and what it does not, `docs/code.md` where what is.

pub mod archive;
pub mod cli;
pub mod clock;
pub mod control;
pub mod daemon;
pub mod device;
pub mod error;
pub mod fault;
pub mod fuse;
pub mod id;
pub mod journal;
pub mod limits;
pub mod logstore;
pub mod media;
pub mod meta;
pub mod proc;
pub mod purpose;
pub mod set;
pub mod shown;
pub(crate) mod system;
pub mod target;
pub mod tree;
pub mod view;
