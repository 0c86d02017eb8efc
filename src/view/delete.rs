//! Deleting: all that goes with what is named is known before anything does.
//!
//! ```text
//! settle what shows a state that goes ──▶ plan ──▶ bases, each before what it depends on ──▶ snapshots, in one step
//! ```

use super::base::needed_by;
use super::filling::check_filled;
use super::job::job_of_tag;
use super::{BaseInfo, LIVE_NAME, Views, refused};
use crate::device::{BaseId, BaseRecord, LIVE, Point, Snapshot, State};
use crate::error::{Errno, Error, Result};
use crate::purpose::Purpose;
use crate::shown::{shown, shown_file};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What is to be deleted.
#[derive(Clone, Debug, Default)]
pub struct ToDelete<'a> {
    /// Names of snapshots, and of which bases they are.
    pub names: &'a [&'a [u8]],
    pub of: &'a [BaseId],
    /// Whole bases, clones and mirrors.
    pub trees: &'a [BaseId],
    /// With all that depends on any of it.
    pub is_recursive: bool,
}

/// What goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// In the order in which they go.
    pub bases: Vec<GoingBase>,
    /// The snapshots that were named.
    pub snapshots: Vec<Snapshot>,
    /// Snapshots of other bases that were taken for mirrors that go.
    pub marks: Vec<Snapshot>,
}

/// A base that goes, with its snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoingBase {
    pub info: BaseInfo,
    pub snapshots: Vec<Snapshot>,
}

/// What is deleted.
#[derive(Clone, Copy)]
pub struct Deletions<'a> {
    pub(super) views: &'a Views,
}

