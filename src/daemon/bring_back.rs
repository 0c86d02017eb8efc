//! Bringing files and directories of a base back in place, as they are in a snapshot.
//!
//! Only what differs is touched. What changed is told by the increments: the walk goes where they lead, down
//! from each path, and passes over everything else.
//!
//! ```text
//! before-restore-… ──▶ for each path: restore names, the deepest directories last ──▶ remove what was kept
//!                                                                           ──▶ times of directories
//! ```
//!
//! Invariants:
//! - the inode that a name has now is changed in place if it is the one it had then, and if none of its other
//!   names outside what is brought back came to it since;
//! - what has names outside keeps these, and gives its old name to a new inode;
//! - a new inode has all of its content before it gets a name;
//! - a file that cannot be read whole from the archive stays as it is, and so does what lies below a directory that cannot be
//!   listed: an inode of these that becomes what it was under another name leaves its own to a new one ([`apart`]);
//! - what is in the way is removed when its successor is ready; a name that the snapshot does not have is
//!   removed after all that may be moved from there has been;
//! - whatever ends the work early, doing it again completes it; a crash, opening the store does.

mod apart;
mod from_set;
mod names;
mod paths;
mod rehearse;
mod remove;
mod walk;

use super::kernel::Unseen;
use super::{Daemon, OnProgress, Progress};
use crate::clock::Epoch;
use crate::device::{InodeAt, InodeNo, Moment, Snapshot, is_visited};
use crate::error::{Errno, Error, Result};
use crate::shown::shown_path;
use crate::tree::{ChangedSince, Inode, Likened, Tree, names_of, root_of, split};
use crate::view::{BringingBack, Undo, Views};
use apart::{Apart, part};
use from_set::InSet;
use parking_lot::MutexGuard;
use paths::{IfMissing, Tops, shown_all};
use rehearse::{Rehearsal, UNMADE};
use remove::remove;
use serde_bytes::ByteBuf;
use std::cell::Cell;
use std::collections::{HashMap, HashSet};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BringBackReport {
    /// The snapshot that has what was there before; empty if nothing had to be changed.
    pub before: String,
    /// Names that were brought back: of files, and of directories that were made or whose attributes differed.
    pub files: u64,
    /// Sizes of the files among them whose content differed.
    pub bytes: u64,
    /// Names that the snapshot does not have.
    pub removed: u64,
    /// What could not be brought back, each with the reason.
    pub problems: Vec<String>,
}

/// What is needed to do it.
struct Begun<'a> {
    tops: Tops,
    unseen: Unseen<'a>,
    /// The snapshot of what was there before.
    before: Snapshot,
    _alone: MutexGuard<'a, ()>,
}

/// Paths that the history names; of more, it says how many.
const HISTORY_PATHS: usize = 10;

/// With less room than this, in bytes, each few steps are committed: the reserve, with which a commit ends when
/// room does, has to suffice for them.
const ROOM_TIGHT: u64 = 64 << 20;
const STEPS_TO_LOOK: u64 = 32;

/// Files and directories that are brought back in place.
#[derive(Clone, Copy)]
pub struct PathRestores<'a> {
    pub(super) daemon: &'a Daemon,
}

impl<'a> PathRestores<'a> {
    /// Makes each path of a base what it is in a snapshot of it, after another snapshot was taken of what is there
    /// now; with that one, if anything differed. Nothing happens if a path is not in the snapshot.
    pub fn bring_back(
        self,
        views: &Views,
        snapshot: &Snapshot,
        paths: &[ByteBuf],
        progress: OnProgress<'_>,
    ) -> Result<(BringBackReport, Option<Snapshot>)> {
        self.carry_out(views, Source::in_store(snapshot), paths, progress)
    }

