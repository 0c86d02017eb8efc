//! Why a snapshot was taken, as stores, archives and answers say it.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    #[default]
    Plain,
    /// By `save`, to be gone back to.
    Save,
    /// What was there before a restore.
    BeforeRestore,
    /// To tell what a mirror lacks.
    Mirror,
    /// By `roll`.
    Roll,
}

impl Purpose {
    pub fn is_save(self) -> bool {
        self == Purpose::Save
    }
}
