//! What goes out is sealed: whoever opens it knows that it is what was written, for this very place, and, with a key, that nobody
//! without the key has read it or made it.
//!
//! With a key: XChaCha20-Poly1305, as the crate `chacha20poly1305` has it, with a random nonce for each piece. Without one: a
//! checksum, which tells damage and no forgery. The place is not stored; it is part of what is authenticated.

use crate::id::fill_random;
use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use std::fmt;
use xxhash_rust::xxh3::Xxh3;
use zeroize::Zeroize;

/// Bytes of a key.
const KEY: usize = 32;
const NONCE: usize = 24;
const TAG: usize = 16;
const CHECK: usize = 8;

/// What encrypts sets: 32 random bytes. It is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; KEY]);

impl Key {
    /// One that nobody has.
    pub fn random() -> Result<Key, String> {
        let mut bytes = [0; KEY];
        random(&mut bytes)?;
        Ok(Key(bytes))
    }

    pub fn of(bytes: [u8; KEY]) -> Key {
        Key(bytes)
    }

    pub fn bytes(&self) -> &[u8; KEY] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// How pieces are sealed.
#[derive(Clone)]
pub struct Seal(Option<XChaCha20Poly1305>);

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_secret() { "Seal(with a key)" } else { "Seal(checksums)" })
    }
}

impl Seal {
    /// Tells damage, and no more.
    pub fn plain() -> Seal {
        Seal(None)
    }

    pub fn with(key: &Key) -> Seal {
        Seal(Some(XChaCha20Poly1305::new(key.bytes().into())))
    }

    pub fn is_secret(&self) -> bool {
        self.0.is_some()
    }

    /// Bytes that a sealed piece has more than what is in it.
    pub(super) fn overhead(&self) -> usize {
        if self.is_secret() { NONCE + TAG } else { CHECK }
    }

    /// Seals a piece for a place; `piece` grows by [`Seal::overhead`].
    pub fn close(&self, place: &[u8], piece: &mut Vec<u8>) -> Result<(), String> {
        let Some(cipher) = &self.0 else {
            piece.extend_from_slice(&check(place, piece));
            return Ok(());
        };
        let nonce = random_nonce()?;
        let tag = cipher.encrypt_in_place_detached(&nonce, place, piece).map_err(|_| "it is too long to be sealed")?;
        piece.extend_from_slice(&nonce);
        piece.extend_from_slice(&tag);
        Ok(())
    }

    /// Takes the seal off a piece, or says what is wrong with it.
    pub fn open(&self, place: &[u8], piece: &mut Vec<u8>) -> Result<(), String> {
        let Some(len) = piece.len().checked_sub(self.overhead()) else {
            return Err(format!("it has {} bytes, too few to be sealed", piece.len()));
        };
        let (content, seal) = piece.split_at_mut(len);
        match &self.0 {
            None => {
                let (found, expected) = (check(place, content), &seal[..]);
                if found != expected {
                    return Err("its checksum is not that of its content and place".into());
                }
            }
            Some(cipher) => {
                let (nonce, tag) = seal.split_at(NONCE);
                let opened =
                    cipher.decrypt_in_place_detached(XNonce::from_slice(nonce), place, content, Tag::from_slice(tag));
                opened.map_err(|_| "it was not sealed with this key for this place, or was changed since")?;
            }
        }
        piece.truncate(len);
        Ok(())
    }
}

fn check(place: &[u8], content: &[u8]) -> [u8; CHECK] {
    let mut hash = Xxh3::new();
    hash.update(place);
    hash.update(content);
    hash.digest().to_le_bytes()
}

/// With 192 bits, no two ever are the same.
fn random_nonce() -> Result<XNonce, String> {
    let mut nonce = [0; NONCE];
    random(&mut nonce)?;
    Ok(XNonce::from(nonce))
}

/// Fills bytes that nobody can guess.
pub fn random(out: &mut [u8]) -> Result<(), String> {
    fill_random(out).map_err(|error| format!("the kernel gives no random bytes: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_opens_at_its_place_unchanged_and_with_its_key_alone() {
        let [key, other] = [1, 2].map(|byte| Seal::with(&Key::of([byte; KEY])));
        for seal in [Seal::plain(), key.clone()] {
            let mut piece = b"some content".to_vec();
            seal.close(b"here", &mut piece).unwrap();
            assert_eq!(piece.len(), 12 + seal.overhead());
            let mut same = piece.clone();
            seal.open(b"here", &mut same).unwrap();
            assert_eq!(same, b"some content");
            assert!(seal.open(b"there", &mut piece.clone()).is_err());
            for at in 0..piece.len() {
                let mut changed = piece.clone();
                changed[at] ^= 1;
                assert!(seal.open(b"here", &mut changed).is_err(), "byte {at}");
                assert!(seal.open(b"here", &mut piece[..at].to_vec()).is_err(), "{at} bytes");
            }
        }
        let mut piece = b"secret".to_vec();
        key.close(b"", &mut piece).unwrap();
        assert!(!piece.windows(6).any(|some| some == b"secret"));
        assert!(other.open(b"", &mut piece.clone()).is_err());
        assert!(Seal::plain().open(b"", &mut piece).is_err());
    }
}
