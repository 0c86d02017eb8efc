//! Room, in true figures.

use crate::device::Device;
use crate::error::Result;

/// Room in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// What the store could hold if it had all that is available.
    pub total: u64,
    /// What can still be written.
    pub available: u64,
    /// File data of `live`.
    pub live: u64,
    /// File data that only snapshots hold.
    pub log: u64,
    /// The metadata file.
    pub meta: u64,
    /// What segments take on the disk, with the free blocks inside them.
    pub segments: u64,
}

impl Space {
    pub(super) fn of(device: &Device) -> Result<Space> {
        let usage = device.log().usage();
        let meta = device.meta_bytes()?;
        let log = device.log_bytes();
        let available = device.capacity().writable(&*device.look()?)?;
        Ok(Space {
            total: usage.used + meta + available,
            available,
            live: usage.used.saturating_sub(log),
            log,
            meta,
            segments: usage.segments,
        })
    }
}
