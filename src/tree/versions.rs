use crate::clock::Timestamp;
use crate::device::{BaseId, Epoch, InodeNo, Moment, Snapshot};
use crate::error::Result;
use std::ops::Range;
pub struct Version {
    pub snapshot: Option<Snapshot>,
    pub inode: InodeNo,
    pub time: Timestamp,
    pub size: u64,
}
pub struct ChangedTracks {
    pub inode: InodeNo,
    pub path: Vec<u8>,
    pub size_before: Option<u64>,
    pub size_after: Option<u64>,
    pub tracks: Vec<Range<u64>>,
}
impl super::Tree {
    pub fn versions(&self, _b: BaseId, _p: &[u8]) -> Result<Vec<Version>> {
        Ok(Vec::new())
    }
    pub fn changed_tracks(&self, _b: BaseId, _x: Moment, _y: Moment, _p: Option<&[u8]>) -> Result<Vec<ChangedTracks>> {
        Ok(Vec::new())
    }
    pub fn session_bits(&self, _b: BaseId, _e: Epoch) -> Result<Vec<ChangedTracks>> {
        Ok(Vec::new())
    }
}
pub fn bitmap(_t: &[Range<u64>], _c: u64) -> Vec<u8> {
    Vec::new()
}
