//! Compression of tracks, skipped where it saves no block.

use crate::limits::BLOCK_BYTES;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// How a track's bytes are stored. The numbers are part of the format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Codec {
    None,
    #[default]
    Lz4,
    Zstd,
}

impl From<Codec> for u8 {
    fn from(codec: Codec) -> u8 {
        match codec {
            Codec::None => 0,
            Codec::Lz4 => 1,
            Codec::Zstd => 2,
        }
    }
}

impl TryFrom<u8> for Codec {
    type Error = String;

    fn try_from(number: u8) -> Result<Codec, String> {
        match number {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Lz4),
            2 => Ok(Codec::Zstd),
            _ => Err(format!("compression {number} is not known")),
        }
    }
}

const ZSTD_LEVEL: i32 = 1;

/// A track as it will be stored.
pub struct Encoded<'a> {
    codec: Codec,
    raw_len: usize,
    stored: Cow<'a, [u8]>,
}

impl Encoded<'_> {
    pub fn codec(&self) -> Codec {
        self.codec
    }

    pub fn raw_len(&self) -> usize {
        self.raw_len
    }

    pub fn stored(&self) -> &[u8] {
        &self.stored
    }
}

pub(super) fn encode(codec: Codec, raw: &[u8]) -> Encoded<'_> {
    let compressed = match codec {
        _ if raw.len() <= BLOCK_BYTES => None,
        Codec::None => None,
        Codec::Lz4 => Some(lz4_flex::block::compress(raw)),
        // Only a lack of memory fails here; the track is then stored as it is.
        Codec::Zstd => zstd::bulk::compress(raw, ZSTD_LEVEL).ok(),
    };
    match compressed {
        Some(bytes) if bytes.len().div_ceil(BLOCK_BYTES) < raw.len().div_ceil(BLOCK_BYTES) => {
            Encoded { codec, raw_len: raw.len(), stored: Cow::Owned(bytes) }
        }
        _ => Encoded { codec: Codec::None, raw_len: raw.len(), stored: Cow::Borrowed(raw) },
    }
}

/// Gives back the `raw_len` bytes of a track, or says what is wrong.
pub(super) fn decode(codec: Codec, stored: Vec<u8>, raw_len: usize) -> Result<Vec<u8>, String> {
    let raw = match codec {
        Codec::None => stored,
        Codec::Lz4 => {
            lz4_flex::block::decompress(&stored, raw_len).map_err(|error| format!("it does not decompress: {error}"))?
        }
        Codec::Zstd => {
            zstd::bulk::decompress(&stored, raw_len).map_err(|error| format!("it does not decompress: {error}"))?
        }
    };
    if raw.len() == raw_len { Ok(raw) } else { Err(format!("it has {} bytes instead of {raw_len}", raw.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_gives_back_what_it_got() {
        let text: Vec<u8> = b"all the same words again and again ".iter().copied().cycle().take(70_000).collect();
        let noise: Vec<u8> = (0u64..70_000).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect();
        for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
            for raw in [&text[..], &noise[..], &text[..100], &[]] {
                let encoded = encode(codec, raw);
                assert!(encoded.stored().len() <= raw.len());
                assert_eq!(decode(encoded.codec(), encoded.stored().to_vec(), encoded.raw_len()).unwrap(), raw);
            }
        }
        assert!(encode(Codec::Lz4, &text).stored().len() < 2000);
        assert_eq!(encode(Codec::Zstd, &text[..4096]).codec(), Codec::None);
    }
}
