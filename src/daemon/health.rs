//! How a store is, in one word, with the reason and what helps.

use crate::clock::Timestamp;
use crate::shown::size;
use serde::{Deserialize, Serialize};

/// With less room than this, in bytes, a store is full.
const FULL: u64 = 4 << 20;

/// From bad to good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthState {
    /// A write or sync failed, or damage was found when the store was opened: nothing is changed any more.
    Stopped,
    /// Where the store is, nothing can be written.
    ReadOnly,
    Full,
    /// It works, and something that is to protect it does not, or was found to be damaged.
    Degraded,
    Normal,
}

impl HealthState {
    pub const ALL: [HealthState; 5] =
        [HealthState::Stopped, HealthState::ReadOnly, HealthState::Full, HealthState::Degraded, HealthState::Normal];

    pub fn name(self) -> &'static str {
        match self {
            HealthState::Stopped => "stopped",
            HealthState::ReadOnly => "read-only",
            HealthState::Full => "full",
            HealthState::Degraded => "degraded",
            HealthState::Normal => "normal",
        }
    }
}

/// What is wrong, since when if that is known, and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub what: String,
    pub since: Option<Timestamp>,
    pub helps: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub state: HealthState,
    pub troubles: Vec<Trouble>,
}

/// What a store's health follows from.
#[derive(Clone, Debug, Default)]
pub struct Signs {
    /// Why nothing is changed any more, and since when.
    pub stopped: Option<(String, Option<Timestamp>)>,
    pub is_only_read: bool,
    /// Bytes that can still be written.
    pub available: u64,
    /// What is damaged, missing or does not go on.
    pub others: Vec<Trouble>,
}

impl Health {
    /// The worst of what there are signs of, and all of it, the worst first.
    pub fn of(signs: Signs) -> Health {
        let (mut state, mut troubles) = (HealthState::Normal, Vec::new());
        let mut found = |worse: HealthState, trouble: Trouble| {
            if state == HealthState::Normal {
                state = worse;
            }
            troubles.push(trouble);
        };
        if let Some((what, since)) = signs.stopped {
            let helps =
                "what was reported as done is there: look at the disk, then end the mount and mount the store again";
            found(HealthState::Stopped, Trouble { what, since, helps: helps.into() });
        }
        if signs.is_only_read {
            let (what, helps) = ("nothing can be written where the store is", "mount what it lies on for writing");
            found(HealthState::ReadOnly, Trouble { what: what.into(), since: None, helps: helps.into() });
        } else if signs.available < FULL {
            let what = format!("{} can still be written", size(signs.available));
            let helps =
                "delete snapshots (`pitfs list --sort frees` shows what each frees), or make room on the store's disk";
            found(HealthState::Full, Trouble { what, since: None, helps: helps.into() });
        }
        signs.others.into_iter().for_each(|trouble| found(HealthState::Degraded, trouble));
        Health { state, troubles }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first_and_nothing_is_left_out() {
        let trouble = |what: &str| Trouble { what: what.into(), since: None, helps: "x".into() };
        let well = Signs { available: FULL, ..Signs::default() };
        assert_eq!(Health::of(well.clone()), Health { state: HealthState::Normal, troubles: Vec::new() });
        let degraded = Signs { others: vec![trouble("a"), trouble("b")], ..well };
        let found = Health::of(degraded.clone());
        assert_eq!((found.state, found.troubles.len()), (HealthState::Degraded, 2));
        let full = Signs { available: FULL - 1, ..degraded };
        assert_eq!(Health::of(full.clone()).state, HealthState::Full);
        let only_read = Signs { is_only_read: true, ..full };
        assert_eq!(
            (Health::of(only_read.clone()).state, Health::of(only_read.clone()).troubles.len()),
            (HealthState::ReadOnly, 3)
        );
        let stopped = Signs { stopped: Some(("EIO".into(), None)), ..only_read };
        let found = Health::of(stopped);
        assert_eq!((found.state, found.troubles.len()), (HealthState::Stopped, 4));
        assert_eq!(found.troubles[0].what, "EIO");
    }
}
