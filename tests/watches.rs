//! What inotify(7) tells of a tree that is changed behind the kernel's back.

mod mounted;

use mounted::*;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

/// What is watched, by the numbers of the watches.
struct Watches(OwnedFd, Vec<(i32, &'static str)>);

/// What was told: of what, under which name in it, and what.
type Told = Vec<(&'static str, String, ReadFlags)>;

impl Watches {
    fn new(root: &Path, names: &[&'static str]) -> Watches {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        let watch =
            |name: &&'static str| (inotify::add_watch(&fd, root.join(name), WatchFlags::ALL_EVENTS).unwrap(), *name);
        let watches = names.iter().map(watch).collect();
        Watches(fd, watches)
    }

    /// Since this was last asked, in order.
    fn told(&self) -> Told {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut told = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => {
                    let of = self.1.iter().find(|(watch, _)| *watch == event.wd()).unwrap().1;
                    let name = event.file_name().map_or(String::new(), |name| name.to_str().unwrap().to_string());
                    told.push((of, name, event.events() & !ReadFlags::ISDIR));
                }
                Err(errno) => {
                    assert_eq!(errno, rustix::io::Errno::AGAIN);
                    return told;
                }
            }
        }
    }
}

/// Everything that is watched below `live`.
const WATCHED: [&str; 8] = ["", "d", "longer", "d/longer", "same size", "unchanged", "goes", "older"];

fn then(live: &Path) {
    fs::create_dir(live.join("d")).unwrap();
    for name in ["longer", "same size", "unchanged", "d/longer", "comes", "older"] {
        fs::write(live.join(name), "then").unwrap();
        set_time(&live.join(name), 1_000_000_000);
    }
}

fn now(live: &Path) {
    for name in ["longer", "d/longer"] {
        fs::write(live.join(name), "now, and longer").unwrap();
        set_time(&live.join(name), 1_000_000_000);
    }
    fs::write(live.join("same size"), "now!").unwrap();
    set_time(&live.join("same size"), 1_000_000_000);
    set_time(&live.join("older"), 1_500_000_000);
    fs::write(live.join("goes"), "now!").unwrap();
    fs::remove_file(live.join("comes")).unwrap();
}

#[test]
fn a_restore_is_told_of_files_of_another_size_or_time_and_of_nothing_else() {
    if !can_mount() {
        return;
    }
    for mode in MODES {
        for command in [&["restore", "then"][..], &["restore", "then", "longer", "d", "same size", "older"]] {
            let what = format!("{mode:?}, {command:?}");
            let mounted = Mounted::with_options(mode);
            let live = mounted.live();
            then(&live);
            mounted.ok(["snap", "then"]);
            now(&live);
            let watches = Watches::new(&live, &WATCHED);
            mounted.ok(command);
            let told = watches.told();
            // With the writeback cache the kernel believes in its own size and time: it is made to take others.
            let (of, by): (&[&str], &[ReadFlags]) = match mode {
                ["writeback"] => {
                    (&["longer", "d/longer", "older"], &[ReadFlags::OPEN, ReadFlags::MODIFY, ReadFlags::CLOSE_WRITE])
                }
                _ => (&["longer", "d/longer"], &[ReadFlags::MODIFY]),
            };
            for (name, within, flags) in &told {
                assert!(of.contains(name) && within.is_empty() && by.contains(flags), "{what}: {name} {flags:?}");
            }
            for name in of {
                assert!(
                    told.iter().any(|(told, _, flags)| told == name && *flags == ReadFlags::MODIFY),
                    "{what}: {name}"
                );
            }
            // They go on to watch what is there.
            for name in ["longer", "d/longer", "same size", "unchanged", "older"] {
                fs::write(live.join(name), "again").unwrap();
                let told = watches.told();
                assert!(told.iter().any(|(of, _, flags)| *of == name && *flags == ReadFlags::MODIFY), "{what}: {name}");
                let (above, name) = name.rsplit_once('/').unwrap_or(("", name));
                let is_modified = |(of, within, flags): &(&str, String, ReadFlags)| {
                    (*of, within.as_str(), *flags) == (above, name, ReadFlags::MODIFY)
                };
                assert!(told.iter().any(is_modified), "{what}: {name} in {above:?}");
            }
        }
    }
}
