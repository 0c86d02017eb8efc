//! What is done to whole trees: bases, clones, restores, what is kept and what protects it.

use super::model::{BEFORE_RESTORE, Model, Node, Shown, Times};
use super::world::{World, agreed};
use pitfs::clock::{Epoch, Timestamp};
use pitfs::device::{BaseId, InodeNo, LIVE, Moment};
use pitfs::error::{Errno, Error};
use pitfs::meta::Table;
use pitfs::tree::{Difference, DifferenceKind, root_of};
use pitfs::view::{Deletion, SnapRequest, ToDelete};
use std::collections::{BTreeMap, BTreeSet};

/// Most that there may be at a time, so that comparing all of them stays cheap.
const BASES: usize = 5;
const SNAPSHOTS: usize = 6;

const NO_TIME: Timestamp = Timestamp { seconds: 0, nanos: 0 };
const NO_TIMES: Times = Times { atime: NO_TIME, mtime: NO_TIME, ctime: NO_TIME, btime: NO_TIME };

impl World {
    /// One random operation on bases and on what is kept of them.
    pub fn change_bases(&mut self) -> Result<(), Error> {
        match self.rng.below(100) {
            0..22 => self.go_somewhere(),
            22..26 => self.create_base()?,
            26..38 => self.clone_snapshot()?,
            38..52 => self.restore()?,
            52..57 => self.promote()?,
            57..61 => self.refresh()?,
            61..65 => self.hold_snapshot()?,
            65..70 => self.deactivate()?,
            70..74 => self.snapshot_all()?,
            74..76 => self.rename_base()?,
            76..81 => self.delete_base()?,
            81..84 => self.delete_recursive()?,
            _ => self.settle()?,
        }
        self.look_at_protection()?;
        self.thin_out()
    }

    /// Like [`World::change_bases`], with nothing that takes several commits.
    pub fn change_bases_at_once(&mut self) -> Result<(), Error> {
        match self.rng.below(100) {
            0..22 => self.go_somewhere(),
            22..25 => self.create_base()?,
            25..40 => self.clone_snapshot()?,
            40..60 => self.restore()?,
            60..67 => self.promote()?,
            67..70 => self.refresh()?,
            70..76 => self.deactivate()?,
            76..80 => self.snapshot_all()?,
            80..86 => self.delete_base()?,
            _ => self.settle()?,
        }
        self.look_at_protection()
    }

    fn go_somewhere(&mut self) {
        let bases = self.now.bases();
        let base = self.rng.pick(&bases);
        self.now.go_to(base);
    }

    /// A snapshot of any base that fits.
    fn any_point(&mut self, base: Option<BaseId>, has_ended: bool) -> Option<(BaseId, String, Epoch)> {
        let mut all = Vec::new();
        for id in self.now.bases().into_iter().filter(|id| base.is_none_or(|base| base == *id)) {
            let fit = self.now.shown(id).snapshots.iter().filter(|(_, kept)| kept.has_ended == has_ended);
            all.extend(fit.map(|(name, kept)| (id, name.clone(), kept.epoch)));
        }
        if all.is_empty() { None } else { Some(self.rng.pick(&all)) }
    }

    fn next_base(&self) -> BaseId {
        let look = self.tree().device().look().expect("the store is open");
        look.meta().get(Table::State, b"next base").expect("it can be read").unwrap_or(LIVE.next())
    }

    pub fn create_base(&mut self) -> Result<(), Error> {
        if self.now.bases().len() >= BASES {
            return Ok(());
        }
        let taken = self.now.name.clone();
        agreed("a base", self.views().bases().create(taken.as_bytes(), 0, 0, 0o755), Err(Errno::EXIST))?;
        let (name, id) = (self.new_name("base"), self.next_base());
        self.now.add(id, Shown { name: name.clone(), ..Shown::default() });
        let made = self.here().bases().create(name.as_bytes(), 3, 4, 0o750)?;
        assert_eq!(made, id, "the number of a base");
        self.look_at_protection()?;
        self.durable = self.now.clone();
        Ok(())
    }

