//! The read rule and the write rule against a model, on the past alone: no store, no thread, no media.

use super::base::{BaseRecord, BaseReserve};
use super::record::encode_record;
use super::{BaseId, Increments, InodeNo, LIVE, Moment, Past, Point, SnapOptions};
use crate::clock::{Epoch, Timestamp};
use crate::limits::CHANGED_INODES_MAX;
use crate::meta::{Meta, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

const TABLE: Table = Table::Xattr;
const KEYS: u64 = 9;

type Content = BTreeMap<u64, u32>;

struct Rng(u64);

impl Rng {
    fn below(&mut self, end: u64) -> u64 {
        (self.0, _) = self.0.overflowing_mul(6_364_136_223_846_793_005);
        (self.0, _) = self.0.overflowing_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

struct World {
    rng: Rng,
    past: Past,
    /// What each base shows now.
    live: BTreeMap<BaseId, Content>,
    snapshots: BTreeMap<Point, Content>,
    /// Values that were ever given out.
    count: u32,
}

/// Some are the beginning of others: neighbours that a walk must not take for one.
fn key(base: BaseId, number: u64) -> Vec<u8> {
    [&base.prefix()[..], &(number / 3).to_be_bytes(), &b"xx"[..(number % 3) as usize]].concat()
}

fn number(key: &[u8]) -> u64 {
    u64::from_be_bytes(key[4..12].try_into().unwrap()) * 3 + (key.len() - 12) as u64
}

impl World {
    fn new(seed: u64) -> World {
        let mut past = Past::new(Meta::empty(), Epoch::new(1));
        past.put_base(LIVE, BaseRecord::new("live", Timestamp::default()));
        let live = [(LIVE, Content::new())].into();
        World { rng: Rng(seed), past, live, snapshots: BTreeMap::new(), count: 0 }
    }

    fn any_base(&mut self) -> BaseId {
        *self.live.keys().nth(self.rng.below(self.live.len() as u64) as usize).unwrap()
    }

    fn any_snapshot(&mut self) -> Option<Point> {
        let count = self.snapshots.len() as u64;
        (count > 0).then(|| *self.snapshots.keys().nth(self.rng.below(count) as usize).unwrap())
    }

    fn settle(&mut self, base: BaseId, number: u64) {
        for era in self.past.base(base).unwrap().record.eras.clone() {
            self.past.settle_in(TABLE, &key(base, number), era, false).unwrap();
        }
    }

    fn set(&mut self, base: BaseId, number: u64) {
        self.count += 1;
        self.settle(base, number);
        let key = key(base, number);
        self.past.protect(TABLE, &key, false).unwrap();
        self.past.meta.put_raw(TABLE, &key, encode_record(self.past.epoch, &self.count));
        self.live.get_mut(&base).unwrap().insert(number, self.count);
    }

    fn unset(&mut self, base: BaseId, number: u64) {
        let was_there = self.live.get_mut(&base).unwrap().remove(&number).is_some();
        assert_eq!(self.past.exists(TABLE, &key(base, number)).unwrap(), was_there);
        if was_there {
            self.settle(base, number);
            self.past.protect(TABLE, &key(base, number), false).unwrap();
            self.past.take_away(TABLE, &key(base, number)).unwrap();
        }
    }

    fn snap(&mut self, base: BaseId) -> Point {
        let name = format!("s{}", self.past.epoch());
        let (time, options) = (Timestamp::default(), SnapOptions::default());
        let point = self.past.add_snapshot(base, name, time, options, &|_, _| Ok(true)).unwrap().point();
        self.snapshots.insert(point, self.live[&base].clone());
        point
    }

    /// A base comes to show what another one, or itself, was.
    fn restore(&mut self, base: BaseId, source: Point) {
        self.snap(base);
        self.past.begin_era(base, self.past.epoch().before(), source, None).unwrap();
        self.past.find_newest(source.base).unwrap();
        self.live.insert(base, self.snapshots[&source].clone());
    }

    fn clone_of(&mut self, source: Point) {
        let name = format!("base {}", self.live.len());
        let base = self.past.add_base(BaseRecord::new(&name, Timestamp::default())).unwrap();
        self.past.begin_era(base, self.past.epoch().before(), source, None).unwrap();
        self.live.insert(base, self.snapshots[&source].clone());
    }

    /// The eras of a base end, as after the background has settled all.
    fn settle_all(&mut self, base: BaseId) {
        (0..KEYS).for_each(|number| self.settle(base, number));
        let mut record = self.past.base_record(base).unwrap().clone();
        record.eras.clear();
        self.past.put_base(base, record);
    }

    fn step(&mut self) {
        let (base, number) = (self.any_base(), self.rng.below(KEYS));
        match (self.rng.below(40), self.any_snapshot()) {
            (0..20, _) => self.set(base, number),
            (20..30, _) => self.unset(base, number),
            (30..34, _) => drop(self.snap(base)),
            (34, Some(source)) => self.restore(base, source),
            (35, Some(source)) if self.live.len() < 4 => self.clone_of(source),
            (36, _) => self.settle_all(base),
            _ => {}
        }
    }

    /// Steps that are taken back leave nothing.
    fn fail(&mut self) {
        let (live, snapshots, epoch) = (self.live.clone(), self.snapshots.clone(), self.past.epoch());
        let before = format!("{:?}", *self.past.bases);
        self.past.begin();
        (0..3).for_each(|_| self.step());
        self.past.take_back(epoch);
        (self.live, self.snapshots) = (live, snapshots);
        assert_eq!(format!("{:?}", *self.past.bases), before);
    }

    fn shown(&self, base: BaseId, moment: Moment) -> (Content, Content) {
        let one = |number| Some((number, self.past.get(TABLE, &key(base, number), moment).unwrap()?));
        let mut walked = Content::new();
        let (from, to) = (base.prefix(), base.next().prefix());
        let each = |key: &[u8], value: &[u8]| {
            walked.insert(number(key), rmp_serde::from_slice(value).unwrap());
            Ok(ControlFlow::Continue(()))
        };
        self.past.scan(TABLE, &from, &to, moment, each).unwrap();
        ((0..KEYS).filter_map(one).collect(), walked)
    }

    fn check(&self) {
        let now = self.live.iter().map(|(base, content)| (*base, Moment::Live, content));
        let then = self.snapshots.iter().map(|(point, content)| (point.base, Moment::At(point.epoch), content));
        for (base, moment, expected) in now.chain(then) {
            let (found, walked) = self.shown(base, moment);
            assert_eq!((&found, &walked), (expected, expected), "base {base} {moment:?}");
        }
    }

    /// What a base had in a snapshot and has no more, or as something else, is named after it.
    fn check_increments(&self) {
        for (point, then) in &self.snapshots {
            if !self.past.base_record(point.base).unwrap().eras.is_empty() {
                continue;
            }
            let named = Increments::between(point.base, point.epoch, self.past.epoch()).all(&self.past).unwrap();
            let named: BTreeSet<u64> = named.map(|named| number(&named.unwrap().key)).collect();
            let now = &self.live[&point.base];
            let changed: Vec<_> = then.iter().filter(|(number, value)| now.get(number) != Some(value)).collect();
            assert!(changed.iter().all(|(number, _)| named.contains(number)), "{point:?}: {changed:?} {named:?}");
        }
    }
}

#[test]
fn every_moment_shows_what_was_there() {
    for seed in 0..100 {
        let mut world = World::new(seed);
        for i in 0..100 {
            if i % 7 == 6 {
                world.fail();
            }
            world.past.begin();
            world.step();
            world.past.keep_changes();
            if i % 25 == 24 {
                world.check();
            }
        }
        let bases: Vec<BaseId> = world.live.keys().copied().collect();
        bases.into_iter().for_each(|base| world.settle_all(base));
        world.check();
        world.check_increments();
    }
}

#[test]
fn what_fails_leaves_bases_as_they_were() {
    let mut past = Past::new(Meta::empty(), Epoch::new(5));
    let add = |past: &mut Past, name: &str| past.add_base(BaseRecord::new(name, Timestamp::default())).unwrap();
    past.put_base(LIVE, BaseRecord::new("live", Timestamp::default()));
    let [kept, gone] = ["kept", "gone"].map(|name| add(&mut past, name));
    past.put_reserve(kept, Some(BaseReserve { bytes: 9, used: 1 }));
    past.bases.change(kept, |base| base.changed_inodes = Some([InodeNo::new(kept, 1)].into()));
    let shown = |past: &Past| format!("{:?}", *past.bases);
    let before = shown(&past);

    let counted = |past: &mut Past, id| {
        past.bases.count(id, |counts, reserve| {
            counts.refers += 7;
            reserve.iter_mut().for_each(|reserve| reserve.used += 1);
        });
    };
    let many = |past: &mut Past| {
        (0..=CHANGED_INODES_MAX as u64).for_each(|number| past.bases.note_changed(InodeNo::new(kept, number)));
    };
    type Step<'a> = &'a dyn Fn(&mut Past);
    let steps: [Step<'_>; 10] = [
        &|past| assert!(add(past, "new") > gone),
        &|past| past.forget_base(gone),
        &|past| past.put_base(kept, BaseRecord::new("other", Timestamp::default())),
        &|past| counted(past, kept),
        &|past| past.put_reserve(kept, None),
        &|past| past.note_ended(kept, Epoch::new(3)),
        &|past| past.show_base(kept, false),
        &|past| past.bases.note_changed(InodeNo::new(kept, 2)),
        &many,
        &|past| {
            drop(past.add_snapshot(kept, "s".into(), Timestamp::default(), SnapOptions::default(), &|_, _| Ok(true)))
        },
    ];
    // Each alone, and each after each other one.
    for first in steps {
        for second in steps {
            let epoch = past.epoch();
            past.begin();
            first(&mut past);
            assert_ne!(shown(&past), before);
            second(&mut past);
            counted(&mut past, gone);
            past.take_back(epoch);
            assert_eq!(shown(&past), before);
        }
    }
    past.begin();
    steps[1](&mut past);
    past.keep_changes();
    past.bases.take_back();
    assert!(past.base(gone).is_err(), "what has taken effect stays");
}
