//! Which moments can be seen, and under which names; and what is done to whole trees.
//!
//! A view is a base at a moment: what one directory under the mount shows. A base now can be written to;
//! every snapshot is a view of its own, and read-only.

mod adopted;
mod archive;
mod base;
pub mod check;
mod copies;
mod delete;
mod done;
mod elsewhere;
mod filling;
mod group;
mod history;
mod hold;
mod job;
mod mirror;
mod namespace;
mod naming;
mod restore;
mod room;
mod save;
mod session;
mod snapshot;
mod target;

pub use adopted::{adopt_base, adopt_snapshot, note_adopted};
pub use base::{BaseInfo, BaseKind, CloneOptions};
pub use copies::Copying;
pub use delete::{Deletion, GoingBase, ToDelete};
pub use done::{Done, Upkeep, last_upkeep, note_upkeep};
pub use elsewhere::{InSet, InSets, show_sets};
pub use history::HistoryEntry;
pub use job::{JobRecord, JobState, Jobs, MISSING_TOLD};
pub use mirror::MirrorStep;
pub use namespace::{Door, Namespace, SHADOW, SNAP, Standing, Target, Virtual, name_of};
pub use naming::{LIVE_NAME, check_name, is_virtual_name};
pub use restore::{BringingBack, Restored, Undo};
pub use session::{RegisterOptions, Session, SessionRecord};
pub use snapshot::SnapRequest;
pub use target::{TargetRecord, Targets};

use base::Bases;
use delete::Deletions;
use group::Groups;
use mirror::Mirrors;
use restore::Restores;
use room::Room;
use session::Sessions;
use snapshot::Snapshots;

use crate::clock::Epoch;
use crate::device::{BaseId, Changing, Fetched, InodeNo, LIVE, Moment, Past, Point, Snapshot, aloud};
use crate::error::{Errno, Error, Result};
use crate::limits::{BASES_MAX, VIEW_BITS, VIEWS_PASSING};
use crate::shown::shown;
use crate::tree::{ROOT, Tree};
use std::sync::Arc;

/// The trees of a store, and the names of the moments of one of its bases.
#[derive(Clone)]
pub struct Views {
    tree: Arc<Tree>,
    base: BaseId,
    /// Who acts, for the history.
    uid: u32,
    /// Every step is done and taken back.
    is_rehearsing: bool,
}

/// A base at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct View {
    pub base: BaseId,
    pub moment: Moment,
}

impl View {
    pub fn live(base: BaseId) -> View {
        View { base, moment: Moment::Live }
    }

    pub fn at(base: BaseId, epoch: Epoch) -> View {
        View { base, moment: Moment::At(epoch) }
    }

    /// The snapshot, if it is one.
    pub fn point(self) -> Option<Point> {
        match self.moment {
            Moment::At(epoch) => Some(Point { base: self.base, epoch }),
            Moment::Live => None,
        }
    }

    pub fn root(self) -> InodeNo {
        ROOT.in_base(self.base)
    }

    /// A number that no other view of the store has. Epochs whose number is taken are never used, see
    /// [`has_free_number`].
    pub fn number(self) -> ViewNo {
        match self.moment {
            Moment::At(epoch) => epoch.number() & VIEW_MASK,
            Moment::Live if self.base == LIVE => 0,
            Moment::Live => VIEWS_PASSING - self.base.number(),
        }
    }
}

/// A view's number: 0 for `live` of the first base.
pub type ViewNo = u32;

const VIEW_MASK: u32 = (1 << VIEW_BITS) - 1;
/// Numbers from here on are those of bases.
pub const BASE_NUMBERS: u32 = VIEWS_PASSING - BASES_MAX;

/// Only a base now can be written to.
pub fn check_writable(moment: Moment) -> Result<()> {
    match moment {
        Moment::Live => Ok(()),
        Moment::At(_) => Err(Error::Posix(Errno::ROFS)),
    }
}

fn refused(errno: Errno, text: String) -> Error {
    Error::Refused(errno, text)
}

/// Says of a snapshot that has ended why it cannot be looked into.
fn not_kept(snapshot: &Snapshot) -> Error {
    let name = &snapshot.record.name;
    let text = format!(
        "{name:?} was deactivated and has ended: what it showed is not kept any more; `pitfs list` shows what can be \
         looked into, and `pitfs session tracks {name}` what was saved of it"
    );
    refused(Errno::INVAL, text)
}

