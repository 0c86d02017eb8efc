//! What can be said of a mount.

use crate::error::{Errno, Error, Result};
use crate::fuse::Opens;

pub(super) const THREADS_DEFAULT: usize = 2;

const THREADS_MAX: usize = 64;

/// Whether requests come through the kernel's rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UseRings {
    #[default]
    IfThere,
    Always,
    Never,
}

/// Mount options, as given with `-o`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub allow_other: bool,
    pub allow_root: bool,
    pub auto_unmount: bool,
    pub read_only: bool,
    pub dev: bool,
    pub suid: bool,
    pub noexec: bool,
    pub noatime: bool,
    pub sync: bool,
    pub dirsync: bool,
    /// Mount over a directory that is not empty.
    pub nonempty: bool,
    /// Let the kernel collect small writes; see docs/semantics.md for what that means for snapshots.
    pub writeback: bool,
    /// Which opens of files are requests.
    pub opens: Opens,
    pub threads: Option<usize>,
    pub rings: UseRings,
    /// Root may show a store of another user.
    pub trust_owner: bool,
    pub fsname: Option<String>,
}

/// Every option that `-o` takes, for help and completions, each with what it does.
pub const OPTION_HELP: &[(&str, &str)] = &[
    ("allow_other", "let all users in, not only the one who mounts"),
    ("allow_root", "let root in besides the user who mounts"),
    ("auto_unmount", "unmount when the daemon dies (through fusermount3)"),
    ("ro", "read-only"),
    ("rw", "read and write (default)"),
    ("dev", "device nodes work (root only)"),
    ("nodev", "device nodes do not work (default)"),
    ("suid", "suid and sgid bits of programs work (root only)"),
    ("nosuid", "they do not (default)"),
    ("exec", "programs can be run (default)"),
    ("noexec", "they cannot"),
    ("atime", "accepted; reading never changes access times"),
    ("noatime", "the same"),
    ("sync", "every write waits for the disk"),
    ("async", "writes are collected (default)"),
    ("dirsync", "every change of a directory waits for the disk"),
    ("nonempty", "mount over a directory that is not empty"),
    ("writeback", "let the kernel collect small writes"),
    ("open=all", "each open of a file is a request, so that none in a snapshot is opened for writing (default)"),
    ("open=none", "none is: reading many small files is faster, and a mapping can show changes of a snapshot"),
    (
        "trust_owner",
        "as root, show the store of another user, who could have root read or change by it what is not his",
    ),
    ("threads=N", "threads that serve requests, without rings"),
    ("io_uring=auto", "requests through the kernel's rings, where they are switched on (default)"),
    ("io_uring=on", "through rings, or not at all; root has the kernel switch them on"),
    ("io_uring=off", "through /dev/fuse"),
    ("fsname=NAME", "what the list of mounts shows as the source"),
];

/// Takes `-o` apart. Options that only concern whoever calls mount(8) are passed over.
pub fn parse_options(given: &[String]) -> Result<Options> {
    let mut options = Options::default();
    for option in given.iter().flat_map(|list| list.split(',')).filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("allow_other", None) => options.allow_other = true,
            ("allow_root", None) => options.allow_root = true,
            ("auto_unmount", None) => options.auto_unmount = true,
            ("ro", None) => options.read_only = true,
            ("rw", None) => options.read_only = false,
            ("dev", None) => options.dev = true,
            ("nodev", None) => options.dev = false,
            ("suid", None) => options.suid = true,
            ("nosuid", None) => options.suid = false,
            ("exec", None) => options.noexec = false,
            ("noexec", None) => options.noexec = true,
            ("noatime", None) => options.noatime = true,
            ("sync", None) => options.sync = true,
            ("async", None) => options.sync = false,
            ("dirsync", None) => options.dirsync = true,
            ("nonempty", None) => options.nonempty = true,
            ("writeback", None) => options.writeback = true,
            ("trust_owner", None) => options.trust_owner = true,
            ("open", Some("all")) => options.opens = Opens::All,
            ("open", Some("none")) => options.opens = Opens::None,
            ("threads", Some(count)) => {
                options.threads =
                    Some(count.parse().ok().filter(|n| (1..=THREADS_MAX).contains(n)).ok_or_else(|| {
                        Error::Refused(
                            Errno::INVAL,
                            format!("-o threads={count}: give a number from 1 to {THREADS_MAX}"),
                        )
                    })?);
            }
            ("io_uring", Some("auto")) => options.rings = UseRings::IfThere,
            ("io_uring", Some("on")) => options.rings = UseRings::Always,
            ("io_uring", Some("off")) => options.rings = UseRings::Never,
            ("fsname", Some(fsname)) => options.fsname = Some(fsname.to_string()),
            (
                "default_permissions" | "atime" | "relatime" | "strictatime" | "nodiratime" | "diratime" | "lazytime",
                None,
            ) => {}
            (
                "defaults" | "auto" | "noauto" | "user" | "nouser" | "users" | "owner" | "group" | "nofail" | "_netdev",
                None,
            ) => {}
            ("subtype" | "comment" | "user", Some(_)) => {}
            (name, _) if name.starts_with("x-") => {}
            _ => {
                let known: Vec<&str> = OPTION_HELP.iter().map(|(name, _)| *name).collect();
                return Err(Error::Refused(
                    Errno::INVAL,
                    format!("-o {option} is not an option of pitfs; those are: {}", known.join(" ")),
                ));
            }
        }
    }
    if options.writeback && options.opens == Opens::None {
        let text = "-o writeback needs to know which files are open: leave out -o open=none";
        return Err(Error::Refused(Errno::INVAL, text.into()));
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_taken_apart_and_unknown_ones_refused() {
        let parse = |text: &str| parse_options(&[text.to_string()]);
        let options = parse("ro,allow_other,nofail,x-systemd.automount,threads=4,fsname=a").unwrap();
        assert!(options.read_only && options.allow_other && options.threads == Some(4));
        assert_eq!(options.fsname.as_deref(), Some("a"));
        for wrong in ["threads=0", "threads=x", "alow_other", "ro=1", "open=some", "io_uring", "io_uring=yes"] {
            assert!(parse(wrong).unwrap_err().to_string().contains(wrong), "{wrong}");
        }
        assert_eq!(parse("open=none").unwrap().opens, Opens::None);
        assert!(parse("open=none,writeback").unwrap_err().to_string().contains("open=none"));
    }

    #[test]
    fn every_option_in_the_help_is_known() {
        for (name, _) in OPTION_HELP {
            let given = name.replace("=N", "=2").replace("=NAME", "=x");
            assert!(parse_options(std::slice::from_ref(&given)).is_ok(), "{given}");
        }
    }
}
