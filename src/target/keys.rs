//! How the key that a store's sets are sealed with is had: wrapped in slots, each opened by a passphrase or by a key file.
//!
//! The key itself is random and never changes, so that a passphrase can be changed without writing a set again. What opens a slot
//! becomes a key by Argon2id (of a passphrase) or is one (of a key file), and the slot is sealed with that like any other piece.
//!
//! ```text
//! "pitfskey" │ version u32 │ length u32 │ slots, MessagePack │ XXH3 of all before
//! ```

use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::media::Shelf;
use crate::meta::encode;
use crate::set::{Key, Seal, random};
use crate::shown::shown_file;
use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

pub(super) const OBJECT: &str = "keys";
const MAGIC: &[u8; 8] = b"pitfskey";
const VERSION: u32 = 1;
/// Of a head and a checksum.
const BYTES_MIN: u64 = 24;
pub(super) const BYTES_MAX: u64 = 64 << 10;
const SLOTS_MAX: usize = 32;
const SALT: usize = 16;
/// What a key file begins with; 64 hexadecimal digits and an end of line follow.
const KEY_FILE: &str = "pitfs-key-1 ";

/// What opens a slot.
pub enum Opens {
    Passphrase(String),
    File(Key),
}

/// What it costs to try a passphrase, and so to guess one: as RFC 9106 recommends where memory is scarce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    pub memory_kib: u32,
    pub passes: u32,
}

impl Cost {
    const USUAL: Cost = Cost { memory_kib: 64 << 10, passes: 3 };
    /// What somebody may have prepared is not to take all memory.
    const MOST: Cost = Cost { memory_kib: 1 << 20, passes: 64 };
}

/// One way to the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Of a passphrase; a key file needs none.
    pub cost: Option<Cost>,
    salt: ByteBuf,
    sealed: ByteBuf,
}

/// The slots of one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    store: Id,
    slots: Vec<Slot>,
}

impl Keys {
    /// One slot for a new key.
    pub fn create(store: Id, key: &Key, opens: &Opens) -> Result<Keys> {
        let mut keys = Keys { store, slots: Vec::new() };
        keys.add(key, opens)?;
        Ok(keys)
    }

    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Another way to the same key.
    pub fn add(&mut self, key: &Key, opens: &Opens) -> Result<()> {
        self.add_at_cost(key, opens, Cost::USUAL)
    }

    pub(super) fn add_at_cost(&mut self, key: &Key, opens: &Opens, cost: Cost) -> Result<()> {
        if self.slots.len() >= SLOTS_MAX {
            let text = format!("there are {SLOTS_MAX} slots for keys, and all are taken; remove one");
            return Err(Error::Refused(Errno::NOSPC, text));
        }
        let refused = |problem| Error::Refused(Errno::IO, problem);
        let mut salt = vec![0; SALT];
        random(&mut salt).map_err(refused)?;
        let cost = matches!(opens, Opens::Passphrase(_)).then_some(cost);
        let mut sealed = key.bytes().to_vec();
        wrapping(opens, cost, &salt)?.close(&self.place(cost), &mut sealed).map_err(refused)?;
        self.slots.push(Slot { cost, salt: ByteBuf::from(salt), sealed: ByteBuf::from(sealed) });
        Ok(())
    }

    /// Takes a slot away; the last one stays.
    pub fn remove(&mut self, slot: usize) -> Result<()> {
        if slot >= self.slots.len() || self.slots.len() == 1 {
            let text =
                format!("there is no slot {slot} that could go: there are {}, and one has to stay", self.slots.len());
            return Err(Error::Refused(Errno::INVAL, text));
        }
        self.slots.remove(slot);
        Ok(())
    }

