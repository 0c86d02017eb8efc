//! Everything at once: all operations on points in time while programs write, and every point stays what it was.
//!
//! `PITFS_SECONDS` says for how long, `PITFS_SEED` with which dice.

mod mounted;

use mounted::*;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bases that are in the store from the beginning. `moving` is restored all the time.
const BASES: [&str; 3] = ["live", "other", "moving"];

/// What a command may be refused for, since the one before was not over or something is in the way.
const REFUSALS: &[&str] = &[
    "is needed by",
    "depends on",
    "is held",
    "exists already",
    "there is no",
    "no base",
    "is running",
    "still being settled",
    "comes first",
    "split already",
    "continues from",
    "was written to",
    "is no clone",
    "is in the archive",
    "being made independent",
    "was deactivated",
    "cannot be used",
    "has snapshots of its own",
    "not in the snapshot",
    "is named",
    "has ended",
    "removed it meanwhile",
    "is not whole yet",
    "is being filled",
    "changed what is there meanwhile",
];

/// Points whose content was seen when they were taken, by base and name.
type Seen = Mutex<BTreeMap<(String, String), Vec<Shown>>>;

struct Busy {
    mounted: Mounted,
    stop: AtomicBool,
    seen: Seen,
    /// Commands that were carried out, and those that were refused.
    done: AtomicU64,
    refused: AtomicU64,
}

/// The same number in three files, one after the other, and changes of all other kinds beside that. Where the base is
/// restored meanwhile, anything may be gone.
fn write(live: &Path, seed: u64, count: u64, is_alone: bool) {
    let mut all = Vec::new();
    for name in ["first", "second", "third"] {
        let file = File::options().write(true).create(true).truncate(false).open(live.join(name));
        all.push(file.and_then(|file| file.write_all_at(&count.to_le_bytes(), 0)));
    }
    let dice = random_bytes(seed + count, 8);
    let name = |n: u8| live.join(["d/a", "d/b", "e/a", "e/b", "f"][usize::from(n % 5)]);
    let _there_already = fs::create_dir_all(live.join("d")).and_then(|()| fs::create_dir_all(live.join("e")));
    let _may_be_gone = match dice[0] % 8 {
        0..4 => File::options().write(true).create(true).truncate(false).open(name(dice[1])).and_then(|file| {
            file.write_all_at(&random_bytes(count, 1 + usize::from(dice[2]) * 100), u64::from(dice[3]) * 500)
        }),
        4 => fs::remove_file(name(dice[1])),
        5 => fs::rename(name(dice[1]), name(dice[2])),
        6 => fs::remove_dir_all(live.join("d")),
        _ => fs::hard_link(name(dice[1]), name(dice[2])),
    };
    if is_alone {
        all.into_iter().for_each(|result| result.unwrap());
    }
}

/// What a state shows of the writer: it is one moment.
fn check_moment(root: &Path, what: &str) {
    let numbers: Vec<u64> = ["first", "second", "third"]
        .map(|name| {
            fs::read(root.join(name)).ok().and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
        })
        .to_vec();
    let (first, second, third) = (numbers[0], numbers[1], numbers[2]);
    assert!(first >= second && second >= third && third + 1 >= first, "{what}: {numbers:?}");
}

impl Busy {
    fn new() -> Busy {
        let mounted = Mounted::unmounted();
        for base in &BASES[1..] {
            mounted.ok(["base", "create", base]);
        }
        mounted.ok(["group", "create", "all", "live", "other"]);
        mounted.mount(&[]);
        let (done, refused) = (AtomicU64::new(0), AtomicU64::new(0));
        Busy { mounted, stop: AtomicBool::new(false), seen: Seen::default(), done, refused }
    }

