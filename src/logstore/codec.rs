//! Compression of tracks, skipped where it saves no block.

use super::Failure;
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

/// Fills `out` with the bytes of a track, which has so many, or says what is wrong.
pub(super) fn decode_into(codec: Codec, stored: &[u8], out: &mut [u8]) -> Result<(), Failure> {
    let found =
        match codec {
            Codec::None => {
                let len = stored.len().min(out.len());
                out[..len].copy_from_slice(&stored[..len]);
                stored.len()
            }
            Codec::Lz4 => lz4_flex::block::decompress_into(stored, out)
                .map_err(|error| format!("it does not decompress: {error}"))?,
            Codec::Zstd => zstd::bulk::decompress_to_buffer(stored, out)
                .map_err(|error| format!("it does not decompress: {error}"))?,
        };
    if found == out.len() { Ok(()) } else { Err(format!("it has {found} bytes instead of {}", out.len()).into()) }
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
                let mut out = vec![9; encoded.raw_len()];
                assert!(decode_into(encoded.codec(), encoded.stored(), &mut out).is_ok());
                assert_eq!(out, *raw);
                let mut longer = vec![9; encoded.raw_len() + 1];
                assert!(decode_into(encoded.codec(), encoded.stored(), &mut longer).is_err());
            }
        }
        assert!(encode(Codec::Lz4, &text).stored().len() < 2000);
        assert_eq!(encode(Codec::Zstd, &text[..4096]).codec(), Codec::None);
    }
}
