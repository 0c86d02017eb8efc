//! The layers below FUSE, taken through what can happen to a store: random operations, power cuts,
//! damage and a full disk.

mod chain;
mod common;
mod crash;
mod damage;
mod from_sets;
mod full;
mod journal;
mod keeping;
mod model;
mod regions;
mod sets;
mod unread;