    /// The key, and the slot that opened.
    pub fn open(&self, opens: &Opens) -> Result<(Key, usize)> {
        let is_passphrase = matches!(opens, Opens::Passphrase(_));
        let mut tried = 0;
        for (number, slot) in self.slots.iter().enumerate().filter(|(_, slot)| slot.cost.is_some() == is_passphrase) {
            tried += 1;
            let mut piece = slot.sealed.to_vec();
            let opened = wrapping(opens, slot.cost, &slot.salt)?.open(&self.place(slot.cost), &mut piece);
            if opened.is_ok()
                && let Ok(key) = piece.as_slice().try_into()
            {
                return Ok((Key::of(key), number));
            }
        }
        let text = match (is_passphrase, tried) {
            (true, 0) => "no passphrase opens it, only a key file does",
            (true, _) => "the passphrase is wrong",
            (false, 0) => "no key file opens it, only a passphrase does",
            (false, _) => "the key file is that of something else",
        };
        Err(Error::Refused(Errno::KEYREJECTED, text.into()))
    }

    /// A slot of one store does not open for another's, nor as one of the other kind.
    fn place(&self, cost: Option<Cost>) -> Vec<u8> {
        [&b"pitfs slot"[..], &self.store.to_bytes(), &[u8::from(cost.is_some())]].concat()
    }

    /// The slots at a shelf; `None` where there are none.
    pub(super) fn read(shelf: &dyn Shelf, store: Id) -> Result<Option<Keys>> {
        let path = format!("{}/{OBJECT}", shelf.describe());
        let bytes = super::read_whole(shelf, OBJECT, BYTES_MIN..=BYTES_MAX)?;
        bytes.map(|bytes| Keys::decode(&bytes, store, &path)).transpose()
    }

    /// What an object says, whose path is told where it is damaged.
    pub(super) fn decode(bytes: &[u8], store: Id, path: &str) -> Result<Keys> {
        let damaged = |problem: &str| Error::corrupt(path, problem);
        if (bytes.len() as u64) < BYTES_MIN {
            return Err(damaged("it is not what was written"));
        }
        let (content, check) = bytes.split_at(bytes.len() - 8);
        if &content[..8] != MAGIC || xxh3_64(content).to_le_bytes() != *check {
            return Err(damaged("it is not what was written"));
        }
        if content[8..12] != VERSION.to_le_bytes() {
            return Err(Error::Store(format!("{path} has a format that this pitfs does not know; use a newer one")));
        }
        let slots: Vec<Slot> = rmp_serde::from_slice(&content[16..]).map_err(|_| damaged("its slots do not decode"))?;
        if slots.is_empty() || slots.len() > SLOTS_MAX {
            return Err(damaged("it has no slots, or too many"));
        }
        Ok(Keys { store, slots })
    }

    /// Puts the slots in the place of those that are there.
    pub fn write(&self, shelf: &dyn Shelf) -> Result<()> {
        let slots = encode(&self.slots);
        let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &(slots.len() as u32).to_le_bytes(), &slots].concat();
        let check = xxh3_64(&bytes);
        bytes.extend_from_slice(&check.to_le_bytes());
        let written = shelf.replace(OBJECT, &bytes);
        written.map_err(|error| Error::media(format!("writing {}/{OBJECT}", shelf.describe()), error))
    }
}

/// What seals a slot.
fn wrapping(opens: &Opens, cost: Option<Cost>, salt: &[u8]) -> Result<Seal> {
    let (passphrase, cost) = match (opens, cost) {
        (Opens::File(key), _) => return Ok(Seal::with(key)),
        (Opens::Passphrase(passphrase), cost) => (passphrase, cost.unwrap_or(Cost::USUAL)),
    };
    let is_possible = cost.memory_kib <= Cost::MOST.memory_kib && cost.passes <= Cost::MOST.passes;
    let refused = || Error::Refused(Errno::INVAL, format!("a slot asks for {cost:?}, and that is not done"));
    let params = is_possible.then(|| Params::new(cost.memory_kib, cost.passes, 1, Some(32)).ok()).flatten();
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.ok_or_else(refused)?);
    let mut key = [0; 32];
    argon.hash_password_into(passphrase.as_bytes(), salt, &mut key).map_err(|_| refused())?;
    Ok(Seal::with(&Key::of(key)))
}

/// The key in a file that [`make_key_file`] made.
pub fn read_key_file(path: &Path) -> Result<Key> {
    let mut text = String::new();
    let opened = crate::media::open_regular(path);
    let read = opened.and_then(|file| file.take(4096).read_to_string(&mut text));
    read.map_err(|error| super::failed("reading the key file", path, error))?;
    let key = text.trim_end().strip_prefix(KEY_FILE).and_then(of_hex);
    let none = || {
        let text = format!("{} is no key file: one is a line, \"{KEY_FILE}\" and 64 digits", shown_file(path));
        Error::Refused(Errno::INVAL, text)
    };
    key.map(Key::of).ok_or_else(none)
}

