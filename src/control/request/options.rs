//! How the options of verbs that a layer below carries out are spelled.

use crate::clock::{Period, Timestamp};
use crate::daemon::{MergeOptions, PruneOptions, RestoreOptions, RollOptions, SyncOptions};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::path::PathBuf;

#[derive(Serialize, Deserialize)]
#[serde(remote = "RestoreOptions", deny_unknown_fields)]
pub(super) struct CopyOut {
    #[serde(with = "serde_bytes")]
    snapshot: Vec<u8>,
    paths: Vec<ByteBuf>,
    #[serde(with = "crate::meta::path")]
    to: PathBuf,
    overwrite: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "RollOptions", deny_unknown_fields)]
pub(super) struct Roll {
    #[serde(default, with = "crate::meta::path::optional")]
    archive: Option<PathBuf>,
    keep: Option<u64>,
    name: Option<ByteBuf>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "SyncOptions", deny_unknown_fields)]
pub(super) struct Sync {
    #[serde(with = "crate::meta::path")]
    source: PathBuf,
    #[serde(with = "serde_bytes")]
    destination: Vec<u8>,
    exclude: Vec<ByteBuf>,
    one_file_system: bool,
    dry_run: bool,
    #[serde(rename = "new_store")]
    is_new_store: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "PruneOptions", deny_unknown_fields)]
pub(super) struct Prune {
    keep: Option<u64>,
    #[serde(default, with = "moment")]
    before: Option<Timestamp>,
    #[serde(rename = "dry_run")]
    is_dry_run: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "MergeOptions", deny_unknown_fields)]
pub(super) struct Merge {
    #[serde(with = "Per")]
    per: Period,
    #[serde(default, with = "moment")]
    before: Option<Timestamp>,
    #[serde(rename = "dry_run")]
    is_dry_run: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Period", rename_all = "snake_case")]
enum Per {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

/// A time, or none, by its numbers.
mod moment {
    use crate::clock::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Moment {
        seconds: i64,
        #[serde(deserialize_with = "crate::limits::number::nanos")]
        nanoseconds: u32,
    }

    pub fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        time.map(|time| Moment { seconds: time.seconds, nanoseconds: time.nanos }).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        let moment = Option::<Moment>::deserialize(deserializer)?;
        Ok(moment.map(|Moment { seconds, nanoseconds }| Timestamp { seconds, nanos: nanoseconds }))
    }
}