    /// Undoes a restore of paths: makes them what they were in the snapshot that it left. What was not there then goes.
    pub fn undo(
        self,
        views: &Views,
        before: &Snapshot,
        paths: &[ByteBuf],
        progress: OnProgress<'_>,
    ) -> Result<(BringBackReport, Option<Snapshot>)> {
        let source = Source { if_missing: IfMissing::Goes, ..Source::in_store(before) };
        self.carry_out(views, source, paths, progress)
    }

    /// Restores paths out of a snapshot in the store; views that take everything back only count.
    fn carry_out(
        self,
        views: &Views,
        source: Source<'_>,
        paths: &[ByteBuf],
        progress: OnProgress<'_>,
    ) -> Result<(BringBackReport, Option<Snapshot>)> {
        check_is_of(views, source.snapshot)?;
        let alone = self.daemon.alone_with_files()?;
        self.carry_out_alone(views, alone, source, paths, progress)
    }

    /// The same out of anything, by somebody who is alone with the files already.
    fn carry_out_alone(
        self,
        views: &Views,
        alone: MutexGuard<'a, ()>,
        source: Source<'_>,
        paths: &[ByteBuf],
        progress: OnProgress<'_>,
    ) -> Result<(BringBackReport, Option<Snapshot>)> {
        if views.is_rehearsing() {
            return self.rehearse_alone(views, alone, source, paths, progress);
        }
        let Begun { tops, unseen, before, _alone } = self.begin(views, alone, source, paths)?;
        let report = self.work((views, &unseen), &tops, (source, &before), true, progress);
        self.daemon.whole_bases().drop_before_restores(views)?;
        report.map(|report| {
            let is_kept = !report.before.is_empty();
            (report, is_kept.then_some(before))
        })
    }

