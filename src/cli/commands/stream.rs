//! Tar archives: unpacked from the input, packed on the output.

use super::{paths, unexpected, warn};
use crate::cli::args;
use crate::cli::output::{Display, count, print, print_json, size};
use crate::control::{Answer, Target, Verb, ask_with};
use crate::error::{Errno, Error, Result};
use serde_bytes::ByteBuf;
use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::Arc;

/// One of the standard streams, for the daemon.
pub(super) fn passed(stream: impl AsFd + IsTerminal, what: &str) -> Result<Arc<File>> {
    if stream.is_terminal() {
        return Err(Error::Refused(Errno::INVAL, what.into()).as_usage());
    }
    let duplicate = |stream: BorrowedFd<'_>| stream.try_clone_to_owned().map(File::from);
    duplicate(stream.as_fd()).map(Arc::new).map_err(|error| Error::media("taking a stream", error))
}

pub fn put(store: &Target, args: args::Put) -> Result<bool> {
    let directory = args.destination.map_or(Ok(Vec::new()), |path| paths::destination(store, Path::new(&path)))?;
    let stream = passed(std::io::stdin(), "a tar archive is read from the input: `pitfs put < FILE.tar`")?;
    let mut display = Display::new("unpacking");
    let verb = Verb::Put { directory: ByteBuf::from(directory) };
    let answer = ask_with(store, verb, Some(stream), &mut |progress| display.update(progress));
    display.finish();
    let Answer::Stream(report) = answer? else { return Err(unexpected()) };
    if args.json {
        print_json(&report)?;
        return Ok(report.problems.is_empty());
    }
    print(&format!("{} unpacked, {}\n", count(report.files, "file"), size(report.bytes)))?;
    warn(&report.problems);
    Ok(report.problems.is_empty())
}

pub fn get(store: &Target, args: args::Get) -> Result<bool> {
    let snapshot = ByteBuf::from(args.snapshot.into_vec());
    let paths = paths::paths_in_view(store, args.paths)?;
    let text = "a tar archive is written to the output: `pitfs get SNAPSHOT > FILE.tar`";
    let stream = passed(std::io::stdout(), text)?;
    let mut display = Display::new("packing");
    let verb = Verb::Get { snapshot, paths };
    let answer = ask_with(store, verb, Some(stream), &mut |progress| display.update(progress));
    display.finish();
    let Answer::Stream(report) = answer? else { return Err(unexpected()) };
    warn(&report.problems);
    Ok(report.problems.is_empty())
}