/// Whether no other snapshot's view has this epoch's number, nor a base's.
fn has_free_number(past: &Past, epoch: Epoch) -> Result<bool> {
    let number = View::at(LIVE, epoch).number();
    if number == 0 || number >= BASE_NUMBERS {
        return Ok(false);
    }
    let bases: Vec<BaseId> = past.bases().map(|(id, _)| id).collect();
    for turns in 1..=epoch.number() >> VIEW_BITS {
        for base in &bases {
            if past.moments().snapshot(*base, epoch.minus(turns << VIEW_BITS))?.is_some() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

impl Views {
    /// The views of the first base.
    pub fn new(tree: Tree) -> Views {
        let uid = rustix::process::geteuid().as_raw();
        let tree = Arc::new(tree);
        let views = Views { tree: tree.clone(), base: LIVE, uid, is_rehearsing: false };
        let weak = Arc::downgrade(&tree);
        tree.when_full(Box::new(move || {
            let Some(tree) = weak.upgrade() else { return false };
            let views = Views { tree, base: LIVE, uid, is_rehearsing: false };
            // By whoever needs the room, who did not ask for this.
            aloud(|| views.room().make_room()).unwrap_or_else(|error| {
                log::warn!("no room could be made: {error}");
                false
            })
        }));
        views
    }

    /// The views of another base of the same store.
    pub fn of(&self, base: BaseId) -> Views {
        Views { base, ..self.clone() }
    }

    /// What was asked of this base; nothing if that failed since the base was deleted meanwhile.
    pub fn unless_gone<T>(&self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Err(Error::Gone) if self.tree.device().look()?.base_record(self.base).is_err() => Ok(None),
            result => result.map(Some),
        }
    }

    /// The same on behalf of a user.
    pub fn by(&self, uid: u32) -> Views {
        Views { uid, ..self.clone() }
    }

    /// The same for a dry run: what changes the store in a step is done, with all its checks, and taken back.
    /// On behalf of whom something is done.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    pub fn rehearsing(&self) -> Views {
        Views { is_rehearsing: true, ..self.clone() }
    }

    pub fn is_rehearsing(&self) -> bool {
        self.is_rehearsing
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    pub fn base(&self) -> BaseId {
        self.base
    }

    pub fn find(&self, name: &[u8]) -> Result<Option<Snapshot>> {
        match std::str::from_utf8(name) {
            Ok(name) => self.tree.device().look()?.moments().snapshot_named(self.base, name),
            Err(_) => Ok(None),
        }
    }

    /// The snapshot of this name; an error in words where there is none.
    pub fn expect(&self, name: &[u8]) -> Result<Snapshot> {
        if let Some(text) = name.strip_prefix(b"@") {
            return self.at_time(&String::from_utf8_lossy(text));
        }
        match self.find(name)? {
            Some(snapshot) => Ok(snapshot),
            None => Err(self.no_snapshot(name)?),
        }
    }

    /// Says that there is no snapshot of this name, and which other bases have one.
    fn no_snapshot(&self, name: &[u8]) -> Result<Error> {
        let (name, shown) = (String::from_utf8_lossy(name), shown(name));
        let look = self.tree.device().look()?;
        let mut others = Vec::new();
        for (base, record) in look.bases() {
            if look.moments().snapshot_named(base, &name)?.is_some() {
                others.push(record.name.as_str());
            }
        }
        // As `status` and dry runs name those of other bases.
        let named = name.split_once(':').filter(|(base, _)| look.base_named(base).is_some());
        let hint = match (named, others.as_slice()) {
            (Some((base, name)), _) => format!("`-s STORE:{base}` says that {name:?} of {base:?} is meant"),
            (None, []) => "`pitfs list` shows those there are".to_string(),
            (None, [other]) => format!("the base {other:?} has one: `-s STORE:{other}` says that it is meant"),
            (None, _) => format!("the bases {} have one: `-s STORE:BASE` says which is meant", others.join(", ")),
        };
        Ok(refused(Errno::NOENT, format!("there is no snapshot named {shown:?}; {hint}")))
    }

    /// What users have written so far, and only what shows the store has, is in the store now.
    pub fn fetched(&self) -> Result<Fetched> {
        let fetched = self.tree.device().feed().fetch()?;
        self.remove_what_waits();
        Ok(fetched)
    }

    /// What was removed and let go is gone, for whoever takes a snapshot, which would keep it, or counts room.
    pub fn remove_what_waits(&self) {
        if let Err(error) = self.tree.reap_what_waits() {
            log::debug!("what was removed waits on: {error}");
        }
    }

    /// The moment of `live` or of a snapshot, by name; of `live` with all that was written so far.
    pub fn moment(&self, name: &[u8]) -> Result<Moment> {
        if name == LIVE_NAME.as_bytes() {
            self.fetched()?;
            return Ok(Moment::Live);
        }
        let snapshot = self.expect(name)?;
        if !snapshot.is_readable() {
            return Err(not_kept(&snapshot));
        }
        Ok(Moment::At(snapshot.epoch))
    }

    /// Changes the store in one step, durably, and notes what was done; or only rehearses that.
    fn change(&self, change: impl FnOnce(&mut Changing<'_>) -> Result<String>) -> Result<()> {
        let noted = |changing: &mut Changing<'_>| {
            let what = change(changing)?;
            self.note(changing, &what)
        };
        let mut committer = self.tree.device().committer()?;
        if self.is_rehearsing { committer.rehearse(noted) } else { committer.change(noted) }
    }

    /// Changes what bases show, in one step, durably. `change` says what was done, and for each which snapshot is what was
    /// there before. Everything that lets a base show another state goes through here: where a kernel shows
    /// it, somebody has to have said that it will be told.
    fn replace(
        &self,
        bases: &[BaseId],
        change: impl FnOnce(&mut Changing<'_>) -> Result<(String, Vec<Option<Point>>)>,
    ) -> Result<()> {
        if self.is_rehearsing {
            return self.change(|changing| change(changing).map(|(what, _)| what));
        }
        self.tree.replace(bases, |tell_before| {
            self.change(|changing| {
                let (what, before) = change(changing)?;
                tell_before(before);
                Ok(what)
            })
        })
    }

    /// Gives a snapshot, or a tree where no snapshot has the name, another one.
    pub fn rename_shown(&self, old: &[u8], new: &[u8]) -> Result<()> {
        let tree = self.tree.device().look()?.base_named(old);
        match tree {
            Some(base) if self.find(old)?.is_none() => self.bases().rename(base, new),
            _ => self.snapshots().rename(old, new).map(drop),
        }
    }

    /// A mirror that is in step with its base is not written to.
    pub fn check_writable(&self) -> Result<()> {
        let look = self.tree.device().look()?;
        match look.base_record(self.base)?.mirror {
            Some(mirror) if !mirror.is_split => Err(Error::Posix(Errno::ROFS)),
            _ => Ok(()),
        }
    }

    /// What is refused for this base as one of several is said with its name.
    pub fn as_one_of<T>(&self, several: usize, result: Result<T>) -> Result<T> {
        match result {
            Err(Error::Refused(errno, text)) if several > 1 => Err(match self.base_name() {
                Ok(name) => refused(errno, format!("{name}: {text}")),
                // It is gone by now.
                Err(_) => refused(errno, text),
            }),
            result => result,
        }
    }

    /// The name of this base, for messages and paths: `live` where it is the tree beside its snapshots.
    pub fn base_name(&self) -> Result<String> {
        Ok(self.tree.device().look()?.base_record(self.base)?.name.clone())
    }

    /// A view by name: `live`, a snapshot of this base, a base or clone, or BASE:SNAPSHOT.
    pub fn view(&self, name: &[u8]) -> Result<View> {
        if name != LIVE_NAME.as_bytes() && !name.starts_with(b"@") && self.find(name)?.is_none() {
            let look = self.tree.device().look()?;
            if let Some(base) = look.base_named(name) {
                filling::check_filled(&look, base)?;
                drop(look);
                self.fetched()?;
                return Ok(View::live(base));
            }
            if let Some(colon) = name.iter().position(|byte| *byte == b':')
                && let Some(base) = look.base_named(&name[..colon])
            {
                drop(look);
                return self.of(base).view(&name[colon + 1..]);
            }
        }
        Ok(View { base: self.base, moment: self.moment(name)? })
    }

    /// A snapshot by name, of this base or as BASE:SNAPSHOT.
    pub fn snapshot_of(&self, name: &[u8]) -> Result<Snapshot> {
        match self.view(name)? {
            View { base, moment: Moment::At(epoch) } => {
                self.tree.device().look()?.moments().snapshot(base, epoch)?.ok_or(Error::Gone)
            }
            _ => {
                let name = shown(name);
                Err(refused(Errno::INVAL, format!("{name:?} is a tree as it is now; give one of its snapshots")))
            }
        }
    }

    pub fn snapshots(&self) -> Snapshots<'_> {
        Snapshots { views: self }
    }

    pub fn sessions(&self) -> Sessions<'_> {
        Sessions { views: self }
    }

    pub fn groups(&self) -> Groups<'_> {
        Groups { views: self }
    }

    pub fn bases(&self) -> Bases<'_> {
        Bases { views: self }
    }

    pub fn mirrors(&self) -> Mirrors<'_> {
        Mirrors { views: self }
    }

    pub fn restores(&self) -> Restores<'_> {
        Restores { views: self }
    }

    pub fn room(&self) -> Room<'_> {
        Room { views: self }
    }

    pub fn jobs(&self) -> Jobs<'_> {
        Jobs { views: self }
    }

    pub fn targets(&self) -> Targets<'_> {
        Targets { views: self }
    }

    pub fn deletions(&self) -> Deletions<'_> {
        Deletions { views: self }
    }
}
