//! What the tests of the store share.

pub mod bases;
pub mod check;
pub mod compare;
pub mod model;
pub mod rng;
pub mod world;
