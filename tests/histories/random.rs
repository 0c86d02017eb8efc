//! Anything in any order.

use super::stand::*;
use pitfs::control::{Archive, Verb};
use pitfs::daemon::{MergeOptions, PruneOptions};
use pitfs::device::LIVE;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// Numbers that follow from a seed.
struct Rng(u64);

impl Rng {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

struct World {
    dir: tempfile::TempDir,
    rng: Rng,
    stores: Vec<Store>,
    /// Older copies, by the place of their store.
    backups: Vec<(usize, Store)>,
    count: u32,
    said: Vec<String>,
}

impl World {
    fn new(seed: u64) -> World {
        let dir = tempfile::tempdir().unwrap();
        let stores = (0..2).map(|i| Store::create(&dir.path().join(format!("store{i}")))).collect();
        World { dir, rng: Rng(seed * 2 + 1), stores, backups: Vec::new(), count: 0, said: Vec::new() }
    }

    fn archive(&mut self) -> PathBuf {
        self.dir.path().join(format!("archive{}", self.rng.below(2)))
    }

    fn name(&mut self) -> String {
        self.count += 1;
        format!("t{}", self.count)
    }

    /// Does something; the store it was done to, and whether times may have gone.
    fn step(&mut self) -> (usize, bool) {
        let at = self.rng.below(self.stores.len());
        let (archive, name) = (self.archive(), self.name());
        let what = self.rng.below(20);
        self.said.push(format!("{what} of store {at}, {}, {name}", archive.display()));
        match what {
            0..=3 => self.change(at),
            4 | 5 => self.stores[at].snap(&name),
            6..=10 => {
                self.change(at);
                let given = (self.rng.below(2) == 0).then_some(archive);
                let keep = [None, Some(1), Some(2), Some(3)][self.rng.below(4)];
                let store = &mut self.stores[at];
                let is_attached = store.open(|daemon| {
                    let look = daemon.views().tree().device().look().unwrap();
                    look.base_record(LIVE).unwrap().archive.is_some()
                });
                // Without an archive they are deleted for good.
                let keep = keep.filter(|_| is_attached || given.is_some());
                // Whoever fails after the snapshot was taken has it.
                store.times.insert(name.clone(), store.live.clone());
                if store.roll(given.as_deref(), keep, &name).is_err() && !store.shown("failed").contains(&name) {
                    store.times.remove(&name);
                }
            }
            11 if self.stores.len() < 4 => {
                let path = self.dir.path().join(format!("copy{}", self.count));
                let copied = self.stores[at].copy_to(&path);
                self.stores.push(copied);
            }
            12 => {
                let path = self.dir.path().join(format!("backup{}", self.count));
                let backup = self.stores[at].copy_to(&path);
                self.backups.push((at, backup));
            }
            13 if !self.backups.is_empty() => {
                let (at, backup) = self.backups.swap_remove(self.rng.below(self.backups.len()));
                let path = self.stores[at].path.clone();
                copy(&backup.path, &path);
                self.stores[at] = Store { path, ..backup };
                return (at, true);
            }
            14 => {
                let (here, away) = (archive.clone(), archive.with_extension("away"));
                if here.exists() && !away.exists() {
                    fs::rename(here, away).unwrap();
                } else if away.exists() {
                    // What was made in its place meanwhile is not to be mixed with it.
                    if !here.exists() || increments(&here).is_empty() {
                        let _not_there = fs::remove_dir_all(&here);
                        fs::rename(away, here).unwrap();
                    }
                }
                return (at, true);
            }
            15 => {
                let all = increments(&archive);
                if !all.is_empty() {
                    let one = [0, all.len() - 1, self.rng.below(all.len())][self.rng.below(3)];
                    fs::remove_file(&all[one]).unwrap();
                }
                return (at, true);
            }
            16 => {
                let detach = Verb::Archive(Archive::Detach { directory: None });
                let _refused = self.stores[at].ask(detach);
                return (at, true);
            }
            17 => {
                let _refused = self.stores[at].attach(&archive);
                return (at, true);
            }
            18 => {
                let keep = Some(1 + self.rng.below(4) as u64);
                let prune = PruneOptions { keep, ..PruneOptions::default() };
                let _refused = self.stores[at].ask(Verb::Archive(Archive::Prune(prune)));
                return (at, true);
            }
            19 => {
                let merge = MergeOptions { per: pitfs::clock::Period::Hour, before: None, is_dry_run: false };
                let _refused = self.stores[at].ask(Verb::Archive(Archive::Merge(merge)));
                return (at, true);
            }
            _ => {}
        }
        (at, false)
    }

    fn change(&mut self, at: usize) {
        for _ in 0..1 + self.rng.below(3) {
            let (name, seed) = (format!("f{}", self.rng.below(5)), self.rng.below(255) as u8);
            let len = [10, 700, 5_000, 40_000][self.rng.below(4)] + self.rng.below(100);
            let bytes: Vec<u8> = (0..len).map(|at| seed.wrapping_add((at / 7) as u8)).collect();
            self.stores[at].write(&name, &bytes);
        }
    }

    fn run(&mut self, steps: usize, seed: u64) {
        for _ in 0..steps {
            let before: Vec<BTreeSet<String>> = self.shown(seed);
            let (at, may_lose) = self.step();
            let after = self.shown(seed);
            // What others do to a shared archive by its increments costs no store what it holds itself.
            if !may_lose {
                for (store, (had, has)) in before.iter().zip(&after).enumerate() {
                    let lost: Vec<&String> = had.difference(has).collect();
                    assert!(lost.is_empty(), "seed {seed}: store {store} lost {lost:?}\n{}", self.said.join("\n"));
                }
            } else {
                let held = |store: &Store| store.open(|daemon| daemon.views().snapshots().all().unwrap().len());
                assert!(self.stores[at].times.is_empty() || held(&self.stores[at]) > 0 || after[at].is_empty());
            }
        }
        for store in &self.stores {
            let found = store.open(|daemon| pitfs::daemon::check(daemon, &mut |_| Ok(())).unwrap());
            assert!(found.problems.is_empty(), "seed {seed}: {:?}", found.problems);
        }
    }

    fn shown(&self, seed: u64) -> Vec<BTreeSet<String>> {
        let what = format!("seed {seed}, after\n{}\n", self.said.join("\n"));
        self.stores.iter().map(|store| store.shown(&what).into_iter().collect()).collect()
    }
}

/// `PITFS_HISTORIES=n` tries more seeds, `PITFS_SEED=n` begins elsewhere.
#[test]
fn every_time_shows_what_it_was_or_is_not_shown() {
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let first = number("PITFS_SEED", 1);
    for seed in first..first + number("PITFS_HISTORIES", 6) {
        World::new(seed).run(60, seed);
    }
}