impl Deletions<'_> {
    /// Makes snapshots disappear, durably; none of them if a name is wrong or something depends on one. Their
    /// room comes back in the background.
    pub fn delete(self, names: &[&[u8]]) -> Result<Vec<Snapshot>> {
        Ok(self.delete_all(&ToDelete { names, of: &[self.views.base], ..ToDelete::default() })?.snapshots)
    }

    /// Makes a base disappear with its snapshots, durably; with all that depends on it, if `is_recursive`.
    pub fn delete_base(self, base: BaseId, is_recursive: bool) -> Result<()> {
        self.delete_all(&ToDelete { trees: &[base], is_recursive, ..ToDelete::default() }).map(|_| ())
    }

    /// Makes all of it disappear, durably, snapshots that are named in one step; what went.
    pub fn delete_all(self, what: &ToDelete<'_>) -> Result<Deletion> {
        let mut done = Deletion::default();
        loop {
            // Those that were named are gone when it has to be tried again.
            let left: Vec<BaseId> = what
                .trees
                .iter()
                .filter(|base| !done.bases.iter().any(|gone| gone.info.id == **base))
                .copied()
                .collect();
            let what = ToDelete { trees: &left, ..what.clone() };
            let named = self.named(&what)?;
            self.finish_settling_from(&named.iter().map(Snapshot::point).collect())?;
            let deletion = self.plan_of(&what, named)?;
            for going in deletion.bases {
                self.delete_base_alone(going.info.id, &going.info.name)?;
                done.bases.push(going);
            }
            done.marks.extend(deletion.marks);
            match self.delete_snapshots(&deletion.snapshots) {
                // Somebody came to need one of them: the plan says who, if that is not over already.
                Err(Error::Posix(Errno::BUSY)) => {}
                result => return result.map(|()| Deletion { snapshots: deletion.snapshots, ..done }),
            }
        }
    }

    /// What [`Deletions::delete_all`] would make disappear; refused where that is.
    pub fn plan(self, what: &ToDelete<'_>) -> Result<Deletion> {
        self.plan_of(what, self.named(what)?)
    }

    /// The snapshots that are named, if nothing but what depends on them forbids to delete them.
    fn named(self, what: &ToDelete<'_>) -> Result<Vec<Snapshot>> {
        let mut snapshots: Vec<Snapshot> = Vec::new();
        let mut known = HashSet::new();
        for base in what.of {
            let views = self.views.of(*base);
            for name in what.names {
                let snapshot = views.as_one_of(what.of.len(), views.deletions().deletable(name))?;
                if known.insert(snapshot.point()) {
                    snapshots.push(snapshot);
                }
            }
        }
        Ok(snapshots)
    }

    fn deletable(self, name: &[u8]) -> Result<Snapshot> {
        if name == LIVE_NAME.as_bytes() {
            return Err(refused(Errno::PERM, "`live` is the tree itself and cannot be deleted".into()));
        }
        if !name.starts_with(b"@")
            && self.views.find(name)?.is_none()
            && self.views.tree.device().look()?.base_named(name).is_some()
        {
            let name = shown(name);
            let text = format!(
                "there is no snapshot named {name:?}; a base, clone or mirror is: `pitfs base delete {name}` deletes that with all its snapshots"
            );
            return Err(refused(Errno::NOENT, text));
        }
        let snapshot = self.views.snapshots().expect_stored(name)?;
        self.check_not_anchor(&snapshot)?;
        check_not_held(&*self.views.tree.device().look()?, &snapshot)?;
        Ok(snapshot)
    }

    /// The archive cannot be read without the snapshot that its newest increment leads to.
    fn check_not_anchor(self, snapshot: &Snapshot) -> Result<()> {
        let look = self.views.tree.device().look()?;
        match &look.base_record(self.views.base)?.archive {
            Some(archive) if archive.needs(snapshot.epoch) => Err(refused(
                Errno::BUSY,
                format!(
                    "the archive {} continues from {:?}; `pitfs roll` takes it on from there, `pitfs archive detach` gives it up",
                    shown_file(&archive.directory),
                    snapshot.record.name
                ),
            )),
            _ => Ok(()),
        }
    }

    fn plan_of(self, what: &ToDelete<'_>, named: Vec<Snapshot>) -> Result<Deletion> {
        let look = self.views.tree.device().look()?;
        let needed = look.all_dependants_when_settled()?;
        let mut goes = what.trees.to_vec();
        for snapshot in &named {
            let dependants = needed.get(&snapshot.point()).map_or(&[][..], Vec::as_slice);
            match what.is_recursive {
                true => goes.extend(dependants.iter().filter(|base| **base != snapshot.base)),
                false => check_unneeded(&look, snapshot, dependants)?,
            }
        }
        let order = order(&look, &goes, what.is_recursive)?;
        for snapshot in &named {
            let mut dependants = needed.get(&snapshot.point()).cloned().unwrap_or_default();
            dependants.retain(|base| !order.contains(base));
            check_unneeded(&look, snapshot, &dependants)?;
        }
        let marks = marks(&look, &order, &named)?;
        let mut bases = Vec::new();
        for base in order {
            bases.push((base, look.moments().snapshots(base)?));
        }
        drop(look);
        let going = |(base, snapshots)| Ok(GoingBase { info: self.views.of(base).bases().info()?, snapshots });
        let bases = bases.into_iter().map(going).collect::<Result<Vec<_>>>()?;
        let goes = |base: BaseId| bases.iter().any(|going| going.info.id == base);
        let snapshots = named.into_iter().filter(|snapshot| !goes(snapshot.base)).collect();
        Ok(Deletion { bases, snapshots, marks })
    }

    fn delete_snapshots(self, snapshots: &[Snapshot]) -> Result<()> {
        if snapshots.is_empty() {
            return Ok(());
        }
        let points: Vec<Point> = snapshots.iter().map(Snapshot::point).collect();
        self.views.tree.device().removal().hide_snapshots(&points)?;
        let mut names = Vec::new();
        for snapshot in snapshots {
            let name = &snapshot.record.name;
            names.push(match snapshot.base == self.views.base {
                true => format!("{name:?}"),
                false => format!("{:?}", format!("{}:{name}", self.views.of(snapshot.base).base_name()?)),
            });
        }
        self.views.change(|_| Ok(format!("delete {}", names.join(" "))))?;
        self.views.tree.device().wake();
        Ok(())
    }

    fn delete_base_alone(self, base: BaseId, name: &str) -> Result<()> {
        let marks = marks_of(&*self.views.tree.device().look()?, base)?;
        self.views.tree.device().removal().hide_base(base, |_| ())?;
        for mark in marks {
            self.views.tree.device().removal().drop_mark(mark)?;
        }
        self.views.change(|_| Ok(format!("base delete {name:?}")))?;
        self.views.tree.device().wake();
        Ok(())
    }

    /// Settles to the end what shows these states, as far as settling is under way.
    fn finish_settling_from(self, points: &BTreeSet<Point>) -> Result<()> {
        loop {
            let is_needed = {
                let look = self.views.tree.device().look()?;
                let needed = look.all_dependants()?;
                let settling = |base: &BaseId| look.noted_work().is_settling(*base).unwrap_or(false);
                needed.iter().any(|(point, bases)| points.contains(point) && bases.iter().any(settling))
            };
            if !is_needed || !self.views.tree.settle_step()? {
                return Ok(());
            }
        }
    }
}

/// EBUSY in words for what depends on a snapshot.
fn check_unneeded(state: &State, snapshot: &Snapshot, dependants: &[BaseId]) -> Result<()> {
    if dependants.is_empty() {
        return Ok(());
    }
    let of_mirrors = "; a mirror releases a snapshot with the next `pitfs mirror sync`, or `resync` if it is split";
    let name = &snapshot.record.name;
    Err(refused(Errno::BUSY, needed_by(state, name, snapshot.base, dependants, of_mirrors)?))
}