    /// Whether the command was carried out; what it may not be refused for ends the test.
    fn ask(&self, base: &str, args: &[&str]) -> bool {
        let of = self.mounted.of(base);
        let output = self.mounted.run(["-s", of.as_str()].iter().chain(args));
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            self.done.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        assert!(REFUSALS.iter().any(|text| said.contains(text)), "{base} {args:?}: {said}");
        self.refused.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Keeps in mind what a point shows that was just taken; `is_one` if one writer had it to itself.
    fn look(&self, base: &str, name: &str, is_one: bool) {
        let root = self.mounted.snap().join(base).join(name);
        if is_one {
            check_moment(&root, name);
        }
        self.seen.lock().insert((base.into(), name.into()), listing(&root));
    }

    /// Every point that is still there shows what it did.
    fn compare(&self, what: &str) -> usize {
        let seen = self.seen.lock();
        let mut compared = 0;
        for ((base, name), state) in seen.iter() {
            let root = self.mounted.snap().join(base).join(name);
            if root.exists() {
                if fs::read_dir(&root).and_then(|mut l| l.next().transpose()).is_err() {
                    let of = self.mounted.of(base);
                    eprintln!(
                        "{what}: {base}/{name}\n{}\n{}",
                        self.mounted.ok(["-s", &of, "list"]),
                        self.mounted.ok(["-s", &of, "history"])
                    );
                    eprintln!("{:?}", self.mounted.run(["-s", &of, "archive", "list"]));
                }
                assert_same(&listing(&root), state, &format!("{what}: {base}/{name}"));
                compared += 1;
            }
        }
        compared
    }

    fn some_seen(&self, base: &str, dice: u8) -> Option<String> {
        let seen = self.seen.lock();
        let names: Vec<&String> = seen.keys().filter(|(of, _)| of == base).map(|(_, name)| name).collect();
        names.get(usize::from(dice) % names.len().max(1)).map(|name| name.to_string())
    }

    /// One thing of those that are done to bases which nobody else restores.
    fn command(&self, i: u64, dice: &[u8]) {
        let base = BASES[usize::from(dice[1] % 2)];
        let (name, clone) = (format!("s{i}"), format!("c{}", dice[2] % 3));
        let known = self.some_seen(base, dice[3]).unwrap_or_default();
        let archive = self.mounted.dir.path().join(format!("archive-{base}"));
        match dice[0] % 16 {
            0..3 => {
                if self.ask(base, &["snap", &name]) {
                    self.look(base, &name, true);
                }
            }
            3 | 4 => {
                if self.ask(base, &["snap", &name, "--group", "all"]) {
                    self.look("live", &name, true);
                    self.look("other", &name, true);
                }
            }
            5 => drop(self.ask(base, &["clone", &known, &clone])),
            6 => drop(self.ask(base, &["clone", "--full", &known, &clone])),
            7 => drop(self.ask(base, &["promote", &clone])),
            8 => drop(self.ask(base, &["delete", &clone]) || self.ask(base, &["base", "delete", &clone])),
            9 => drop(self.ask(base, &["delete", &known])),
            10 => drop(self.ask(base, &[["hold", "release"][usize::from(dice[4] % 2)], &known])),
            11 | 12 => {
                if self.ask(base, &["roll", "--archive", archive.to_str().unwrap(), "--keep", "3", "--name", &name]) {
                    self.look(base, &name, true);
                }
            }
            13 => drop(match dice[4] % 4 {
                0 => self.ask(base, &["mirror", "establish", base, "m"]),
                1 => self.ask(base, &["mirror", "sync", "m"]),
                2 => self.ask(base, &["mirror", "split", "m"]),
                _ => self.ask(base, &["mirror", "resync", "m"]),
            }),
            14 => drop(self.ask(base, &["diff", &known]) && self.ask(base, &["versions", "first"])),
            _ => drop(self.ask(base, &["list"]) && self.ask(base, &["status"]) && self.ask(base, &["history"])),
        }
    }

    /// One thing of those that are done to the base that is restored all the time.
    fn command_moving(&self, i: u64, dice: &[u8]) {
        let (base, name) = ("moving", format!("m{i}"));
        let known = self.some_seen(base, dice[3]).unwrap_or_default();
        match dice[0] % 8 {
            0 | 1 => {
                if self.ask(base, &["snap", &name]) {
                    self.look(base, &name, false);
                }
            }
            2 | 3 => drop(self.ask(base, &["restore", &known])),
            4 => drop(self.ask(base, &["restore", &known, "d"])),
            5 => drop(self.ask(base, &["save"]) && self.ask(base, &["restore", "--last"])),
            6 => drop(self.ask(base, &["delete", &known])),
            _ => drop(self.ask(base, &["diff", &known])),
        }
    }
}

#[test]
fn all_operations_while_programs_write() {
    if !can_mount() {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (seconds, seed) = (number("PITFS_SECONDS").unwrap_or(8), number("PITFS_SEED").unwrap_or(1) << 32);
    let busy = Busy::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    std::thread::scope(|scope| {
        let busy = &busy;
        for (i, base) in BASES.iter().enumerate() {
            let live = busy.mounted.snap().join(base).join("live");
            scope.spawn(move || {
                let stopped = || busy.stop.load(Ordering::Relaxed);
                (1..).take_while(|_| !stopped()).for_each(|count| {
                    write(&live, seed + i as u64, count, i < 2);
                    // The commands are to have their turn as well.
                    std::thread::sleep(Duration::from_micros(300));
                });
            });
        }
        let commanders: Vec<_> = (0..2u64)
            .map(|who| {
                scope.spawn(move || {
                    for i in (0..).take_while(|_| Instant::now() < end) {
                        let dice = random_bytes(seed + who * 1_000_000 + i, 8);
                        let i = i * 2 + who;
                        if dice[7].is_multiple_of(3) { busy.command_moving(i, &dice) } else { busy.command(i, &dice) }
                    }
                })
            })
            .collect();
        let results: Vec<_> = commanders.into_iter().map(|commander| commander.join()).collect();
        busy.stop.store(true, Ordering::Relaxed);
        results.into_iter().for_each(|result| result.unwrap());
    });
    let (done, refused) = (busy.done.load(Ordering::Relaxed), busy.refused.load(Ordering::Relaxed));
    eprintln!("{done} commands, {refused} refused");
    assert!(done > 10 && busy.compare("at the end") > 0, "hardly anything was done");
    busy.mounted.umount();
    busy.mounted.check();
    busy.mounted.mount(&[]);
    busy.compare("mounted again");
    busy.mounted.kill();
    busy.mounted.mount(&[]);
    busy.compare("killed");
    busy.mounted.umount();
    busy.mounted.check();
}