    /// Looks whether it can be done, and keeps what is there now.
    fn begin(
        self,
        views: &Views,
        alone: MutexGuard<'a, ()>,
        Source { snapshot, in_set, if_missing }: Source<'_>,
        paths: &[ByteBuf],
    ) -> Result<Begun<'a>> {
        views.check_writable()?;
        let tops = Tops::find(views, snapshot, paths, if_missing)?;
        let unseen = self.daemon.unseen(views.base())?;
        let from = in_set.map_or(String::new(), |found| format!("--from {:?} ", found.target));
        let what = format!("restore {from}{:?} {}", snapshot.record.name, shown_all(tops.paths(), HISTORY_PATHS));
        let paths: Vec<ByteBuf> = tops.paths().map(ByteBuf::from).collect();
        let before = views.restores().begin_bringing_back(snapshot.point(), &paths, &what);
        let before = before.map_err(|error| if error.is_no_space() { no_snapshot() } else { error })?;
        Ok(Begun { tops, unseen, before, _alone: alone })
    }

    /// Completes what was being brought back when the store was left without being closed. Everything is compared:
    /// how far the work had come, nothing says.
    pub(super) fn complete(self) -> Result<()> {
        let Some(unfinished) = self.daemon.views.restores().unfinished_bringing_back()? else { return Ok(()) };
        let result = self.go_on(&unfinished);
        if result.is_err() {
            // What is done of it can be undone.
            let BringingBack { to, before, paths } = unfinished;
            self.daemon.views.of(to.base).restores().end_bringing_back(Some(Undo { before, paths }))?;
        }
        result?.problems.iter().for_each(|problem| log::warn!("{problem}"));
        Ok(())
    }

    fn go_on(self, unfinished: &BringingBack) -> Result<BringBackReport> {
        let BringingBack { to, before, paths } = unfinished;
        let views = self.daemon.views.of(to.base);
        if is_visited(*to) {
            return Err(interrupted(&views, *before, paths));
        }
        let (to, before) = {
            let look = views.tree().device().look()?;
            let found = |epoch| look.moments().snapshot(to.base, epoch)?.ok_or(Error::Gone);
            (found(to.epoch)?, found(*before)?)
        };
        // All that was to be brought back was there, or was to go.
        let tops = Tops::find(&views, &to, paths, IfMissing::Goes)?;
        log::info!("bringing back {} goes on", shown_all(tops.paths(), HISTORY_PATHS));
        let source = Source::in_store(&to);
        self.work((&views, &self.daemon.unseen(to.base)?), &tops, (source, &before), false, &mut |_| Ok(()))
    }

    fn work(
        self,
        (views, unseen): (&Views, &Unseen<'_>),
        tops: &Tops,
        (source, before): (Source<'_>, &Snapshot),
        is_led: bool,
        progress: OnProgress<'_>,
    ) -> Result<BringBackReport> {
        let mut work = BringBack::new((views, unseen), tops, (source, before), progress);
        work.report.before.clone_from(&before.record.name);
        work.apart.changed = is_led.then(HashSet::new);
        let led = if is_led { work.find_changed() } else { Ok(()) };
        let result = led.and_then(|()| work.run());
        let has_changed = work.has_changed.get();
        let mut report = work.report;
        let paths = || tops.paths().map(ByteBuf::from).collect();
        let undo = (has_changed || !is_led).then(|| Undo { before: before.epoch, paths: paths() });
        let ended = views.restores().end_bringing_back(undo);
        let committed = views.tree().commit();
        let result = result.and(ended).and(committed);
        let forgotten = if is_led && !has_changed { views.restores().forget_before(before) } else { Ok(false) };
        if let Ok(true) = forgotten {
            report.before.clear();
        }
        // What kept it from being done is more than that a snapshot stays behind.
        match result.and(forgotten) {
            Err(error) if error.is_no_space() => Err(no_space(&report)),
            result => result.map(|_| report),
        }
    }
}

fn check_is_of(views: &Views, snapshot: &Snapshot) -> Result<()> {
    let name = &snapshot.record.name;
    let text = match (snapshot.base == views.base(), snapshot.is_readable()) {
        (true, true) => return Ok(()),
        (false, _) => format!("{name:?} is no snapshot of {:?}", views.base_name()?),
        (true, false) => format!("{name:?} was deactivated: what it showed is not kept any more"),
    };
    Err(Error::Refused(Errno::INVAL, text))
}

/// What opening the store cannot complete: the target may need a key, and may not be there.
fn interrupted(views: &Views, before: Epoch, paths: &[ByteBuf]) -> Error {
    let look = views.tree().device().look();
    let kept = look.and_then(|look| look.moments().snapshot(views.base(), before)).ok().flatten();
    let kept = kept.map_or(String::new(), |kept| format!("; what was there before is {:?}", kept.record.name));
    let paths = shown_all(paths.iter().map(|path| path.as_slice()), HISTORY_PATHS);
    let text = format!(
        "restoring {paths} from a target was interrupted, and a part is done{kept}; `pitfs restore --from` once more does the rest"
    );
    Error::Refused(Errno::INTR, text)
}

fn no_snapshot() -> Error {
    let text = "no room is left for a snapshot of what is there now; delete snapshots or files and do it again";
    Error::Refused(Errno::NOSPC, text.into())
}

fn no_space(report: &BringBackReport) -> Error {
    let BringBackReport { files, before, .. } = report;
    let kept = match before.as_str() {
        "" => "; nothing was changed".to_string(),
        before => format!("; {before:?} has what was there before"),
    };
    let text = format!(
        "there is no room for what the snapshot has, {files} files were brought back so far{kept}; delete snapshots or files and \
         do it again"
    );
    Error::Refused(Errno::NOSPC, text)
}

/// Where what is brought back comes from.
#[derive(Clone, Copy)]
struct Source<'a> {
    /// The snapshot, or what stands for one that lies in a set.
    snapshot: &'a Snapshot,
    in_set: Option<&'a InSet<'a>>,
    if_missing: IfMissing,
}

