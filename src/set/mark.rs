//! The snapshot that a set is of, or leads to.

use crate::clock::{Epoch, Timestamp};
use crate::id::Id;
use crate::meta::is_name;
use crate::purpose::Purpose;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub epoch: Epoch,
    /// Which snapshot it is, in whatever copy of the store.
    pub id: Id,
    pub name: String,
    pub time: Timestamp,
    /// Why it was taken.
    pub purpose: Purpose,
    /// The mount does not show it.
    pub offline: bool,
}

impl Mark {
    /// Whether its name, which stands for a directory, can be that of one.
    pub fn has_name(&self) -> bool {
        is_name(self.name.as_bytes())
    }
}
