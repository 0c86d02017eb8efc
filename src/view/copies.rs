//! Copies in the background: of what a base shows from elsewhere, and of tracks that it shares.

use super::base::Bases;
use super::refused;
use crate::device::{BaseId, Separate, Separated, Settle};
use crate::error::{Errno, Error, Result};
use crate::limits::BLOCK_BYTES;

/// How far a base has come to tracks of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copying {
    /// Bytes of the base's tracks that are known to be its own, and all.
    pub done: u64,
    pub total: u64,
    /// Room has ended; it goes on when there is some again.
    pub is_stopped: bool,
}

impl From<Separate> for Copying {
    fn from(separate: Separate) -> Copying {
        Copying { done: separate.done, total: separate.total, is_stopped: separate.is_stopped }
    }
}

impl Copying {
    /// Below 100 as long as it is not over.
    pub fn percent(&self) -> u64 {
        (self.done * 100).checked_div(self.total).unwrap_or(0).min(99)
    }
}

fn left_shared(damaged: u64) -> String {
    let tracks = if damaged == 1 { "track" } else { "tracks" };
    format!("copied but for {damaged} damaged {tracks}, still shared; `pitfs check` names it all")
}

impl Bases<'_> {
    /// How far this base has come to tracks of its own; nothing when it has them, or is to have none.
    pub fn copying(self) -> Result<Option<Copying>> {
        Ok(self.views.tree.device().look()?.copies().of(self.views.base)?.map(Copying::from))
    }

    /// Does a piece of copying tracks, and notes when that stops, goes on and ends; false when there is nothing to do.
    pub fn copy_step(self) -> Result<bool> {
        let (base, what) = match self.views.tree.separate_step()? {
            Separated::Nothing => return Ok(false),
            Separated::Some => return Ok(true),
            Separated::Stopped(base, separate) => {
                let Separate { done, total, .. } = separate;
                (base, format!("stopped, no room: {done} of {total} bytes are copied; it goes on when there is room"))
            }
            Separated::Resumed(base) => (base, "goes on, there is room again".to_string()),
            Separated::Done(base, separate) => {
                // What was copied is on disk, not only in memory.
                self.views.tree.commit()?;
                match separate.damaged {
                    // Nobody was told that it would take longer.
                    0 if !separate.has_stopped => return Ok(true),
                    0 => (base, "all is copied".to_string()),
                    damaged => (base, left_shared(damaged)),
                }
            }
        };
        let views = self.views.of(base);
        let text = format!("copy of {:?}: {what}", views.base_name()?);
        log::info!("{text}");
        views.note_done(&text)?;
        Ok(true)
    }

    /// Does what the background would do for this base, and shows how far it is: bytes done, and in all (0 where
    /// that is not known). Interrupted, the background goes on. NOSPC in words where room ends, EIO where what is damaged
    /// stays shared.
    pub fn finish_copy(self, tell: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<()> {
        loop {
            let (settling, separating) = {
                let look = self.views.tree.device().look()?;
                look.base_record(self.views.base)?;
                (look.noted_work().settling(self.views.base)?, look.copies().of(self.views.base)?)
            };
            match (settling, separating) {
                (Some(Settle { done, total, .. }), _) => {
                    tell(done * BLOCK_BYTES as u64, total * BLOCK_BYTES as u64)?;
                }
                (None, Some(separate)) if separate.is_stopped => {
                    // There may be room again; it goes to one base after the other.
                    if !self.copy_step()? {
                        return Err(self.not_copied(&Copying::from(separate))?);
                    }
                }
                (None, Some(separate)) => tell(separate.done, separate.total)?,
                (None, None) => {
                    self.views.tree.commit()?;
                    let left = self.views.tree.device().look()?.copies().left_shared(self.views.base)?;
                    return match left {
                        0 => Ok(()),
                        damaged => Err(self.not_copied_whole(damaged)?),
                    };
                }
            }
            if !self.views.tree.settle_step()? {
                self.copy_step()?;
            }
        }
    }

    fn not_copied(self, copying: &Copying) -> Result<Error> {
        let Copying { done, total, .. } = copying;
        let text = format!(
            "there is no room to copy all of {:?}: {done} of {total} bytes are copied, the rest is shared; it goes on \
             when there is room, as `pitfs base list` shows",
            self.views.base_name()?
        );
        Ok(refused(Errno::NOSPC, text))
    }

    fn not_copied_whole(self, damaged: u64) -> Result<Error> {
        Ok(refused(Errno::IO, format!("{:?} is {}", self.views.base_name()?, left_shared(damaged))))
    }

    /// EBUSY in words where tracks are still to be copied.
    pub(super) fn check_copied(self, of: BaseId) -> Result<()> {
        let views = self.views.of(of);
        match views.bases().copying()? {
            None => Ok(()),
            Some(copying) if copying.is_stopped => Err(views.bases().not_copied(&copying)?),
            Some(copying) => {
                let (name, percent) = (views.base_name()?, copying.percent());
                let text = format!("{name:?} is not whole yet, {percent} % are copied; `pitfs base wait {name}` waits");
                Err(refused(Errno::BUSY, text))
            }
        }
    }
}
