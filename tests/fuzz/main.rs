//! Hostile bytes wherever bytes are decoded: an error, and never a panic, a hang or memory without bounds.
//!
//! Each target runs for a second in `cargo test`, and as long as `make fuzz SECONDS=n` says. With
//! cargo-bolero they run under a coverage-guided fuzzer as well (`cargo bolero test records::…`).

mod allocations;
mod control;
mod journal;
mod names;
mod pages;
mod records;
mod sample;
mod sets;
mod tracks;
mod watch;
