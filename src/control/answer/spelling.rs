//! How times and paths are spelled, in every answer alike.
//!
//! A time is text with its numbers beside it. A path is text, and where it is none, text with escapes and all its bytes
//! in hexadecimal beside it: so nothing is lost, and whoever wants text has some.

use crate::clock::Timestamp;
use crate::shown::shown;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A moment under the name `time`. To be flattened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeInfo {
    #[serde(rename = "time")]
    pub text: String,
    /// Since 1970.
    pub seconds: i64,
    pub nanoseconds: u32,
}

impl From<Timestamp> for TimeInfo {
    fn from(time: Timestamp) -> TimeInfo {
        TimeInfo { text: time.as_text(), seconds: time.seconds, nanoseconds: time.nanos }
    }
}

/// A path of any bytes. To be flattened, with one of the names below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathText(Vec<u8>);

impl PathText {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }
}

/// As people are to see it.
impl fmt::Display for PathText {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        shown(&self.0).fmt(out)
    }
}

impl From<&[u8]> for PathText {
    fn from(bytes: &[u8]) -> PathText {
        PathText(bytes.to_vec())
    }
}

impl From<Vec<u8>> for PathText {
    fn from(bytes: Vec<u8>) -> PathText {
        PathText(bytes)
    }
}

impl From<&Path> for PathText {
    fn from(path: &Path) -> PathText {
        PathText(path.as_os_str().as_bytes().to_vec())
    }
}

impl From<PathBuf> for PathText {
    fn from(path: PathBuf) -> PathText {
        PathText(path.into_os_string().into_vec())
    }
}

impl From<PathText> for PathBuf {
    fn from(path: PathText) -> PathBuf {
        path.as_path().to_path_buf()
    }
}

/// A path, or none, in a field.
pub trait PathField: Sized {
    fn bytes(&self) -> Option<&[u8]>;
    /// Nothing where it is missing and must not be.
    fn of(bytes: Option<Vec<u8>>) -> Option<Self>;
}

impl PathField for PathText {
    fn bytes(&self) -> Option<&[u8]> {
        Some(&self.0)
    }

    fn of(bytes: Option<Vec<u8>>) -> Option<PathText> {
        bytes.map(PathText)
    }
}

impl PathField for Option<PathText> {
    fn bytes(&self) -> Option<&[u8]> {
        self.as_ref().map(PathText::as_bytes)
    }

    fn of(bytes: Option<Vec<u8>>) -> Option<Option<PathText>> {
        Some(bytes.map(PathText))
    }
}

/// What stands under a path's name, and what beside it.
fn spelled(path: &impl PathField) -> (Option<String>, Option<String>) {
    let Some(bytes) = path.bytes() else { return (None, None) };
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_string()), None),
        Err(_) => (Some(shown(bytes).to_string()), Some(hex(bytes))),
    }
}

fn read<P: PathField, E: serde::de::Error>(text: Option<String>, hex: Option<String>) -> Result<P, E> {
    let bytes = match hex {
        Some(hex) => Some(unhex(&hex).ok_or_else(|| E::custom("the bytes of a path are not in hexadecimal"))?),
        None => text.map(String::into_bytes),
    };
    P::of(bytes).ok_or_else(|| E::custom("a path is missing"))
}

/// Modules for `#[serde(flatten, with = …)]`, each for paths of one name.
macro_rules! path_names {
    ($($module:ident: $name:literal, $hex:literal;)*) => {$(
        pub mod $module {
            use super::{PathField, read, spelled};
            use serde::{Deserialize, Deserializer, Serialize, Serializer};

            #[derive(Serialize, Deserialize)]
            struct Pair {
                #[serde(rename = $name)]
                text: Option<String>,
                #[serde(rename = $hex, default, skip_serializing_if = "Option::is_none")]
                hex: Option<String>,
            }

            pub fn serialize<S: Serializer>(path: &impl PathField, serializer: S) -> Result<S::Ok, S::Error> {
                let (text, hex) = spelled(path);
                Pair { text, hex }.serialize(serializer)
            }

            pub fn deserialize<'de, P: PathField, D: Deserializer<'de>>(deserializer: D) -> Result<P, D::Error> {
                let Pair { text, hex } = Pair::deserialize(deserializer)?;
                read(text, hex)
            }
        }
    )*};
}

path_names! {
    archive: "archive", "archive_hex";
    directory: "directory", "directory_hex";
    file: "file", "file_hex";
    key_file: "key_file", "key_file_hex";
    from: "from", "from_hex";
    merged_into: "merged_into", "merged_into_hex";
    mount_point: "mount_point", "mount_point_hex";
    path: "path", "path_hex";
    store: "store", "store_hex";
    unmounted: "unmounted", "unmounted_hex";
}

/// An object with nothing but a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathInfo {
    #[serde(flatten, with = "path")]
    pub path: PathText,
}

/// An object with nothing but a directory outside the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryInfo {
    #[serde(flatten, with = "directory")]
    pub directory: PathText,
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Bytes in hexadecimal; of many it takes no time.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// Bytes in hexadecimal, for `#[serde(with = …)]`.
pub mod hexadecimal {
    use super::{hex, unhex};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        unhex(&text).ok_or_else(|| D::Error::custom("bytes are not in hexadecimal"))
    }
}

#[cfg(test)]
mod tests {
    use super::{DirectoryInfo, PathInfo, hex, unhex};
    use serde::{Deserialize, Serialize};

    #[test]
    fn paths_of_any_bytes_come_back() {
        for (bytes, told) in [
            (&b"plain \\ \n \xc3\xa4"[..], r#"{"path":"plain \\ \n ä"}"#),
            (b"", r#"{"path":""}"#),
            (b"\\\xff\n", r#"{"path":"\\\\\\xff\\n","path_hex":"5cff0a"}"#),
        ] {
            let info = PathInfo { path: bytes.into() };
            assert_eq!(serde_json::to_string(&info).unwrap(), told);
            assert_eq!(serde_json::from_str::<PathInfo>(told).unwrap(), info);
        }
        for wrong in ["{}", r#"{"directory":null}"#, r#"{"directory":"x","directory_hex":"abc"}"#] {
            assert!(serde_json::from_str::<DirectoryInfo>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_may_be_missing_is_null() {
        #[derive(Serialize, Deserialize)]
        struct Merged {
            #[serde(flatten, with = "super::merged_into")]
            path: Option<super::PathText>,
        }
        let none = serde_json::to_string(&Merged { path: None }).unwrap();
        assert_eq!(none, r#"{"merged_into":null}"#);
        assert_eq!(serde_json::from_str::<Merged>(&none).unwrap().path, None);
    }

    #[test]
    fn hexadecimal_is_of_whole_bytes() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&all)), Some(all));
        assert!(["0", "0g", "+1", "0 ", "ä"].iter().all(|text| unhex(text).is_none()));
    }
}
