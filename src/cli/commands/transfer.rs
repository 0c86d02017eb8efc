//! Snapshots through a pipe: sent as a set, and received into a target, or into a directory that is one for a while.

use super::args;
use super::output::{Display, count, print, print_json, size, tell_all};
use super::stream::passed;
use super::{absolute, bytes, passphrase, unexpected};
use crate::control::{Answer, PathText, Send, Target, Verb, ask_with, spelling};
use crate::daemon::{PASSPHRASE_VARIABLE, receive_into};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::shown::shown_file;
use crate::target;
use serde::Serialize;
use std::io::{BufReader, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What stands for the input, or the output.
pub(super) const STREAM: &str = "-";

/// Writes a snapshot to the output; whether all of it could be read.
pub(super) fn send(to: &Target, args: args::Backup) -> Result<bool> {
    let key_file = args.key_file.as_deref().map(absolute).transpose()?;
    let passphrase = args.passphrase.then(|| passphrase::new(PASSPHRASE_VARIABLE)).transpose()?;
    if key_file.is_none() && passphrase.is_none() && args.target.is_none() && !args.no_encryption {
        let text = "say what seals the stream: --key-file FILE, --passphrase, --target NAME for the key of that target, or \
                    --no-encryption";
        return Err(Error::Usage(text.into()));
    }
    let (snapshot, target) = (args.snapshot.map(bytes), args.target);
    let wanted = Send { snapshot, level: args.level, limit: args.limit, target, key_file, passphrase };
    let stream = passed(std::io::stdout(), "the set is written to the output: `pitfs backup --to - > FILE`")?;
    let mut display = Display::new("backing up");
    let answer = ask_with(to, Verb::Send(wanted), Some(stream), &mut |progress| display.update(progress));
    display.finish();
    let Answer::Backups(reports) = answer? else { return Err(unexpected()) };
    reports.iter().for_each(|report| tell_all(&report.missing));
    Ok(reports.iter().all(|report| report.missing.is_empty()))
}

/// What came in a stream.
#[derive(Serialize)]
struct ReceivedInfo {
    #[serde(flatten, serialize_with = "spelling::directory::serialize")]
    directory: PathText,
    store: String,
    sets: Vec<String>,
    bytes: u64,
}

fn from_input(directory: &Path) -> Result<target::Received> {
    passed(std::io::stdin(), "a set is read from the input: `pitfs set receive DIR < FILE`")?;
    let mut display = Display::new("receiving");
    let mut input = BufReader::with_capacity(1 << 20, std::io::stdin().lock());
    let received = receive_into(directory, &mut input as &mut dyn Read, &mut |progress| display.update(progress));
    display.finish();
    received
}

/// Takes what comes into a target.
pub(super) fn receive(directory: &Path, as_json: bool) -> Result<bool> {
    let directory = absolute(directory)?;
    let target::Received { store, sets, bytes } = from_input(&directory)?;
    if as_json {
        let sets = sets.iter().map(Id::to_string).collect();
        let info = ReceivedInfo { directory: directory.into(), store: store.to_string(), sets, bytes };
        return print_json(&info).map(|()| true);
    }
    match sets.len() as u64 {
        0 => print("nothing that was not there already\n")?,
        new => print(&format!("{}, {} received\n", count(new, "set"), size(bytes)))?,
    }
    Ok(true)
}

/// In the name of a directory that is a target for as long as it is needed.
const UNPACKED: &str = ".pitfs-stream-";

/// What came from the input, as a target beside what will be made of it: that has to have room for both.
pub(super) struct Unpacked {
    path: PathBuf,
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            log::warn!("{} stays behind: {error}", shown_file(&self.path));
        }
    }
}

impl Unpacked {
    /// Takes what comes from the input to a directory beside a path.
    pub fn beside(path: &Path) -> Result<Unpacked> {
        let path = absolute(path)?;
        let above = path.ancestors().skip(1).find(|above| above.is_dir()).unwrap_or(Path::new("/"));
        // Where others can put something in its place, it lies among temporary files.
        let above = if is_ours_alone(above) { above.to_path_buf() } else { std::env::temp_dir() };
        let path = above.join(format!("{UNPACKED}{}", Id::random()));
        let failed = |error| Error::media(format!("making {}", shown_file(&path)), error);
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        let unpacked = Unpacked { path };
        let place = unpacked.target();
        std::fs::create_dir(&place).map_err(|error| Error::media(format!("making {}", shown_file(&place)), error))?;
        from_input(&place)?;
        Ok(unpacked)
    }

    pub fn target(&self) -> PathBuf {
        self.path.join("target")
    }
}

/// Whether nobody else can write to a directory.
fn is_ours_alone(directory: &Path) -> bool {
    let found = directory.symlink_metadata();
    found.is_ok_and(|found| {
        found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0
    })
}