/// These bases and all that depends on them, each before what it depends on.
fn order(state: &State, named: &[BaseId], is_recursive: bool) -> Result<Vec<BaseId>> {
    let dependants = dependants_of_bases(state);
    let of = |base: &BaseId| dependants.get(base).map_or(&[][..], Vec::as_slice);
    for base in named {
        check_may_go(state, *base)?;
        let others: Vec<BaseId> = of(base).iter().copied().filter(|base| !named.contains(base)).collect();
        if !is_recursive && !others.is_empty() {
            let of_mirrors = "; a mirror needs its base as long as it is there, also when it is split";
            let name = &state.base_record(*base)?.name;
            return Err(refused(Errno::BUSY, needed_by(state, name, *base, &others, of_mirrors)?));
        }
    }
    let mut order = Vec::new();
    // A base and its mirror can need each other for a while.
    let mut seen = HashSet::new();
    for base in named {
        let mut pending = if seen.insert(*base) { vec![(*base, 0)] } else { Vec::new() };
        while let Some((base, at)) = pending.last_mut() {
            if let Some(next) = of(base).get(*at) {
                *at += 1;
                if seen.insert(*next) {
                    pending.push((*next, 0));
                }
            } else {
                check_may_go(state, *base)?;
                order.push(*base);
                pending.pop();
            }
        }
    }
    Ok(order)
}

/// What each base's snapshots are needed by.
fn dependants_of_bases(state: &State) -> BTreeMap<BaseId, Vec<BaseId>> {
    let mut dependants: BTreeMap<BaseId, Vec<BaseId>> = BTreeMap::new();
    for (id, record) in state.bases() {
        let sources = record.eras.iter().map(|era| era.source.base);
        let needed: BTreeSet<BaseId> = sources.chain(record.mirror.map(|mirror| mirror.of)).collect();
        needed.into_iter().filter(|base| *base != id).for_each(|base| dependants.entry(base).or_default().push(id));
    }
    dependants
}

fn check_may_go(state: &State, base: BaseId) -> Result<()> {
    check_filled(state, base)?;
    let BaseRecord { name, .. } = state.base_record(base)?;
    if base == LIVE {
        let text = format!("{name:?} is the store's first base and cannot be deleted; delete the store instead");
        return Err(refused(Errno::PERM, text));
    }
    state.moments().snapshots(base)?.iter().try_for_each(|snapshot| check_not_held(state, snapshot))
}

/// EBUSY in words for what somebody holds.
fn check_not_held(state: &State, snapshot: &Snapshot) -> Result<()> {
    if !snapshot.record.held {
        return Ok(());
    }
    let name = &snapshot.record.name;
    let of = match snapshot.base {
        LIVE => String::new(),
        base => format!("-s STORE:{} ", state.base_record(base)?.name),
    };
    let tags = snapshot.record.hold_tags();
    if let Some(job) = tags.iter().find_map(|tag| job_of_tag(tag)) {
        let text = format!("{name:?} is held for the job {job}; `pitfs {of}job cancel {job}` ends that");
        return Err(refused(Errno::BUSY, text));
    }
    Err(refused(Errno::BUSY, format!("{name:?} is held; `pitfs {of}release {name}` ends that")))
}

/// The snapshots of other bases that may have been taken for a mirror.
fn marks_of(state: &State, base: BaseId) -> Result<Vec<Point>> {
    let mirror = state.base_record(base)?.mirror;
    let mut marks = state.noted_work().walked(base)?;
    marks.retain(|mark| mark.base != base);
    marks.extend(mirror.and_then(|mirror| Some(Point { base: mirror.of, epoch: mirror.same?.of.epoch })));
    Ok(marks)
}

/// The marks that go with bases, since nothing else needs them.
fn marks(state: &State, order: &[BaseId], named: &[Snapshot]) -> Result<Vec<Snapshot>> {
    let needed = state.all_dependants()?;
    let mut known: HashSet<Point> = named.iter().map(Snapshot::point).collect();
    let mut found = Vec::new();
    for base in order {
        for point in marks_of(state, *base)? {
            let is_needed = needed.get(&point).is_some_and(|by| by.iter().any(|base| !order.contains(base)));
            if order.contains(&point.base) || is_needed || state.is_archiving(point) || !known.insert(point) {
                continue;
            }
            let mark = state.moments().snapshot(point.base, point.epoch)?.filter(|mark| !mark.is_archived);
            found.extend(mark.filter(|mark| mark.record.purpose == Purpose::Mirror));
        }
    }
    Ok(found)
}
