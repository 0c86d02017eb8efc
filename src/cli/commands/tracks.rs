//! Which tracks changed, and the bytes of them that an increment has.

use super::asking::quietly;
use super::output::{print, print_json, write};
use super::{bytes, say_done, unexpected};
use crate::control::{
    Answer, ByteRange, BytesInfo, FileTracksInfo, PathText, Session, Target, TracksInfo, Verb, spelling,
};
use crate::error::{Errno, Error, Result};
use crate::shown::shown;
use serde::Serialize;
use serde_bytes::ByteBuf;
use serde_json::json;
use std::ffi::OsString;

pub(super) fn tracks(target: &Target, args: super::args::Diff) -> Result<bool> {
    let path = args.path.or(args.only).map(bytes);
    let verb = Verb::Tracks { before: bytes(args.before), after: args.after.map(bytes), path, range: args.range };
    print_tracks(quietly(target, verb)?, args.json)
}

/// Beyond so many tracks, 4 TiB of the usual ones, there are only ranges: a hole would take memory as bytes do.
const BITMAP_TRACKS_MAX: u64 = 1 << 26;

/// The tracks of a file that changed, also as bits: whoever shows them makes them, so that none are sent.
#[derive(Serialize)]
struct FileBits {
    #[serde(flatten)]
    file: FileTracksInfo,
    bitmap: Option<String>,
}

impl From<FileTracksInfo> for FileBits {
    fn from(file: FileTracksInfo) -> FileBits {
        let ranges: Vec<_> = file.tracks.iter().map(|(from, to)| *from..*to).collect();
        let count = ranges.last().map_or(0, |range| range.end);
        let bits = || spelling::hex(&crate::tree::bitmap(&ranges, count));
        FileBits { bitmap: (count <= BITMAP_TRACKS_MAX).then(bits), file }
    }
}

/// Bytes that an increment has of a file.
#[derive(Serialize)]
struct Saved {
    #[serde(flatten, serialize_with = "spelling::path::serialize")]
    path: PathText,
    inode: u64,
    bytes: usize,
    #[serde(flatten)]
    data: BytesInfo,
}

pub(super) fn print_tracks(answer: Answer, as_json: bool) -> Result<bool> {
    let Answer::Tracks(TracksInfo { track_bytes, files }) = answer else { return Err(unexpected()) };
    if as_json {
        let files: Vec<FileBits> = files.into_iter().map(FileBits::from).collect();
        return print_json(&json!({ "track_bytes": track_bytes, "files": files })).map(|()| true);
    }
    let mut text = String::new();
    for file in &files {
        for (from, to) in &file.tracks {
            text.push_str(&format!("{} {} {}\n", from * track_bytes, (to - from) * track_bytes, file.path));
        }
    }
    print(&text).map(|()| true)
}

/// Writes what a snapshot's increment has saved of a file: all of it, or a range.
pub(super) fn read_saved(
    target: &Target,
    name: ByteBuf,
    path: Option<OsString>,
    inode: Option<u64>,
    range: Option<ByteRange>,
    as_json: bool,
) -> Result<bool> {
    let mut saved = Vec::new();
    let wanted =
        path.as_ref().map_or_else(|| format!("inode {}", inode.unwrap_or_default()), |path| format!("{path:?}"));
    let verb = Session::Tracks { name: name.clone(), path: path.map(bytes), range: None };
    let Answer::Tracks(TracksInfo { track_bytes, files }) = quietly(target, Verb::Session(verb))? else {
        return Err(unexpected());
    };
    let mut files = files.into_iter().filter(|file| inode.is_none_or(|inode| file.inode == inode));
    let (Some(file), None) = (files.next(), files.next()) else {
        let name = shown(&name);
        let text = format!(
            "the increment of {name:?} has no tracks of {wanted}, or of several files there; `pitfs session tracks {name}` shows what it has"
        );
        return Err(Error::Refused(Errno::NOENT, text));
    };
    let whole = file.tracks.iter().map(|(from, to)| (from * track_bytes, to * track_bytes)).collect();
    for (mut from, to) in range.map_or(whole, |range| vec![range]) {
        loop {
            let verb = Session::Read { name: name.clone(), inode: file.inode, range: (from, to) };
            let Answer::Bytes(BytesInfo { data }) = quietly(target, Verb::Session(verb))? else {
                return Err(unexpected());
            };
            if as_json {
                saved.extend_from_slice(&data);
            } else {
                write(&data)?;
            }
            from += data.len() as u64;
            if data.is_empty() || from >= file.size_before_bytes.map_or(to, |size| to.min(size)) {
                break;
            }
        }
    }
    let (path, inode, bytes) = (file.path, file.inode, saved.len());
    say_done(as_json, Saved { path, inode, bytes, data: BytesInfo { data: saved } })
}
