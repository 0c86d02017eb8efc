//! What writes to a target, interrupted before each of its writes: what was whole stays whole, and doing it again completes it.

use crate::chain::{Chain, Next, objects, seals, snapshot_of, write};
use pitfs::clock::Timestamp;
use pitfs::daemon::{AtTarget, compact_sets, delete_sets, merge_sets, prune_sets, rebuild_sets, verify_sets};
use pitfs::error::{Errno, Error, Result};
use pitfs::id::Id;
use pitfs::media::Shelf;
use pitfs::target::Retention;
use std::collections::BTreeSet;

const KEYS: u64 = 400;
/// More than any of it writes.
const WRITES_MAX: u64 = 500;

struct Work<'a> {
    what: &'a str,
    run: &'a dyn Fn(&mut AtTarget) -> Result<()>,
    /// The moments that are there afterwards, where others are than before.
    after: BTreeSet<Id>,
}

fn names(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// Opens what is there, and looks whether it is what it was before or what it is to be.
fn is_old_or_new(chain: &Chain, work: &Work<'_>, before: &BTreeSet<Id>, when: &str) {
    let what = work.what;
    let (at, _dir) = chain.at().unwrap_or_else(|error| panic!("{what}, {when}: {error}"));
    let found = chain.compare(&at.repository);
    assert!(found == *before || found == work.after, "{what}, {when}: {} of {} moments", found.len(), before.len());
    for verified in verify_sets(&at.repository, None, &mut |_| Ok(())).unwrap() {
        assert!(verified.problems.is_empty(), "{what}, {when}: {verified:?}");
    }
}

/// Does it again, and looks whether it is complete.
fn completes(chain: &Chain, work: &Work<'_>, when: &str) {
    let (mut at, _dir) = chain.at().unwrap();
    match (work.run)(&mut at) {
        Ok(()) => {}
        // What was named is gone already; what is left of it goes with the next that writes.
        Err(Error::Refused(Errno::NOENT, _)) => {
            at.repository.sweep().unwrap();
        }
        Err(error) => panic!("{}, {when}, again: {error}", work.what),
    }
    println!("{}, {when}, again", work.what);
    assert_eq!(chain.compare(&chain.open().unwrap()), work.after, "{}, {when}", work.what);
    chain.has_no_more_than_needed();
}

/// Interrupts it before each write.
fn interrupt(chain: &Chain, work: &Work<'_>) {
    let before = chain.compare(&chain.open().unwrap());
    for writes in 0.. {
        let chain = chain.copy();
        let (mut at, _dir) = chain.at().unwrap();
        chain.shelf.fail_after(Some(writes));
        let done = (work.run)(&mut at);
        chain.shelf.fail_after(None);
        let when = format!("interrupted after {writes} writes");
        if done.is_ok() {
            assert!(writes > 0, "{} writes nothing", work.what);
            assert_eq!(chain.compare(&chain.open().unwrap()), work.after, "{}", work.what);
            return chain.has_no_more_than_needed();
        }
        assert!(writes < WRITES_MAX, "{} has no end", work.what);
        is_old_or_new(&chain, work, &before, &when);
        let rebuilt = chain.copy();
        rebuild_sets(&mut rebuilt.at().unwrap().0).unwrap();
        is_old_or_new(&rebuilt, work, &before, &format!("{when}, and rebuilt"));
        completes(&rebuilt, work, &format!("{when}, and rebuilt"));
        completes(&chain, work, &when);
    }
}

fn in_every_way(chain: &Chain, one_more: &Next) {
    let repository = chain.open().unwrap();
    let all = || repository.catalogue().moments().map(|listed| (&*listed.header.mark.name, listed.header.mark.id));
    let without = |gone: &[&str]| all().filter(|(name, _)| !gone.contains(name)).map(|(_, id)| id).collect();
    let with_one_more = all().map(|(_, id)| id).chain([snapshot_of(one_more)]).collect();
    let rule = Retention { last: 2, ..Retention::default() };
    let same: BTreeSet<Id> = without(&[]);
    let works = [
        Work { what: "writing", run: &|at| write(&mut at.repository, one_more).map(drop), after: with_one_more },
        Work {
            what: "deleting",
            run: &|at| delete_sets(at, &names(&["m2", "n1"]), false).map(drop),
            after: without(&["m2", "n1"]),
        },
        Work {
            what: "deleting all",
            run: &|at| delete_sets(at, &names(&["m1", "m2", "m3", "m4", "n0", "n1"]), false).map(drop),
            after: BTreeSet::new(),
        },
        Work {
            what: "merging",
            run: &|at| merge_sets(at, &names(&["m1", "m2", "m3"]), None, false).map(drop),
            after: without(&["m1", "m2"]),
        },
        Work {
            what: "pruning",
            run: &|at| prune_sets(at, &rule, Timestamp { seconds: 1000, nanos: 0 }, false).map(drop),
            after: without(&["m1", "m2"]),
        },
        Work { what: "packing", run: &|at| compact_sets(at, 0, false, &mut |_| Ok(())).map(drop), after: same.clone() },
        Work { what: "rebuilding", run: &|at| rebuild_sets(at).map(drop), after: same.clone() },
        Work { what: "sweeping", run: &|at| at.repository.sweep().map(drop), after: same },
    ];
    for work in &works {
        interrupt(chain, work);
    }
}

#[test]
fn whatever_is_interrupted_nothing_that_was_whole_is_lost() {
    for seal in seals() {
        let mut chain = Chain::new(seal, KEYS);
        let one_more = chain.one_more("m5", KEYS);
        chain.models.insert(snapshot_of(&one_more), one_more.model.clone());
        in_every_way(&chain, &one_more);
    }
}

/// The same where something is left over already of what was interrupted before.
#[test]
fn what_is_left_over_changes_nothing_of_that() {
    let mut chain = Chain::new(seals()[0].clone(), KEYS);
    let one_more = chain.one_more("m5", KEYS);
    chain.models.insert(snapshot_of(&one_more), one_more.model.clone());
    let left_after = |writes| {
        let chain = chain.copy();
        chain.shelf.fail_after(Some(writes));
        let done = compact_sets(&mut chain.at().unwrap().0, 0, false, &mut |_| Ok(()));
        chain.shelf.fail_after(None);
        done.is_err().then_some(chain)
    };
    let all = (0..WRITES_MAX).find(|writes| left_after(*writes).is_none()).unwrap();
    for writes in [4, all / 2, all - 12, all - 4] {
        in_every_way(&left_after(writes).unwrap(), &one_more);
    }
}

/// A catalogue that is lost as well.
#[test]
fn what_is_interrupted_and_loses_its_catalogue_has_all_moments() {
    let chain = Chain::new(seals()[0].clone(), KEYS);
    let before = chain.compare(&chain.open().unwrap());
    for writes in 0.. {
        let chain = chain.copy();
        chain.shelf.fail_after(Some(writes));
        let done = compact_sets(&mut chain.at().unwrap().0, 0, false, &mut |_| Ok(()));
        chain.shelf.fail_after(None);
        chain.shelf.remove("catalogue").unwrap();
        let (mut at, _dir) = chain.at().unwrap();
        assert_eq!(chain.compare(&at.repository), before, "interrupted after {writes} writes");
        rebuild_sets(&mut at).unwrap();
        assert_eq!(chain.compare(&chain.open().unwrap()), before, "interrupted after {writes} writes, and rebuilt");
        if done.is_ok() {
            return;
        }
        assert!(objects(&chain.shelf).len() < WRITES_MAX as usize);
    }
}