impl<'a> Source<'a> {
    fn in_store(snapshot: &'a Snapshot) -> Source<'a> {
        Source { snapshot, in_set: None, if_missing: IfMissing::IsRefused }
    }
}

struct BringBack<'a> {
    tree: &'a Tree,
    root: InodeNo,
    unseen: &'a Unseen<'a>,
    /// The moment of the snapshot. Variables of this name are inodes as they are in it, those named `now` live.
    then: Moment,
    /// The moment of what was there before.
    before: Epoch,
    source: Source<'a>,
    tops: &'a Tops,
    /// What changed since; without it, everything is compared.
    changed: Option<ChangedSince<'a>>,
    /// Inodes with several names then: what stands for them now.
    chosen: HashMap<InodeNo, InodeNo>,
    /// Inodes that stand for others than they were then, or that have several names.
    taken: HashSet<InodeNo>,
    /// Names that the snapshot does not have, and that something may still be moved from.
    extras: Vec<Place>,
    /// Directories whose attributes have begun to change.
    disarmed: HashSet<InodeNo>,
    /// Directories whose times will change once more.
    unfinished: Vec<(InodeNo, InodeNo)>,
    report: BringBackReport,
    progress: OnProgress<'a>,
    is_interrupted: bool,
    apart: Apart,
    /// Whether anything is not what it was before the work.
    has_changed: Cell<bool>,
    steps: u64,
    /// Nothing is changed; what would be is counted.
    rehearsal: Option<Rehearsal>,
}

/// What a name leads to now.
type Now = Option<(InodeNo, Inode)>;

/// A name in a live directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    parent: InodeNo,
    name: Vec<u8>,
}