    pub fn clone_snapshot(&mut self) -> Result<(), Error> {
        if self.rng.percent(10)
            && let Some((base, ended, _)) = self.any_point(None, true)
        {
            let views = self.views().of(base);
            let cloned = views.bases().clone_snapshot(&views.expect(ended.as_bytes())?, b"never made", false, true);
            agreed("a clone of what has ended", cloned, Err(Errno::STALE))?;
        }
        let Some((base, snapshot, _)) = self.any_point(None, false) else { return Ok(()) };
        if self.now.bases().len() >= BASES {
            return Ok(());
        }
        let (is_full, is_shown_beside) = (self.rng.percent(40), self.rng.percent(70));
        self.clone_of(base, &snapshot, is_full, is_shown_beside).map(|_| ())
    }

    pub fn clone_of(
        &mut self,
        base: BaseId,
        snapshot: &str,
        is_full: bool,
        is_shown_beside: bool,
    ) -> Result<BaseId, Error> {
        let (name, id) = (self.new_name("clone"), self.next_base());
        let kept = &self.now.shown(base).snapshots[snapshot];
        let shown = Shown {
            name: name.clone(),
            live: kept.model.in_base(id),
            is_clone: is_shown_beside,
            needs: (!is_full).then_some((base, kept.epoch)),
            is_pristine: true,
            ..Shown::default()
        };
        self.now.add(id, shown);
        let views = self.views().of(base);
        let of = views.expect(snapshot.as_bytes())?;
        let made = views.bases().clone_snapshot(&of, name.as_bytes(), is_full, is_shown_beside)?;
        assert_eq!(made, id, "the number of a base");
        self.durable = self.now.clone();
        Ok(id)
    }

    pub fn restore(&mut self) -> Result<(), Error> {
        if let Some((_, ended, _)) = self.any_point(Some(self.now.base), true) {
            let ended = self.here().expect(ended.as_bytes())?;
            agreed("restoring what has ended", self.here().restores().restore(&ended), Err(Errno::INVAL))?;
        }
        match self.any_point(Some(self.now.base), false) {
            Some((_, to, _)) => self.restore_to(&to),
            None => Ok(()),
        }
    }

    pub fn restore_to(&mut self, to: &str) -> Result<(), Error> {
        let base = self.now.base;
        let model: Model = self.now.snapshots[to].model.in_base(base);
        self.now.keep(BEFORE_RESTORE);
        self.now.live = model;
        let here = self.here();
        let restored = here.restores().restore(&here.expect(to.as_bytes())?)?;
        self.look_at_protection()?;
        assert_eq!(
            self.now.snapshots.get(&restored.before.record.name).map(|kept| kept.epoch),
            Some(restored.before.epoch),
            "what a restore keeps"
        );
        self.durable = self.now.clone();
        Ok(())
    }

    fn promote(&mut self) -> Result<(), Error> {
        let bases = self.now.bases();
        let base = self.rng.pick(&bases);
        self.promote_base(base)
    }

    pub fn promote_base(&mut self, base: BaseId) -> Result<(), Error> {
        let wanted = if self.now.shown(base).is_clone { Ok(()) } else { Err(Errno::INVAL) };
        if wanted.is_ok() {
            let shown = self.now.shown_mut(base);
            (shown.is_clone, shown.needs) = (false, None);
        }
        agreed("promote", self.views().bases().promote(base), wanted)?;
        if wanted.is_ok() {
            self.durable = self.now.clone();
        }
        Ok(())
    }

