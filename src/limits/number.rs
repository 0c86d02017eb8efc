//! Numbers in records, decoded with a limit: what is above it makes no sense, and nothing computes with it.
//!
//! For `#[serde(deserialize_with = "…")]`, or the type's own decoding; each for one kind of number.

use super::*;
use serde::de::{Deserialize, Deserializer, Error};
use std::fmt::Display;

fn checked<T: PartialOrd + Display, E: Error>(number: T, most: T, what: &str) -> Result<T, E> {
    match number <= most {
        true => Ok(number),
        false => Err(E::custom(format!("{what} of {number} is not possible, {most} is the most"))),
    }
}

fn up_to<'de, D: Deserializer<'de>>(deserializer: D, most: u64, what: &str) -> Result<u64, D::Error> {
    checked(u64::deserialize(deserializer)?, most, what)
}

pub fn blocks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    up_to(deserializer, BLOCKS_MAX, "a number of blocks")
}

pub fn known_blocks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let number = Option::<u64>::deserialize(deserializer)?;
    number.map(|number| checked(number, BLOCKS_MAX, "a number of blocks")).transpose()
}

pub fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    up_to(deserializer, BYTES_MAX, "a number of bytes")
}

pub fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    up_to(deserializer, COUNT_MAX, "a count")
}

pub fn segments<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    up_to(deserializer, PSEGS_MAX / PSEGS_IN_SEGMENT as u64, "a number of segments")
}

pub fn segment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    up_to(deserializer, SEGMENTS_MAX, "a segment's number")
}

pub fn epoch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    checked(u32::deserialize(deserializer)?, EPOCHS_MAX, "an epoch")
}

pub fn nanos<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    checked(u32::deserialize(deserializer)?, 999_999_999, "a number of nanoseconds")
}
