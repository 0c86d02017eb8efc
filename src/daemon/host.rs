//! The machine on which this runs: a store can come from another one.

use crate::id::Id;
use crate::media::open_regular;
use std::io::Read;
use std::path::Path;

/// What the system calls itself; see machine-id(5). It is not to be told as it is.
const MACHINE_ID: &str = "/etc/machine-id";
const MACHINE_ID_BYTES_MAX: u64 = 256;
/// Machines that are remembered.
const HOSTS_MAX: usize = 16;

/// Nothing where the system has no id, as in many containers.
fn this() -> Option<Id> {
    let mut id = Vec::new();
    open_regular(Path::new(MACHINE_ID)).ok()?.take(MACHINE_ID_BYTES_MAX).read_to_end(&mut id).ok()?;
    let id = id.trim_ascii();
    (!id.is_empty()).then(|| Id::of_parts("host", &[id]))
}

pub(super) fn is_among(hosts: &[Id]) -> bool {
    this().is_none_or(|this| hosts.contains(&this))
}

/// This one behind the others.
pub(super) fn with_this(mut hosts: Vec<Id>) -> Vec<Id> {
    if let Some(this) = this()
        && hosts.last() != Some(&this)
    {
        hosts.retain(|other| *other != this);
        hosts.push(this);
        hosts.drain(..hosts.len().saturating_sub(HOSTS_MAX));
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_among_those_that_it_was_put_to() {
        let others: Vec<Id> = (0..40).map(|_| Id::random()).collect();
        let with = with_this(others.clone());
        assert!(is_among(&with) && with.len() <= HOSTS_MAX && with_this(with.clone()) == with);
        assert_eq!(is_among(&others), this().is_none());
    }
}
