//! Settling: giving a base records of its own for what it shows from elsewhere.
//!
//! A key is settled when it is first changed, and by the background otherwise. What it was before the era
//! ends where the era begins, and what the source has begins there: snapshots that were taken meanwhile
//! find both.
//!
//! Which keys can differ at all is told by the increments of the bases concerned (*changed*), and by what
//! was born between (*created*): a creation leaves no pre-image, but it changes the record of the inode it
//! belongs to, so that inodes that changed are looked through. A clone that is made independent takes over
//! all that its source has.

use super::delete::drop_mark;
use super::past::{
    BaseId, INODE, INODE_WALK, Increments, InodeNo, InodeWalk, Moment, Named, Point, SETTLE, SWEEP, Settle, WALKED,
    Walk, key_in, rest_of, split_record, split_tombstone, work_epoch, work_key, work_number, work_range,
};
use super::work::first_that_works;
use super::{Device, Txn};
use crate::clock::Epoch;
use crate::error::Result;
use crate::meta::{Table, decode, prefix_end};
use serde_bytes::ByteBuf;
use std::ops::ControlFlow;

/// Keys that one step looks at.
const STEP: usize = 512;

/// Tables of a tree, in the order in which they are walked.
const TREE: [Table; 5] = [Table::Inode, Table::Dirent, Table::Xattr, Table::Track, Table::Link];

/// The inode that an entry of a directory leads to, by its key and its value: whose records these are knows it.
type LeadsTo<'a> = &'a dyn Fn(&[u8], &[u8]) -> Result<InodeNo>;

/// What a step did, and by what it finds its way.
struct Step<'a> {
    /// Inodes that got records of their own.
    inodes: Vec<InodeNo>,
    leads_to: LeadsTo<'a>,
}