    fn refresh(&mut self) -> Result<(), Error> {
        let clones: Vec<BaseId> =
            self.now.bases().into_iter().filter(|base| self.now.shown(*base).needs.is_some()).collect();
        if clones.is_empty() {
            return Ok(());
        }
        let base = self.rng.pick(&clones);
        let Some((of, snapshot, epoch)) = self.any_point(None, false).filter(|(of, ..)| *of != base) else {
            return Ok(());
        };
        let before = self.now.clone();
        let moved = self.now.shown(of).snapshots[&snapshot].model.in_base(base);
        let shown = self.now.shown_mut(base);
        let was = std::mem::replace(&mut shown.live, moved);
        shown.needs = Some((of, epoch));
        let (is_clone, is_pristine) = (shown.is_clone, shown.is_pristine);
        let to = self.views().of(of).expect(snapshot.as_bytes())?;
        match self.views().bases().refresh(base, &to) {
            Ok(()) => {
                assert!(is_clone, "what stands for itself was moved");
                let (of, epoch) = before.shown(base).needs.expect("picked as one");
                let source = before.shown(of).in_order().into_iter().find(|(_, kept)| kept.epoch == epoch);
                let source = source.expect("it is needed, and so it is there").1.model.in_base(base);
                assert!(is_pristine || was == source, "a clone that was changed was moved");
                self.durable = self.now.clone();
                Ok(())
            }
            Err(Error::Refused(Errno::BUSY, text)) => {
                assert!(!is_clone || !is_pristine, "a clone that was never changed is not moved: {text}");
                self.now = before;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn hold_snapshot(&mut self) -> Result<(), Error> {
        let Some(name) = self.any_snapshot() else { return Ok(()) };
        let is_held = self.rng.percent(40);
        self.now.snapshots.get_mut(&name).expect("picked from these").is_held = is_held;
        self.here().snapshots().update(name.as_bytes(), "hold", |record| record.held = is_held)?;
        self.durable = self.now.clone();
        Ok(())
    }

    fn deactivate(&mut self) -> Result<(), Error> {
        let Some(name) = self.any_snapshot() else { return Ok(()) };
        let wanted = match self.now.snapshots[&name].is_active {
            false => Err(Errno::INVAL),
            true if self.would_end_what_is_held(&name)? => Err(Errno::BUSY),
            true => Ok(()),
        };
        if wanted.is_ok() {
            self.now.snapshots.get_mut(&name).expect("picked from these").is_active = false;
        }
        if agreed("deactivate", self.here().snapshots().deactivate(name.as_bytes()), wanted)?.is_some() {
            self.look_at_protection()?;
            self.durable = self.now.clone();
        }
        Ok(())
    }

    /// Whether something is held among what nothing protects once a snapshot is deactivated.
    fn would_end_what_is_held(&self, name: &str) -> Result<bool, Error> {
        let found = self.here().snapshots().all()?;
        for (other, kept) in self.now.in_order().into_iter().rev() {
            let Some(snapshot) = found.iter().find(|found| found.epoch == kept.epoch) else { continue };
            let is_needed = !self.tree().device().look()?.dependants(snapshot.point())?.is_empty();
            if (kept.is_active && other != name) || is_needed {
                return Ok(false);
            }
            if kept.is_held && !kept.has_ended {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn snapshot_all(&mut self) -> Result<(), Error> {
        let name = self.new_name("group");
        let mut bases = self.now.bases();
        bases.retain(|_| self.rng.percent(60));
        if bases.is_empty() {
            return Ok(());
        }
        for base in &bases {
            self.now.shown_mut(*base).keep(&name);
        }
        let request = SnapRequest { name: Some(name.as_bytes()), ..SnapRequest::default() };
        for taken in self.here().snapshots().take_all(&bases, request)? {
            self.now.shown_mut(taken.base).snapshots.get_mut(&name).expect("just kept").epoch = taken.epoch;
        }
        self.durable = self.now.clone();
        Ok(())
    }

    fn rename_base(&mut self) -> Result<(), Error> {
        let bases = self.now.bases();
        let base = self.rng.pick(&bases);
        let name = self.new_name("renamed");
        self.now.shown_mut(base).name = name.clone();
        self.views().bases().rename(base, name.as_bytes())?;
        self.durable = self.now.clone();
        Ok(())
    }

    /// All bases that need one of these, directly or not.
    fn family(&self, base: BaseId) -> BTreeSet<BaseId> {
        let look = self.tree().device().look().expect("the store is open");
        let mut family = BTreeSet::from([base]);
        loop {
            let before = family.len();
            for (id, record) in look.bases() {
                if record.eras.iter().any(|era| family.contains(&era.source.base)) {
                    family.insert(id);
                }
            }
            if family.len() == before {
                return family;
            }
        }
    }

    fn is_held(&self, base: BaseId) -> bool {
        self.now.shown(base).snapshots.values().any(|kept| kept.is_held)
    }

    fn delete_base(&mut self) -> Result<(), Error> {
        agreed("deleting the first base", self.views().deletions().delete_base(LIVE, true), Err(Errno::PERM))?;
        let bases: Vec<BaseId> = self.now.bases().into_iter().filter(|base| *base != LIVE).collect();
        if bases.is_empty() {
            return Ok(());
        }
        let base = self.rng.pick(&bases);
        if self.is_held(base) || self.family(base).len() > 1 {
            // What stands alone soon may do so now.
            return match self.views().deletions().delete_base(base, false) {
                Ok(()) => {
                    assert!(!self.is_held(base), "a base with something held was deleted");
                    let needed = |id: &BaseId| self.now.shown(*id).needs.is_some_and(|(of, _)| of == base);
                    assert!(!bases.iter().any(needed), "a base that is needed was deleted");
                    self.forget(base)
                }
                Err(Error::Refused(Errno::BUSY, _)) => Ok(()),
                Err(error) => Err(error),
            };
        }
        self.delete_this_base(base)
    }

    pub fn delete_this_base(&mut self, base: BaseId) -> Result<(), Error> {
        let file = self.now.shown(base).live.of_kind(|kind| kind == pitfs::tree::Kind::File).first().copied();
        if let Some(file) = file {
            // Something that nobody gets to see.
            self.tree().files().write(file, 20_000, b"lost", false)?;
        }
        self.now.remove(base);
        self.views().deletions().delete_base(base, false)?;
        self.durable = self.now.clone();
        if let Some(file) = file {
            agreed(
                "writing into what was deleted",
                self.tree().files().write(file, 20_000, b"x", false),
                Err(Errno::STALE),
            )?;
        }
        agreed("a look at what was deleted", self.tree().inode(root_of(base).live()), Err(Errno::STALE))?;
        let mut steps = self.rng.pick(&[0, 1, 2, u64::MAX]);
        while steps > 0 && self.tree().device().removal().step()? {
            steps -= 1;
        }
        Ok(())
    }

    fn forget(&mut self, base: BaseId) -> Result<(), Error> {
        self.now.remove(base);
        self.durable = self.now.clone();
        Ok(())
    }

    /// Deletes a snapshot or a base with all that needs it.
    fn delete_recursive(&mut self) -> Result<(), Error> {
        let mut family = BTreeSet::new();
        if self.rng.percent(50) {
            let bases: Vec<BaseId> = self.now.bases().into_iter().filter(|base| *base != LIVE).collect();
            if bases.is_empty() {
                return Ok(());
            }
            let base = self.rng.pick(&bases);
            family.extend(self.family(base));
            if family.iter().any(|base| self.is_held(*base)) {
                return Ok(());
            }
            self.views().deletions().delete_base(base, true)?;
        } else {
            let Some((base, name, epoch)) = self.any_point(None, false) else { return Ok(()) };
            for other in self.now.needing(base, epoch) {
                family.extend(self.family(other));
            }
            let is_held = self.now.shown(base).snapshots[&name].is_held;
            if is_held || family.contains(&base) || family.iter().any(|base| self.is_held(*base)) {
                return Ok(());
            }
            let names = [name.as_bytes()];
            let what = ToDelete { names: &names, of: &[base], trees: &[], is_recursive: true };
            let plan = self.views().of(base).deletions().plan(&what)?;
            let done = self.views().of(base).deletions().delete_all(&what)?;
            let bases = |deletion: &Deletion| deletion.bases.iter().map(|going| going.info.id).collect::<Vec<_>>();
            assert_eq!((bases(&plan), &plan.marks), (bases(&done), &done.marks), "what goes is known before");
            self.now.shown_mut(base).snapshots.remove(&name);
        }
        let left: BTreeSet<BaseId> = self.views().bases().all()?.iter().map(|info| info.id).collect();
        for base in self.now.bases().into_iter().filter(|base| !left.contains(base)) {
            assert!(family.contains(&base), "base {base} was deleted with something that it did not need");
        }
        for base in family {
            // What was being settled may have been finished instead.
            if !left.contains(&base) {
                self.now.remove(base);
            }
        }
        for base in self.now.bases() {
            let needs = self.now.shown(base).needs;
            assert!(needs.is_none_or(|(of, _)| left.contains(&of)), "what base {base} needs was deleted");
        }
        self.durable = self.now.clone();
        Ok(())
    }

    /// Does some of what is left to the background.
    pub fn settle(&mut self) -> Result<(), Error> {
        let mut steps = self.rng.pick(&[1, 1, 2, 3, 5, u64::MAX]);
        while steps > 0 && self.tree().settle_step()? {
            steps -= 1;
        }
        if self.rng.percent(30) {
            self.tree().device().removal().step()?;
        }
        if self.rng.percent(30) {
            self.tree().reap_step()?;
        }
        Ok(())
    }

    /// Compares two moments of each base with what the store says that differs.
    pub fn compare_differences(&mut self) -> Result<(), Error> {
        for base in self.now.bases() {
            let shown = self.now.shown(base);
            let mut moments = vec![(Moment::Live, "live", &shown.live)];
            for (name, kept) in shown.snapshots.iter().filter(|(_, kept)| !kept.has_ended) {
                moments.push((Moment::At(kept.epoch), name, &kept.model));
            }
            let (before, after) = (self.rng.pick(&moments), self.rng.pick(&moments));
            let found = self.tree().comparison().diff(base, before.0, after.0)?;
            if let Err(text) = compare_difference(before.2, after.2, &found) {
                panic!("base {base}, from {} to {}: {text}; found {found:?}", before.1, after.1);
            }
        }
        Ok(())
    }

    /// Deletes what is too much to be compared again and again.
    fn thin_out(&mut self) -> Result<(), Error> {
        if self.now.snapshots.len() > SNAPSHOTS { self.delete_snapshot() } else { Ok(()) }
    }

    /// Deletes all bases but the first, and lets go of what is held.
    pub(super) fn remove_bases(&mut self) -> Result<(), Error> {
        for base in self.now.bases() {
            self.now.go_to(base);
            for name in self.now.snapshots.keys().cloned().collect::<Vec<_>>() {
                self.now.snapshots.get_mut(&name).expect("one of these").is_held = false;
                self.here().snapshots().update(name.as_bytes(), "release", |record| record.held = false)?;
            }
        }
        self.now.go_to(LIVE);
        for base in self.now.bases().into_iter().filter(|base| *base != LIVE) {
            if self.views().bases().all()?.iter().any(|info| info.id == base) {
                self.views().deletions().delete_base(base, true)?;
            }
            self.now.remove(base);
        }
        self.look_at_protection()
    }
}

/// Every path that differs is said to differ, by itself or by a directory above it; and what is said is so.
fn compare_difference(before: &Model, after: &Model, found: &[Difference]) -> Result<(), String> {
    let of_path = |model: &Model| {
        let paths = model.paths().into_iter();
        let node = |number: InodeNo| Node {
            links: 0,
            times: NO_TIMES,
            entries: BTreeMap::new(),
            ..model.node(number).clone()
        };
        let all = paths.flat_map(|(number, paths)| paths.into_iter().map(move |path| (path, number)));
        all.map(|(path, number)| (path, node(number))).collect::<BTreeMap<Vec<u8>, Node>>()
    };
    let (before, after) = (of_path(before), of_path(after));
    let lies_in =
        |path: &[u8], above: &[u8]| path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
    for path in before.keys().chain(after.keys()) {
        let says = |difference: &Difference| {
            let from = difference.from.as_deref();
            lies_in(path, &difference.path) || from.is_some_and(|from| lies_in(path, from))
        };
        if before.get(path) != after.get(path) && !found.iter().any(says) {
            return Err(format!("{:?} differs", String::from_utf8_lossy(path)));
        }
    }
    for difference in found {
        let (was, is) = (before.contains_key(&difference.path), after.contains_key(&difference.path));
        let is_so = match difference.kind {
            DifferenceKind::Added | DifferenceKind::Renamed => is,
            DifferenceKind::Removed => was,
            // From a later moment to an earlier one, at the path that it has later.
            DifferenceKind::Changed | DifferenceKind::Attributes => was || is,
        };
        if !is_so {
            return Err(format!("{difference:?} is not so"));
        }
    }
    Ok(())
}
