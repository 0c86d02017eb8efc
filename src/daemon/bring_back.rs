use super::{Daemon, OnProgress};
use crate::device::Snapshot;
use crate::error::Result;
use crate::view::Views;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BringBackReport {
    pub before: String,
    pub files: u64,
    pub bytes: u64,
    pub removed: u64,
    pub problems: Vec<String>,
}
impl Daemon {
    pub fn bring_back(&self, _v: &Views, _s: &Snapshot, _p: &[ByteBuf], _q: OnProgress<'_>) -> Result<BringBackReport> {
        Ok(BringBackReport::default())
    }
}
