//! Moments compared: what became different, in which tracks, what a path was over time, and whether anything changed at all.
//!
//! What increments name is looked at, and nothing else, as far as these can tell.

mod diff;
mod increment;
mod since;
mod tracks;
mod unchanged;
mod versions;

pub use diff::{Comparison, Difference, DifferenceKind};
pub use since::ChangedSince;
pub use tracks::{ChangedTracks, TrackChanges, bitmap};
pub use versions::Version;