impl<'a> BringBack<'a> {
    fn new(
        (views, unseen): (&'a Views, &'a Unseen<'_>),
        tops: &'a Tops,
        (source, before): (Source<'a>, &Snapshot),
        progress: OnProgress<'a>,
    ) -> BringBack<'a> {
        BringBack {
            tree: views.tree(),
            root: root_of(views.base()),
            unseen,
            then: Moment::At(source.snapshot.epoch),
            before: before.epoch,
            source,
            tops,
            changed: None,
            chosen: HashMap::new(),
            taken: HashSet::new(),
            extras: Vec::new(),
            unfinished: Vec::new(),
            disarmed: HashSet::new(),
            report: BringBackReport::default(),
            progress,
            is_interrupted: false,
            apart: Apart::default(),
            has_changed: Cell::new(false),
            steps: 0,
            rehearsal: views.is_rehearsing().then(Rehearsal::default),
        }
    }

    fn find_changed(&mut self) -> Result<()> {
        let Source { snapshot, in_set, .. } = self.source;
        let (base, then) = (snapshot.base, snapshot.epoch);
        let since = match in_set {
            None => Some((then, None)),
            Some(in_set) => in_set.like.as_ref().map(|(like, differing)| (like.epoch, Some(differing))),
        };
        if let (true, Some(since)) = (self.tops.have_directory(), since) {
            let comparison = self.tree.comparison();
            self.changed = comparison.differing_from(base, then, since, self.before, &mut || self.tell(0))?;
        }
        Ok(())
    }

    /// An inode as it was then, where it can be read best: what lies in the store can be shared.
    fn model(&self, then: InodeNo) -> InodeAt {
        let in_set = self.source.in_set.filter(|_| !self.is_wanted_anyway(then));
        in_set.and_then(|in_set| in_set.in_store(then)).unwrap_or_else(|| then.at(self.then))
    }

    /// Whether a file is compared with what a set has though it has not changed: it is named, and may be damaged in the store.
    fn is_wanted_anyway(&self, then: InodeNo) -> bool {
        self.source.in_set.is_some() && self.tops.name_file(then)
    }

    fn run(&mut self) -> Result<()> {
        let walked = self.walk_all();
        let parted = part(self);
        walked.and(parted)?;
        self.find_gone()?;
        for place in std::mem::take(&mut self.extras) {
            let result = remove(self, &place);
            self.settle(result, &place)?;
        }
        for (then, now) in std::mem::take(&mut self.unfinished) {
            self.attributes(then, now)?;
        }
        Ok(())
    }

    /// What the snapshot does not have at all, and is there.
    fn find_gone(&mut self) -> Result<()> {
        let tops = self.tops;
        for path in tops.gone() {
            match self.place_of(path) {
                Ok(place) => self.extras.extend(place),
                Err(error) => self.problem(error, path)?,
            }
        }
        Ok(())
    }

    /// The directory of now that a path leads to, and the name in it, if there is one.
    fn place_of(&self, path: &[u8]) -> Result<Option<Place>> {
        let (above, name) = split(path);
        let mut parent = self.root;
        for name in names_of(above) {
            match self.lookup(&Place { parent, name: name.to_vec() })? {
                Some((inode, found)) if found.is_directory() => parent = inode,
                _ => return Ok(None),
            }
        }
        Ok(Some(Place { parent, name: name.to_vec() }))
    }

    fn walk_all(&mut self) -> Result<()> {
        let tops = self.tops;
        for top in tops.iter() {
            if let Err(error) = self.top(self.root, top) {
                self.problem(error, &top.path)?;
            }
        }
        Ok(())
    }

    fn top(&mut self, root: InodeNo, top: &paths::Top) -> Result<()> {
        let mut parent = root;
        for (name, then) in &top.above {
            let place = Place { parent, name: name.clone() };
            parent = match self.lookup(&place)? {
                Some((now, found)) if found.is_directory() => now,
                Some(_) => return Err(paths::not_a_directory(&place.name)),
                None if self.rehearsal.as_mut().is_some_and(|rehearsal| !rehearsal.is_first_above(*then)) => UNMADE,
                None => {
                    let made = self.make(&place, *then, None)?;
                    self.unfinished.push((*then, made));
                    made
                }
            };
        }
        match &top.name {
            None => self.walk(top.then, root),
            Some(name) => match self.name(&Place { parent, name: name.clone() }, top.then, top.kind)? {
                Some(now) => self.walk(top.then, now),
                None => Ok(()),
            },
        }
    }

    /// Mode, owner, xattrs and times of a directory; what goes wrong is noted.
    fn attributes(&mut self, then: InodeNo, now: InodeNo) -> Result<()> {
        match self.liken(now, then) {
            Ok(likened) => {
                let was_disarmed = self.disarmed.remove(&now);
                self.report.files += u64::from(likened.attributes || was_disarmed);
                Ok(())
            }
            Err(error) => {
                let path = self.tree.names().paths(now.live()).unwrap_or_default().pop().unwrap_or_default();
                self.problem(error, &path)
            }
        }
    }

    /// Makes an inode like what it, or another one, was then.
    fn liken(&mut self, now: InodeNo, then: InodeNo) -> Result<Likened> {
        let (tree, unseen, model) = (self.tree, self.unseen, self.model(then));
        if self.rehearsal.is_some() {
            return self.unlikeness(now, model);
        }
        // A program can have stored in a mapping while others were brought back.
        unseen.fetch_file(now)?;
        tree.likeness().check_readable(now, model, &mut |bytes| self.tell(bytes))?;
        let liken = || tree.likeness().become_like(now, model, &mut |bytes| self.tell(bytes));
        let result = unseen.change_file(now, liken, |likened| likened.any());
        if !matches!(result, Ok(likened) if !likened.any()) {
            self.has_changed.set(true);
        }
        result
    }

    fn lookup(&self, place: &Place) -> Result<Now> {
        if place.parent == UNMADE {
            return Ok(None);
        }
        if let Some(now) = self.rehearsal.as_ref().and_then(|rehearsal| rehearsal.after_moves(place)) {
            return Ok(now);
        }
        match self.tree.names().lookup(place.parent.live(), &place.name) {
            Ok(found) => Ok(Some(found)),
            Err(Error::Posix(Errno::NOENT)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether an inode had a name then, and is the one that it was.
    fn was_then(&self, now: InodeNo) -> Result<bool> {
        Ok(self.named(now.at(self.then))?.is_some() && self.is_same(now)?)
    }

    /// Whether the number of an inode means the same one now as then. A copy of the store, and one that came back from a target as it
    /// was earlier, give numbers to other inodes that the first one gives as well; of one store each is given once.
    fn is_same(&self, inode: InodeNo) -> Result<bool> {
        // What is as in a snapshot of this store is of this store.
        if self.source.in_set.is_none_or(|in_set| in_set.in_store(inode).is_some()) {
            return Ok(true);
        }
        let born = |at: InodeAt| self.tree.inode(at).map(|found| (found.kind(), found.btime));
        match (born(inode.live()), born(inode.at(self.then))) {
            (Ok(now), Ok(then)) => Ok(now == then),
            (Err(Error::Gone), _) | (_, Err(Error::Gone)) => Ok(false),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    /// An inode at a moment, if it has a name then.
    fn named(&self, at: InodeAt) -> Result<Option<Inode>> {
        match self.tree.inode(at) {
            Ok(found) => {
                let rehearsal = self.rehearsal.as_ref().filter(|_| at.is_live());
                let lost = rehearsal.map_or(0, |rehearsal| rehearsal.names_lost(at.inode));
                Ok((found.links > lost).then_some(found))
            }
            Err(Error::Gone) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Says how far the work has come; `bytes` are those of the file that is being brought back. What is done after an interruption
    /// is not interrupted again.
    fn tell(&mut self, bytes: u64) -> Result<()> {
        self.steps += 1;
        let is_due = self.steps.is_multiple_of(STEPS_TO_LOOK) && self.rehearsal.is_none();
        if is_due && self.tree.device().room()?.available < ROOM_TIGHT {
            self.tree.commit()?;
        }
        if self.is_interrupted {
            return Ok(());
        }
        let done = Progress { files: self.report.files, bytes: self.report.bytes + bytes, total_bytes: 0 };
        (self.progress)(&done).inspect_err(|_| self.is_interrupted = true)
    }

    /// Notes what went wrong with one name, if the rest can fare better.
    fn settle(&mut self, result: Result<()>, place: &Place) -> Result<()> {
        let Err(error) = result else { return Ok(()) };
        let directory = self.tree.names().paths(place.parent.live()).unwrap_or_default().pop().unwrap_or_default();
        let path = crate::tree::join(&directory, &place.name);
        self.problem(error, &path)
    }

    /// Whether the rest cannot fare better than what went wrong.
    fn concerns_all(&self, error: &Error) -> bool {
        let concerns_all = match error {
            // Of a set that is gone, only what lay in it is missing.
            Error::Store(_) => self.source.in_set.is_none(),
            Error::Media { .. } | Error::Stopped(_) | Error::Fault(_) => true,
            Error::Corrupt { .. } | Error::Gone | Error::Unshared => false,
            Error::Posix(_) | Error::Refused(..) | Error::Usage(_) => error.is_no_space(),
        };
        concerns_all || self.is_interrupted
    }

    fn problem(&mut self, error: Error, path: &[u8]) -> Result<()> {
        if self.concerns_all(&error) {
            return Err(error);
        }
        let path = shown_path(path);
        let problem = match error {
            Error::Gone => {
                self.check_snapshot()?;
                format!("{path}: a program removed it meanwhile; restore it again")
            }
            // All that is there was looked at before.
            Error::Posix(Errno::NOENT | Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => {
                format!("{path}: a program changed what is there meanwhile; restore it again")
            }
            error => format!("{path}: not restored: {error}"),
        };
        self.report.problems.push(problem);
        Ok(())
    }

    fn check_snapshot(&self) -> Result<()> {
        self.tree.device().look()?.moments().check(self.root.at(self.then)).map_err(|error| match error {
            Error::Gone => {
                let text = "the snapshot was deleted while it was restored from; what was there before is";
                Error::Refused(Errno::STALE, format!("{text} {}", self.report.before))
            }
            error => error,
        })
    }
}
