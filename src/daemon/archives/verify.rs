//! Reading an archive as a whole: each increment, and whether the index that times are found through says the same.

use super::Archives;
use super::{ArchiveInfo, open_named};
use crate::daemon::{OnProgress, Progress};
use crate::error::{Errno, Result};
use crate::view::Views;
use std::path::Path;
use std::time::Duration;

/// How often whoever waits for the end of a roll looks whether he is still waited for.
const PAUSE: Duration = Duration::from_millis(100);

impl Archives<'_> {
    /// Reads and verifies every increment; what is wrong is in the answer, with the times it costs.
    pub fn verify(self, views: &Views, directory: Option<&Path>, progress: OnProgress<'_>) -> Result<ArchiveInfo> {
        let (mut info, directory) = self.info(views, directory)?;
        let mut done = 0;
        let read = info.increments.iter().filter(|increment| increment.merged_into.is_none());
        let total_bytes = read.map(|increment| increment.bytes).sum();
        for at in 0..info.increments.len() {
            if info.increments[at].merged_into.is_some() {
                continue;
            }
            let verified = open_named(&directory, info.increments[at].file_name()).and_then(|reader| {
                reader.verify(&mut |bytes| progress(&Progress { files: at as u64, bytes: done + bytes, total_bytes }))
            });
            done += info.increments[at].bytes;
            match verified {
                Ok(()) => {
                    info.whole += 1;
                    info.whole_bytes += info.increments[at].bytes;
                }
                Err(error) if error.errno() == Errno::INTR => return Err(error),
                Err(error) => info.note_damage(at, &error),
            }
        }
        let files = info.increments.len() as u64;
        self.verify_index(views, &mut info, &mut || progress(&Progress { files, bytes: done, total_bytes }))?;
        Ok(info)
    }

    /// Compares the index of the archive that is attached, and that this is about, with its increments.
    fn verify_index(self, views: &Views, info: &mut ArchiveInfo, tell: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let Some(archive) = self.attached(views).filter(|archive| archive.path() == info.directory) else {
            return Ok(());
        };
        // While increments are written or merged it is on its way from one to the other.
        let indexed = loop {
            if let Some(_changing) = self.daemon.rolling.try_lock_for(PAUSE) {
                break archive.indexed()?;
            }
            tell()?;
        };
        if !archive.check_index(&indexed, &mut |_| tell())? {
            let text = "the index said other things than the increments, so that times may have been shown wrongly; it is made anew";
            info.problems.push(text.into());
            self.look_again(views)?;
        }
        Ok(())
    }
}
