//! Bases that are being filled from an archive: noted in the store, and shown by nothing until they are whole.

use super::base::Bases;
use super::base::{check_base_free, check_base_name};
use super::{CloneOptions, refused};
use crate::clock::Timestamp;
use crate::device::{BaseId, BaseRecord, LIVE, Moment, Snapshot, State, Txn};
use crate::error::{Errno, Error, Result};
use crate::meta::{Table, record_name};
use crate::tree::root_of;

/// Where it is noted of a base that it is being filled.
const FILLING: &[u8] = b"filling";

fn key(base: BaseId) -> Vec<u8> {
    [FILLING, &base.prefix()].concat()
}

impl Bases<'_> {
    /// What [`Bases::begin_filling`] would refuse.
    pub fn check_filling(self, name: &[u8]) -> Result<()> {
        let name = check_base_name(name)?;
        check_base_free(&*self.views.tree.device().look()?, name)
    }

    /// Makes an empty base for what an archive has of a time of this one.
    pub fn begin_filling(self, snapshot: &Snapshot, name: &[u8], options: CloneOptions) -> Result<BaseId> {
        let name = check_base_name(name)?;
        let root = self.views.tree.inode(root_of(snapshot.base).at(Moment::At(snapshot.epoch)))?;
        let clone_of = options.is_shown_beside.then(|| snapshot.point());
        let record = BaseRecord { clone_of, ..BaseRecord::new(name, Timestamp::now()) };
        let (uid, gid, mode) = (root.uid, root.gid, root.permissions());
        // In one step: nobody meets it, and no crash leaves it, without the note.
        let noted = |txn: &mut Txn<'_>, base| {
            txn.meta_mut().put(Table::State, &key(base), &());
            txn.show_base(base, false);
        };
        self.views.tree.create_base(record, uid, gid, mode, |state| check_base_free(state, name), noted)
    }

    /// Makes a base for what a set has: one that is empty, or that shows a snapshot which much of it is like.
    pub fn begin_filling_from_set(self, like: Option<&Snapshot>, name: &[u8]) -> Result<BaseId> {
        let name = check_base_name(name)?;
        let record = BaseRecord::new(name, Timestamp::now());
        let Some(like) = like else {
            let noted = |txn: &mut Txn<'_>, base| {
                txn.meta_mut().put(Table::State, &key(base), &());
                txn.show_base(base, false);
            };
            return self.views.tree.create_base(record, 0, 0, 0o755, |state| check_base_free(state, name), noted);
        };
        let mut made = None;
        self.views.tree.device().committer()?.change(|change| {
            check_base_free(change, name)?;
            let base = change.add_clone(record, like.point(), true)?;
            change.meta_mut().put(Table::State, &key(base), &());
            change.show_base(base, false);
            made = Some(base);
            Ok(())
        })?;
        made.ok_or(Error::Gone)
    }

    /// It is whole, and shown from now on, durably; `what` was done.
    pub fn end_filling_from_set(self, base: BaseId, what: &str) -> Result<()> {
        self.views.of(base).change(|change| {
            change.meta_mut().remove(Table::State, &key(base));
            change.show_base(base, true);
            Ok(what.to_string())
        })?;
        self.views.tree.device().wake();
        Ok(())
    }

    /// It is whole: it is shown from now on, durably.
    pub fn end_filling(self, base: BaseId, snapshot: &Snapshot, options: CloneOptions) -> Result<()> {
        self.views.of(base).change(|change| {
            let name = change.base_record(base)?.name.clone();
            change.meta_mut().remove(Table::State, &key(base));
            if options.reserve {
                change.reserve_for_base(base)?;
            }
            change.show_base(base, !options.is_offline);
            Ok(options.command(&snapshot.record.name, &name, None))
        })
    }

    /// It is deleted.
    pub fn give_up_filling(self, base: BaseId) -> Result<()> {
        let device = self.views.tree.device();
        match device.removal().hide_base(base, |txn| txn.meta_mut().remove(Table::State, &key(base))) {
            // It is being deleted, or gone: the note is what is left.
            Err(Error::Gone) => device.committer()?.change(|change| {
                change.meta_mut().remove(Table::State, &key(base));
                Ok(())
            })?,
            result => result?,
        }
        device.wake();
        Ok(())
    }

    /// Bases that were being filled when the store was last open. The first base never is, nor what has snapshots.
    pub fn unfinished_fillings(self) -> Result<Vec<BaseId>> {
        let look = self.views.tree.device().look()?;
        let mut bases = Vec::new();
        for pair in look.meta().range(Table::State, FILLING, &crate::meta::prefix_end(FILLING))? {
            let (key, _) = pair?;
            let base = key.get(FILLING.len()..).filter(|base| base.len() == 4).map(BaseId::of_key).transpose()?;
            match base.filter(|base| *base != LIVE) {
                Some(base) if look.moments().snapshots(base)?.is_empty() => bases.push(base),
                _ => {
                    let problem = "what it names is not being filled";
                    return Err(Error::corrupt(record_name(Table::State, &key), problem));
                }
            }
        }
        Ok(bases)
    }
}

/// Whether a base is not whole yet.
pub(super) fn is_filling(state: &State, base: BaseId) -> Result<bool> {
    Ok(base != LIVE && state.meta().contains(Table::State, &key(base))?)
}

/// EBUSY in words of a base that is not whole yet.
pub(super) fn check_filled(state: &State, base: BaseId) -> Result<()> {
    match is_filling(state, base)? {
        true => {
            let name = &state.base_record(base)?.name;
            let text =
                format!("{name:?} is being filled from an archive; wait for the command that does, or interrupt it");
            Err(refused(Errno::BUSY, text))
        }
        false => Ok(()),
    }
}