/// Makes a file with a new key, for nobody else to read; an error where there is one.
pub fn make_key_file(path: &Path) -> Result<Key> {
    let key = Key::random().map_err(|problem| Error::Refused(Errno::IO, problem))?;
    let digits: String = key.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let make = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(format!("{KEY_FILE}{digits}\n").as_bytes())?;
        file.sync_all()
    };
    make().map_err(|error| super::failed("making the key file", path, error))?;
    Ok(key)
}

fn of_hex(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::TestShelf;
    use std::sync::Arc;

    const CHEAP: Cost = Cost { memory_kib: 8, passes: 1 };

    fn key(byte: u8) -> Key {
        Key::of([byte; 32])
    }

    #[test]
    fn each_slot_opens_with_its_own_and_they_come_back() {
        let store = Id::random();
        let (first, second) = (Opens::Passphrase("correct horse".into()), Opens::File(key(7)));
        let mut keys = Keys { store, slots: Vec::new() };
        keys.add_at_cost(&key(1), &first, CHEAP).unwrap();
        assert!(keys.open(&second).unwrap_err().to_string().contains("only a passphrase"));
        keys.add(&key(1), &second).unwrap();
        let shelf = Arc::new(TestShelf::default());
        assert_eq!(Keys::read(&shelf, store).unwrap(), None);
        keys.write(&shelf).unwrap();
        let mut read = Keys::read(&shelf, store).unwrap().unwrap();
        assert_eq!(read, keys);
        assert_eq!(read.open(&first).unwrap(), (key(1), 0));
        assert_eq!(read.open(&second).unwrap(), (key(1), 1));
        assert!(read.open(&Opens::Passphrase("wrong".into())).unwrap_err().to_string().contains("passphrase is wrong"));
        assert!(read.open(&Opens::File(key(8))).unwrap_err().to_string().contains("something else"));
        // Slots of one store are nothing to another.
        assert!(Keys::read(&shelf, Id::random()).unwrap().unwrap().open(&second).is_err());
        // A passphrase is changed by another slot, without the key changing.
        read.add_at_cost(&key(1), &Opens::Passphrase("new".into()), CHEAP).unwrap();
        read.remove(0).unwrap();
        assert!(read.open(&first).is_err());
        assert_eq!(read.open(&Opens::Passphrase("new".into())).unwrap().0, key(1));
        read.remove(0).unwrap();
        assert!(read.remove(0).is_err());
    }

    #[test]
    fn damage_is_told_and_no_slot_takes_all_memory() {
        let (store, shelf) = (Id::random(), Arc::new(TestShelf::default()));
        let mut keys = Keys { store, slots: Vec::new() };
        keys.add_at_cost(&key(1), &Opens::Passphrase("p".into()), CHEAP).unwrap();
        keys.write(&shelf).unwrap();
        let len = shelf.open(OBJECT).unwrap().len() as usize;
        for at in 0..len {
            shelf.change(OBJECT, |bytes| bytes[at] ^= 4);
            assert!(Keys::read(&shelf, store).is_err(), "byte {at}");
            shelf.change(OBJECT, |bytes| bytes[at] ^= 4);
        }
        keys.slots[0].cost = Some(Cost { memory_kib: u32::MAX, passes: 1 });
        assert!(keys.open(&Opens::Passphrase("p".into())).unwrap_err().to_string().contains("is not done"));
    }

    #[test]
    fn a_key_file_is_made_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let key = make_key_file(&path).unwrap();
        assert_eq!(read_key_file(&path).unwrap(), key);
        assert!(make_key_file(&path).is_err());
        std::fs::write(&path, "something").unwrap();
        assert!(read_key_file(&path).unwrap_err().to_string().contains("no key file"));
        std::fs::write(&path, format!("{KEY_FILE}{}\n", "é".repeat(32))).unwrap();
        assert!(read_key_file(&path).is_err());
    }
}
