//! What every writer has done and what of it is safe, in one place for all threads.

use super::model::{Model, Seen, Synced};
use super::operation::Operation;
use std::sync::{Mutex, MutexGuard};

#[derive(Default)]
struct Writer {
    /// What the directory held when the record begins.
    base: Model,
    /// Operations since, of which the last may not have returned.
    operations: Vec<Operation>,
    done: usize,
    /// Those that failed, with how many came before.
    failed: Vec<(usize, Operation)>,
    /// So many operations survive a crash.
    safe: usize,
    syncs: Vec<Sync>,
}

/// An fsync of one node.
struct Sync {
    number: u64,
    /// After so many operations.
    after: usize,
    has_returned: bool,
}

/// What was found after a crash.
pub struct Survivor(Model);

pub struct Ledger(Mutex<Vec<Writer>>);

/// For each writer a number of operations.
pub type Counts = Vec<usize>;

impl Ledger {
    pub fn new(writers: usize) -> Ledger {
        Ledger(Mutex::new((0..writers).map(|_| Writer::default()).collect()))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Writer>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn writers(&self) -> usize {
        self.lock().len()
    }

    /// How the record of a writer begins.
    pub fn model(&self, writer: usize) -> Model {
        let writers = self.lock();
        let mut model = writers[writer].base.clone();
        writers[writer].operations.iter().for_each(|operation| model.apply(operation));
        model
    }

    pub fn start(&self, writer: usize, operation: Operation) {
        self.lock()[writer].operations.push(operation);
    }

    /// The operation that was started last has returned, with what it did.
    pub fn finish(&self, writer: usize, operation: Operation) {
        let writer = &mut self.lock()[writer];
        writer.done += 1;
        if let Some(last) = writer.operations.last_mut() {
            *last = operation;
        }
    }

    /// The operation that was started last did not take effect.
    pub fn take_back(&self, writer: usize) {
        let writer = &mut self.lock()[writer];
        if let Some(operation) = writer.operations.pop() {
            writer.failed.push((writer.operations.len(), operation));
        }
    }

    /// Operations that have returned.
    pub fn done(&self) -> Counts {
        self.lock().iter().map(|writer| writer.done).collect()
    }

    /// Operations that have begun.
    pub fn started(&self) -> Counts {
        self.lock().iter().map(|writer| writer.operations.len()).collect()
    }

    pub fn start_sync(&self, writer: usize, number: u64) {
        let mut writers = self.lock();
        let after = writers[writer].done;
        writers[writer].syncs.push(Sync { number, after, has_returned: false });
    }

    /// The fsync that was started last has returned.
    pub fn finish_sync(&self, writer: usize) {
        if let Some(sync) = self.lock()[writer].syncs.last_mut() {
            sync.has_returned = true;
        }
    }

    pub fn make_safe(&self, counts: &Counts) {
        for (writer, count) in self.lock().iter_mut().zip(counts) {
            writer.safe = writer.safe.max(*count);
        }
    }

    /// After so many of a writer's operations, no fewer than `low` and no more than `high`, its directory
    /// looks so; an error says how near it came.
    pub fn find(&self, writer: usize, low: usize, high: usize, seen: &Seen) -> Result<usize, String> {
        let writers = self.lock();
        let Writer { base, operations, failed, .. } = &writers[writer];
        let mut model = base.clone();
        let mut elsewhere = None;
        let mut nearest: Option<(usize, usize, String)> = None;
        for count in 0..=operations.len() {
            if count > 0 {
                model.apply(&operations[count - 1]);
            }
            if model.matches(seen) {
                if (low..=high).contains(&count) {
                    return Ok(count);
                }
                elsewhere = Some(count);
            } else if (low..=high).contains(&count) {
                let (differences, first) = differences(&model.seen(), seen);
                if nearest.as_ref().is_none_or(|(_, fewest, _)| differences <= *fewest) {
                    nearest = Some((count, differences, first));
                }
            }
        }
        Err(match (elsewhere, nearest) {
            (Some(count), _) => format!("it is as after {count} operations, which is not in {low}..={high}"),
            (None, Some((count, differences, first))) => format!(
                "it is no state of {low}..={high}; after {count} operations {differences} entries differ: {first}; around there: {:?}; failed: {:?}",
                &operations[count.saturating_sub(2)..(count + 2).min(operations.len())],
                failed.iter().filter(|(at, _)| at.abs_diff(count) < 2).take(20).collect::<Vec<_>>()
            ),
            (None, None) => format!("there is no state in {low}..={high}"),
        })
    }

    /// What a writer's directory may hold after a crash: a state that is no older than what is safe, and over it
    /// what later fsyncs made durable of single files.
    pub fn survivor(&self, writer: usize, seen: &Seen) -> Result<Survivor, String> {
        let (safe, all, syncs) = {
            let writers = self.lock();
            let Writer { base, operations, safe, syncs, .. } = &writers[writer];
            let mut model = base.clone();
            let mut synced: Vec<(usize, bool, Option<Synced>)> = Vec::new();
            let mut ahead = syncs.iter().peekable();
            for count in 0..=operations.len() {
                if count > 0 {
                    model.apply(&operations[count - 1]);
                }
                while let Some(sync) = ahead.next_if(|sync| sync.after == count) {
                    synced.push((count, sync.has_returned, model.synced(sync.number)));
                }
            }
            (*safe, operations.len(), synced)
        };
        let mut model = self.model_after(writer, safe);
        for count in safe..=all {
            if count > safe {
                model.apply(&self.operation(writer, count - 1));
            }
            let later = || syncs.iter().filter(|(after, _, _)| *after > count);
            let unfinished = later().filter(|(_, has_returned, _)| !has_returned).count();
            // One that did not return may have arrived all the same.
            for arrived in 0..=unfinished.min(2) {
                let mut laid = model.clone();
                let mut left = arrived;
                let is_possible = later().all(|(_, has_returned, synced)| {
                    if !has_returned && left == 0 {
                        return true;
                    }
                    left -= usize::from(!has_returned);
                    synced.as_ref().is_some_and(|synced| laid.lay(synced))
                });
                if is_possible && laid.matches(seen) {
                    return Ok(Survivor(laid));
                }
            }
        }
        // Without the fsyncs, for a message.
        self.find(writer, safe, all, seen)
            .map(|count| Survivor(self.model_after(writer, count)))
            .map_err(|text| {
                format!("with fsyncs after {:?}: {text}", syncs.iter().map(|sync| (sync.0, sync.1)).collect::<Vec<_>>())
            })
            .and_then(|_| Err("it is a state without what was fsynced later".to_string()))
    }

    fn model_after(&self, writer: usize, count: usize) -> Model {
        let writers = self.lock();
        let mut model = writers[writer].base.clone();
        writers[writer].operations[..count].iter().for_each(|operation| model.apply(operation));
        model
    }

    fn operation(&self, writer: usize, number: usize) -> Operation {
        self.lock()[writer].operations[number].clone()
    }

    /// A new record begins, with each directory as it was found.
    pub fn begin_anew(&self, survivors: Vec<Survivor>) {
        for (writer, Survivor(base)) in self.lock().iter_mut().zip(survivors) {
            *writer = Writer { base, ..Writer::default() };
        }
    }
}

/// How many entries differ, and the first that does.
pub fn differences(expected: &Seen, found: &Seen) -> (usize, String) {
    let paths: std::collections::BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let mut different = paths.iter().filter(|path| expected.get(**path) != found.get(**path));
    let first = different.next().map_or(String::new(), |path| {
        format!("{path}: expected {:?}, found {:?}", expected.get(*path), found.get(*path))
    });
    (1 + different.count(), first)
}
