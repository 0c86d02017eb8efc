//! Bases whose moments lie in sets at a target.

use super::Views;
use crate::device::BaseRecord;
use crate::error::Result;
use crate::set::Sets;
use std::sync::Arc;

pub use crate::device::InSet;

/// A base as sets have it.
pub struct InSets {
    pub name: String,
    /// Its moments, the oldest first.
    pub moments: Vec<InSet>,
}

/// Shows bases that lie in sets, in a store that was made for it and has nothing else.
pub fn show_sets(views: &Views, sets: &Arc<Sets>, bases: Vec<InSets>) -> Result<()> {
    views.tree.device().committer()?.change(|change| {
        for InSets { name, moments } in bases {
            let time = moments.first().map(|moment| moment.mark.time).unwrap_or_default();
            change.show_elsewhere(BaseRecord::new(&name, time), sets.clone(), &moments)?;
        }
        Ok(())
    })
}
