//! Paths in records and requests: bytes as they are, since a name need not be UTF-8.

use crate::limits::NAME_BYTES_MAX;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::{ByteBuf, Bytes};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Whether something in a directory can have this name. What records say is asked as well: with right checksums they may have
/// been prepared by somebody, and a name that leads elsewhere is not to be followed.
pub fn is_name(name: &[u8]) -> bool {
    let is_special = matches!(name, b"" | b"." | b"..");
    !is_special && name.len() <= NAME_BYTES_MAX && !name.contains(&b'/') && !name.contains(&0)
}

/// For `#[serde(with = "crate::meta::path")]`.
pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    Bytes::new(path.as_os_str().as_bytes()).serialize(serializer)
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    ByteBuf::deserialize(deserializer).map(of_bytes)
}

fn of_bytes(bytes: ByteBuf) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.into_vec()))
}

/// The same of a path that may be missing.
pub mod optional {
    use super::*;

    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        match path {
            Some(path) => serializer.serialize_some(Bytes::new(path.as_os_str().as_bytes())),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<ByteBuf>::deserialize(deserializer)?.map(of_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Message {
        #[serde(with = "super")]
        path: PathBuf,
        #[serde(with = "super::optional")]
        other: Option<PathBuf>,
    }

    #[test]
    fn any_bytes_survive_the_way_there_and_back() {
        let path = PathBuf::from(OsString::from_vec(b"/alt\xe9/x".to_vec()));
        for other in [None, Some(path.clone())] {
            let message = Message { path: path.clone(), other };
            let bytes = crate::meta::encode(&message);
            assert_eq!(rmp_serde::from_slice::<Message>(&bytes).unwrap(), message);
        }
    }
}
