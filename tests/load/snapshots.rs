//! Snapshots taken, renamed and deleted under load, and what is known of each.

use super::ledger::{Counts, Ledger};
use super::model::{Seen, look};
use super::{OnError, Rng, directory};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Mutex;

#[derive(Clone)]
enum What {
    /// It holds each writer's directory as after a number of operations between these.
    Between(Counts, Counts),
    /// It was looked at, and holds this.
    Exactly(Vec<Seen>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is being taken or deleted: it may be there or not.
    Maybe,
    There,
}

#[derive(Clone)]
struct Known {
    state: State,
    what: What,
    /// It is being renamed to this.
    or: Option<String>,
}

/// What a mount showed.
pub struct Found(BTreeMap<String, Known>);

/// The snapshots of one store.
#[derive(Default)]
pub struct Snapshots {
    known: Mutex<BTreeMap<String, Known>>,
    taken: Mutex<u64>,
}

impl Snapshots {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn set(&self, name: &str, known: Known) {
        self.lock().insert(name.to_string(), known);
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Takes, renames and deletes snapshots until `ends` says so or the first failure; the error.
    pub fn work(
        &self,
        ledger: &Ledger,
        snap: &Path,
        rng: &mut Rng,
        (most, pause): (usize, std::time::Duration),
        on_error: OnError,
        ends: impl Fn() -> bool,
    ) -> Option<io::Error> {
        while !ends() {
            let result = match rng.below(10) {
                0..6 if self.len() < most => self.take(ledger, snap),
                0..3 => self.rename(snap, rng),
                _ => self.delete(snap, rng),
            };
            match result {
                Err(error) if on_error.stops(&error) => return Some(error),
                Ok(()) | Err(_) => {}
            }
            std::thread::sleep(pause);
        }
        None
    }

    pub fn take(&self, ledger: &Ledger, snap: &Path) -> io::Result<()> {
        let name = {
            let mut taken = self.taken.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            *taken += 1;
            format!("s{taken}")
        };
        let low = ledger.done();
        let all = vec![usize::MAX; low.len()];
        self.set(&name, Known { state: State::Maybe, what: What::Between(low.clone(), all), or: None });
        fs::create_dir(snap.join(&name))?;
        let what = What::Between(low.clone(), ledger.started());
        self.set(&name, Known { state: State::There, what, or: None });
        // Taking a snapshot is a commit.
        ledger.make_safe(&low);
        Ok(())
    }

    fn any(&self, rng: &mut Rng) -> Option<(String, Known)> {
        let known = self.lock();
        let all: Vec<&String> = known
            .iter()
            .filter(|(_, known)| known.state == State::There && known.or.is_none())
            .map(|(n, _)| n)
            .collect();
        let name = if all.is_empty() { return None } else { rng.pick(&all).clone() };
        let found = known[&name].clone();
        Some((name, found))
    }

    fn rename(&self, snap: &Path, rng: &mut Rng) -> io::Result<()> {
        let Some((name, known)) = self.any(rng) else { return Ok(()) };
        let new = format!("{name}r");
        self.set(&name, Known { or: Some(new.clone()), ..known.clone() });
        fs::rename(snap.join(&name), snap.join(&new))?;
        let mut all = self.lock();
        all.remove(&name);
        all.insert(new, known);
        Ok(())
    }

    fn delete(&self, snap: &Path, rng: &mut Rng) -> io::Result<()> {
        let Some((name, known)) = self.any(rng) else { return Ok(()) };
        self.set(&name, Known { state: State::Maybe, ..known });
        fs::remove_dir(snap.join(&name))?;
        self.lock().remove(&name);
        Ok(())
    }

    /// From now on it is known exactly what was found.
    pub fn accept(&self, found: Found) {
        *self.lock() = found.0;
    }

    /// Holds what a mount shows against what is known.
    pub fn compare(&self, ledger: &Ledger, snap: &Path) -> Result<Found, String> {
        let mut shown = BTreeSet::new();
        for entry in fs::read_dir(snap).map_err(|error| error.to_string())? {
            shown.insert(entry.map_err(|error| error.to_string())?.file_name().to_string_lossy().into_owned());
        }
        shown.remove("live");
        let mut found = BTreeMap::new();
        for (name, known) in self.lock().iter() {
            let names = [Some(name), known.or.as_ref()];
            let names: Vec<&String> = names.into_iter().flatten().filter(|name| shown.contains(*name)).collect();
            let name = match (&names[..], known.state) {
                ([name], _) => (*name).clone(),
                ([], State::Maybe) => continue,
                ([], State::There) => return Err(format!("snapshot {name} was taken and is gone")),
                _ => return Err(format!("snapshot {name} is there under two names")),
            };
            let what = self.look_at(ledger, snap, &name, &known.what)?;
            shown.remove(&name);
            found.insert(name, Known { state: State::There, what, or: None });
        }
        if !shown.is_empty() {
            return Err(format!("{shown:?} were deleted or renamed and are there"));
        }
        Ok(Found(found))
    }

    fn look_at(&self, ledger: &Ledger, snap: &Path, name: &str, what: &What) -> Result<What, String> {
        let mut all = Vec::new();
        for writer in 0..ledger.writers() {
            let place = format!("snapshot {name}, writer {writer}");
            let seen = look(&directory(&snap.join(name), writer)).map_err(|error| format!("{place}: {error}"))?;
            match what {
                What::Between(low, high) => {
                    ledger.find(writer, low[writer], high[writer], &seen).map_err(|text| format!("{place}: {text}"))?;
                }
                What::Exactly(before) if before[writer] != seen => {
                    return Err(format!("{place}: it changed from {:?} to {seen:?}", before[writer]));
                }
                What::Exactly(_) => {}
            }
            all.push(seen);
        }
        Ok(What::Exactly(all))
    }
}