/// Does a piece of what is to be settled first, or swept up after it; false when there is nothing to do.
/// `took_over` completes it, given the inodes that got records of their own; `leads_to` tells where an entry of a
/// directory leads.
pub fn settle_step(
    device: &Device,
    leads_to: impl Fn(&[u8], &[u8]) -> Result<InodeNo>,
    took_over: impl Fn(&mut Txn<'_>, &[InodeNo]) -> Result<()>,
) -> Result<bool> {
    let bases: Vec<BaseId> = device.look()?.bases().map(|(id, _)| id).collect();
    first_that_works(bases, |base| {
        let has_work = {
            let look = device.look()?;
            look.noted_work().is_settling(base)? || look.noted_work().has(base, SWEEP)?
        };
        if has_work {
            let mut txn = device.begin()?;
            let mut step = Step { inodes: Vec::new(), leads_to: &leads_to };
            settle_some(&mut txn, base, &mut step)?;
            took_over(&mut txn, &step.inodes)?;
            txn.finish()?;
        }
        Ok(has_work)
    })
}

fn settle_some(txn: &mut Txn<'_>, base: BaseId, step: &mut Step<'_>) -> Result<()> {
    let (from, to) = work_range(base, SETTLE);
    let first = txn.meta().range(Table::Orphan, &from, &to)?.next().transpose()?;
    let Some((key, value)) = first else { return sweep_some(txn, base) };
    let since = work_epoch(&key)?;
    let mut settle = Settle::of(&key, &value)?;
    if walk_inodes(txn, base, step, &mut settle)? {
        txn.state.past.meta.put(Table::Orphan, &key, &settle);
        return Ok(());
    }
    if settle.cursor.is_empty() && forget_walked(txn, base)? {
        return Ok(());
    }
    let era = txn.base(base)?.record.eras.iter().find(|era| era.since == since).copied();
    let more = match (settle.walks.get(settle.over).copied(), era) {
        (Some(Walk::All), Some(era)) => walk_source(txn, base, era.source, &mut settle, step)?,
        (Some(Walk::Changed { base: from, after, to }), Some(_)) => {
            walk_changes(txn, base, (from, after, to), &mut settle, step)?
        }
        (Some(Walk::Nameless { to }), Some(_)) => {
            let (first, end) = work_range(base, INODE);
            let orphans: Result<Vec<_>> = txn.meta().range(Table::Orphan, &first, &end)?.collect();
            for (key, _) in orphans? {
                let number = work_number(&key)?;
                add_inode_walk(txn, base, InodeNo::new(base, number), (base, Epoch::ZERO, to));
            }
            false
        }
        _ => false,
    };
    if !more && settle.over < settle.walks.len() {
        settle.over += 1;
        settle.cursor = ByteBuf::new();
    }
    let has_left = txn.noted_work().has(base, INODE_WALK)? || txn.noted_work().has(base, WALKED)?;
    if settle.over < settle.walks.len() || more || has_left {
        txn.state.past.meta.put(Table::Orphan, &key, &settle);
        return Ok(());
    }
    txn.state.past.meta.remove(Table::Orphan, &key);
    let mut record = txn.base(base)?.record.clone();
    record.eras.retain(|era| era.since != since);
    if record.eras.is_empty() {
        txn.state.past.meta.put(Table::Orphan, &work_key(base, SWEEP, 0), &ByteBuf::new());
    }
    txn.state.past.put_base(base, record);
    if let Some(era) = era {
        txn.state.protection_changed(era.source.base)?;
        txn.state.protection_changed(base)?;
    }
    // What was kept of the base itself as it was before is for its user.
    for point in settle.points().filter(|point| *point != Point { base, epoch: since }) {
        drop_mark(txn, point)?;
    }
    Ok(())
}

fn settle_one(txn: &mut Txn<'_>, table: Table, key: &[u8], settle: &mut Settle, step: &mut Step<'_>) -> Result<()> {
    settle.done += txn.state.settle_key(&txn.device.log, table, key)?;
    let Some(inode) = InodeNo::of_key(key) else { return Ok(()) };
    txn.state.past.bases.note_changed(inode);
    if table == Table::Inode {
        step.inodes.push(inode);
    }
    Ok(())
}

/// Takes over a piece of everything that the source has; whether there is more.
fn walk_source(
    txn: &mut Txn<'_>,
    base: BaseId,
    source: Point,
    settle: &mut Settle,
    step: &mut Step<'_>,
) -> Result<bool> {
    let (number, rest) = settle.cursor.split_first().map_or((0, Vec::new()), |(n, rest)| (*n, rest.to_vec()));
    let Some(&table) = TREE.get(usize::from(number)) else { return Ok(false) };
    let prefix = source.base.prefix();
    let from = [&prefix[..], &rest].concat();
    let mut keys = Vec::new();
    txn.scan(table, &from, &prefix_end(&prefix), Moment::At(source.epoch), |key, _| {
        keys.push(key.to_vec());
        Ok(if keys.len() > STEP { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    let next = if keys.len() > STEP { keys.pop() } else { None };
    for key in keys {
        settle_one(txn, table, &key_in(base, &key), settle, step)?;
    }
    settle.cursor = ByteBuf::from(match next {
        Some(key) => [&[number][..], rest_of(&key)].concat(),
        None => vec![number + 1],
    });
    Ok(true)
}

/// Settles a piece of what changed in a base between two epochs; whether there is more.
fn walk_changes(
    txn: &mut Txn<'_>,
    base: BaseId,
    (from, after, to): (BaseId, Epoch, Epoch),
    settle: &mut Settle,
    step: &mut Step<'_>,
) -> Result<bool> {
    let mut walk = Increments::between(from, after, to).on_from(&settle.cursor);
    for Named { table, key, .. } in walk.step(txn, STEP)? {
        settle_one(txn, table, &key_in(base, &key), settle, step)?;
        if let (Table::Inode, Some(inode)) = (table, InodeNo::of_key(&key)) {
            add_inode_walk(txn, base, inode, (from, after, to));
        }
    }
    settle.cursor = ByteBuf::from(walk.cursor().unwrap_or_default());
    Ok(walk.cursor().is_some())
}

/// Forgets a piece of which directories were looked through, before the next walk begins; whether there was any.
fn forget_walked(txn: &mut Txn<'_>, base: BaseId) -> Result<bool> {
    let (from, to) = work_range(base, WALKED);
    let walked: Result<Vec<_>> = txn.meta().range(Table::Orphan, &from, &to)?.take(STEP).collect();
    let walked = walked?;
    walked.iter().for_each(|(key, _)| txn.state.past.meta.remove(Table::Orphan, key));
    Ok(!walked.is_empty())
}

fn add_inode_walk(txn: &mut Txn<'_>, base: BaseId, inode: InodeNo, (from, after, to): (BaseId, Epoch, Epoch)) {
    let key = work_key(base, INODE_WALK, inode.number());
    let walk = InodeWalk { base: from, after, to, cursor: ByteBuf::new() };
    txn.state.past.meta.put(Table::Orphan, &key, &walk);
}

/// Looks through a piece of an inode that changed for what was created in it; false if there is none.
fn walk_inodes(txn: &mut Txn<'_>, base: BaseId, step: &mut Step<'_>, settle: &mut Settle) -> Result<bool> {
    let (from, to) = work_range(base, INODE_WALK);
    let mut budget = STEP;
    let mut has_worked = false;
    while budget > 0 {
        let first = txn.meta().range(Table::Orphan, &from, &to)?.next().transpose()?;
        let Some((key, value)) = first else { break };
        has_worked = true;
        budget -= 1;
        let number = work_number(&key)?;
        let mut walk: InodeWalk = decode(Table::Orphan, &key, &value)?;
        if walk_inode(txn, base, number, &mut walk, &mut budget, settle, step)? {
            txn.state.past.meta.put(Table::Orphan, &key, &walk);
        } else {
            txn.state.past.meta.remove(Table::Orphan, &key);
        }
    }
    Ok(has_worked)
}

/// Settles what was created in an inode, as far as the budget goes; whether there is more.
fn walk_inode(
    txn: &mut Txn<'_>,
    base: BaseId,
    number: u64,
    walk: &mut InodeWalk,
    budget: &mut usize,
    settle: &mut Settle,
    step: &mut Step<'_>,
) -> Result<bool> {
    let prefix = InodeNo::new(walk.base, number).prefix();
    loop {
        let (table, rest) = walk.cursor.split_first().map_or((0, Vec::new()), |(n, rest)| (*n, rest.to_vec()));
        let Some(&kind) = TREE.get(usize::from(table)) else { return Ok(false) };
        let from = [&prefix[..], &rest].concat();
        let mut keys = Vec::new();
        let mut next = None;
        let mut looked = 0;
        txn.records(kind, &from, &prefix_end(&prefix), Moment::At(walk.to), |key, birth, value| {
            if looked > *budget {
                next = Some(key.to_vec());
                return Ok(ControlFlow::Break(()));
            }
            looked += 1;
            if birth > walk.after {
                keys.push((key.to_vec(), value.to_vec()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        *budget = budget.saturating_sub(looked);
        if kind == Table::Dirent && !keys.is_empty() {
            // Damaged ones can lie in each other, and would be looked through for ever.
            txn.state.past.meta.put(Table::Orphan, &work_key(base, WALKED, number), &());
        }
        for (key, value) in keys {
            settle_one(txn, kind, &key_in(base, &key), settle, step)?;
            if kind == Table::Dirent {
                // What is new in a directory may be new as a whole.
                let child = (step.leads_to)(&key, &value)?;
                let walked = work_key(base, WALKED, child.number());
                if !txn.meta().contains(Table::Orphan, &walked)? && is_born_after(txn, child, walk.after, walk.to)? {
                    add_inode_walk(txn, base, child, (walk.base, walk.after, walk.to));
                }
            }
        }
        match next {
            Some(key) => {
                walk.cursor = ByteBuf::from([&[table][..], &key[prefix.len()..]].concat());
                return Ok(true);
            }
            None => walk.cursor = ByteBuf::from(vec![table + 1]),
        }
    }
}

fn is_born_after(txn: &Txn<'_>, inode: InodeNo, after: Epoch, to: Epoch) -> Result<bool> {
    let key = inode.prefix();
    match txn.find(Table::Inode, &key, Moment::At(to))? {
        Some(found) => Ok(txn.birth_of(Table::Inode, &key, &found.bytes)? > after),
        None => Ok(false),
    }
}

/// Removes tombstones that hide nothing any more.
fn sweep_some(txn: &mut Txn<'_>, base: BaseId) -> Result<()> {
    let prefix = base.prefix();
    let mut keys = Vec::new();
    for pair in txn.meta().range(Table::Tombstone, &prefix, &prefix_end(&prefix))?.take(STEP) {
        keys.push(pair?.0);
    }
    if keys.is_empty() || !txn.base(base)?.record.eras.is_empty() {
        txn.state.past.meta.remove(Table::Orphan, &work_key(base, SWEEP, 0));
        return Ok(());
    }
    for noted in keys {
        txn.state.past.meta.remove(Table::Tombstone, &noted);
        let (table, key) = match split_tombstone(&noted) {
            Ok(parts) => parts,
            // Nobody finds a tombstone by it: nothing else may wait for it.
            Err(error) => {
                log::error!("{error}");
                continue;
            }
        };
        let raw = txn.meta().get_raw(table, &key)?;
        let is_tombstone = match &raw {
            Some(bytes) => split_record(table, &key, bytes)?.1.is_empty(),
            None => false,
        };
        if is_tombstone {
            txn.state.past.meta.remove(table, &key);
        }
    }
    Ok(())
}
