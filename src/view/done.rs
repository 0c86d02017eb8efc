//! When what keeps a store well was last done, as a whole: rolls, backups, checks.

use super::Views;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::meta::{Table, decode};
use serde::{Deserialize, Serialize};

const DONE: &[u8] = b"done ";

/// What is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    Roll,
    Backup,
    Check,
}

impl Upkeep {
    pub const ALL: [Upkeep; 3] = [Upkeep::Roll, Upkeep::Backup, Upkeep::Check];

    pub fn name(self) -> &'static str {
        match self {
            Upkeep::Roll => "roll",
            Upkeep::Backup => "backup",
            Upkeep::Check => "check",
        }
    }

    fn key(self) -> Vec<u8> {
        [DONE, self.name().as_bytes()].concat()
    }
}

/// When it last came to its end, and how many problems it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    pub time: Timestamp,
    pub problems: u64,
}

/// What a record says of it, if it is one of those.
pub(super) fn check_record(key: &[u8], value: &[u8]) -> Result<()> {
    match key.starts_with(DONE) {
        true => decode::<Done>(Table::State, key, value).map(drop),
        false => Ok(()),
    }
}

/// Notes that it was done now. A store that cannot be changed, or that is only read, keeps what it had. What was done stays done
/// where that cannot be noted.
pub fn note_upkeep(views: &Views, what: Upkeep, problems: u64) {
    if views.is_rehearsing() || views.tree.device().check_running().is_err() {
        return;
    }
    let noted = views.tree.device().begin().and_then(|mut txn| {
        txn.meta_mut().put(Table::State, &what.key(), &Done { time: Timestamp::now(), problems });
        txn.finish()
    });
    if let Err(error) = noted {
        log::warn!("that a {} was done is not noted: {error}", what.name());
    }
}

/// When it was last done, if ever.
pub fn last_upkeep(views: &Views, what: Upkeep) -> Result<Option<Done>> {
    views.tree.device().look()?.meta().get(Table::State, &what.key())
}
