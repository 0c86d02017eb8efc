//! Taking increments in that lie in another directory: what was saved while the archive's disk was not there.

use super::catalog::files;
use super::chain::tip;
use super::{Archive, Header, Holds, Increment, Label, Reader, Tell, explain_no_room, failed, sync, temporary_name};
use crate::clock::Epoch;
use crate::error::{Error, Result};
use crate::id::Id;
use crate::media::Directory;
use crate::shown::shown_file;
use std::collections::HashSet;
use std::path::PathBuf;

impl Archive {
    /// Copies the whole increments of this base that another directory has and this one has not, up to the newest
    /// snapshot that the store has; they are taken up by the next look. What is not whole, or of others, is left where it
    /// is: what a copy of the store saved after they went apart would keep this one from going on here, and what was merged
    /// over times that are here would hide these.
    pub fn take_in(&self, from: &Directory, holds: Holds<'_>, tell: Tell<'_>) -> Result<TakenIn> {
        let mut result = TakenIn::default();
        let mut found = Vec::new();
        for (name, bytes) in files(from)? {
            let path = from.path().join(&name);
            let header =
                Reader::open(from, &name).and_then(|reader| self.check_origin(&path, &name, reader.header().clone()));
            match header {
                Ok(header) => found.push(Increment { header, path, bytes }),
                Err(error) => result.left.push(error.to_string()),
            }
        }
        let (here, others) = (self.increments(), self.others());
        let headers: Vec<&Header> = here.iter().chain(&others).chain(&found).map(|one| &one.header).collect();
        let end = tip(&headers, holds)?.map_or(Epoch::MAX, |tip| tip.epoch);
        let known = known_ids(&here);
        let is_here = |one: &Header| known.contains(&one.from.id) && known.contains(&one.to.id);
        let broken: HashSet<PathBuf> = self.broken().into_iter().map(|broken| broken.path).collect();
        for one in &found {
            let name = one.name();
            let to = self.path().join(&name);
            let is_taken = self.directory.kind(&name).map_err(|error| failed("looking at", &to, error))?.is_some();
            if broken.contains(&to) && is_taken {
                result
                    .left
                    .push(format!("{} is damaged: remove it, then a whole one can be taken in", shown_file(&to)));
                continue;
            }
            if one.header.to.epoch > end || is_here(&one.header) || is_taken {
                continue;
            }
            if let Some(part) = here.iter().chain(&others).find(|part| would_hide(&one.header, &part.header)) {
                let (path, name) = (shown_file(&one.path), &part.header.from.name);
                result.left.push(format!("{path} was merged over {name:?}, which the archive has and would lose"));
                continue;
            }
            match copy(from, &self.directory, &name) {
                Ok(()) => result.taken += 1,
                Err(error @ (Error::Corrupt { .. } | Error::Store(_))) => result.left.push(error.to_string()),
                Err(error) => return Err(explain_no_room(self.path(), error)),
            }
            tell(one.bytes)?;
        }
        Ok(result)
    }
}

/// The snapshots that the increments of a chain lead over: what leads from one of them to another is in it, or was merged.
fn known_ids(chain: &[Increment]) -> HashSet<Id> {
    let of = |one: &Increment| [&[one.header.from.id, one.header.to.id][..], &one.header.merged].concat();
    chain.iter().flat_map(of).collect()
}

/// Whether the time of one increment lies within another that was merged. That names only those which the last merge put
/// together.
fn would_hide(merged: &Header, part: &Header) -> bool {
    let is_within = merged.from.epoch < part.from.epoch && part.from.epoch < merged.to.epoch;
    is_within && !merged.merged.is_empty()
}

/// What became of the increments in another directory.
#[derive(Debug, Default)]
pub struct TakenIn {
    pub taken: u64,
    /// What is not whole, or of others.
    pub left: Vec<String>,
}

/// Copies a file whole, verified, under a name that nothing has.
fn copy(from: &Directory, to: &Directory, name: &str) -> Result<()> {
    let temporary = temporary_name(name);
    let write = || {
        let mut source = from.open_plain(name)?;
        let mut file = to.make_anew(&temporary)?;
        std::io::copy(&mut source, &mut file)?;
        file.sync_all()
    };
    let copied = write().map_err(|error| failed("copying", &from.path().join(name), error)).and_then(|()| {
        let reader = Reader::open(to, &temporary)?;
        reader.verify(&mut |_| Ok(()))?;
        if !reader.is_former() {
            Label::raise(to)?;
        }
        let renamed = to.rename_new(&temporary, name);
        renamed.map_err(|error| failed("renaming", &to.path().join(&temporary), error))?;
        sync(to)
    });
    if copied.is_err() {
        // The error says enough.
        drop(to.remove(&temporary));
    }
    copied
}
