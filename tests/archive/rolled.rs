//! A store that is rolled into an archive beside it.

use crate::mounted::*;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// States of a tree by the name of the snapshot that has to show them.
pub type States = BTreeMap<String, Vec<Shown>>;

/// A store that is rolled into an archive beside it.
pub struct Rolled {
    pub mounted: Mounted,
    pub states: States,
}

impl Rolled {
    pub fn new() -> Rolled {
        let mounted = Mounted::new();
        fs::create_dir_all(mounted.live().join("d/e")).unwrap();
        Rolled { mounted, states: States::new() }
    }

    pub fn archive(&self) -> PathBuf {
        self.mounted.dir.path().join("archive")
    }

    pub fn live(&self) -> PathBuf {
        self.mounted.live()
    }

    /// Every kind of change, different for each number.
    pub fn change(&self, i: u64) {
        let live = self.live();
        fs::write(live.join(format!("d/f{}", i % 5)), random_bytes(i, 40_000 + i as usize * 100)).unwrap();
        let big = File::options().write(true).create(true).truncate(false).open(live.join("big")).unwrap();
        big.write_all_at(&random_bytes(i + 1000, 5_000), i % 7 * 30_000).unwrap();
        fs::write(live.join("small"), format!("version {i}")).unwrap();
        fs::write(live.join(format!("d/e/only {i}")), format!("{i}")).unwrap();
        if let Some(old) = i.checked_sub(3) {
            let _gone_already = fs::remove_file(live.join(format!("d/e/only {old}")));
        }
        let (one, other) = (live.join("d/e/moves"), live.join("moved"));
        if i.is_multiple_of(2) && one.exists() {
            fs::rename(one, other).unwrap();
        } else if other.exists() {
            fs::rename(other, one).unwrap();
        } else {
            fs::write(one, "moves").unwrap();
        }
        let _gone_already = fs::remove_file(live.join("link"));
        std::os::unix::fs::symlink(format!("to {i}"), live.join("link")).unwrap();
        rustix::fs::setxattr(live.join("small"), "user.i", i.to_string().as_bytes(), rustix::fs::XattrFlags::empty())
            .unwrap();
    }

    /// Rolls the state there is, under this name.
    pub fn roll(&mut self, name: &str) {
        self.states.insert(name.to_string(), listing(&self.live()));
        let archive = self.archive();
        let said = self.mounted.ok(["roll", "--archive", archive.to_str().unwrap(), "--keep", "1", "--name", name]);
        assert!(said.lines().count() == 1 && said.starts_with(&format!("{name}: ")), "{said}");
    }

    pub fn several(count: u64) -> Rolled {
        let mut rolled = Rolled::new();
        for i in 0..count {
            rolled.change(i);
            rolled.roll(&format!("v{i}"));
        }
        rolled.change(count);
        rolled
    }

    pub fn increments(&self) -> Vec<PathBuf> {
        let names = names(&self.archive()).into_iter().filter(|name| name.ends_with(".increment"));
        names.map(|name| self.archive().join(name)).collect()
    }

    /// Every time in the mount is as it was.
    pub fn compare(&self, what: &str) {
        let shown = names(&self.mounted.snap());
        for (name, state) in &self.states {
            assert!(shown.contains(name), "{what}: {name} is not among {shown:?}");
            assert_same(&listing(&self.mounted.snap().join(name)), state, &format!("{what}: {name}"));
        }
    }

    pub fn verify(&self) {
        let said = self.mounted.ok(["archive", "verify"]);
        assert!(said.contains("no problems"), "{said}");
        for name in names(&self.archive()) {
            let is_own = ["archive", "index"].contains(&name.as_str());
            assert!(is_own || name.ends_with(".increment"), "{name} is left over");
        }
    }

    /// What would change the archive is refused, in words, before anything is done.
    pub fn refuses_to_change(&self, word: &str) {
        let archive = self.archive();
        let (listed, files) = (self.mounted.ok(["list", "--json"]), names(&archive));
        let archive = archive.to_str().unwrap();
        for args in [
            &["roll", "--keep", "1"][..],
            &["roll", "-n"],
            &["roll", "--archive", archive],
            &["archive", "prune", "--keep", "1"],
            &["archive", "merge", "--per", "year"],
            &["archive", "join", "/tmp"],
        ] {
            let said = self.mounted.fails(1, args);
            assert!(
                said.contains(word) && said.contains(archive) && said.contains("Nothing was changed"),
                "{args:?}: {said}"
            );
        }
        assert_eq!(self.mounted.ok(["list", "--json"]), listed);
        assert_eq!(names(&self.archive()), files);
    }

    /// A time copied out is as it was.
    pub fn compare_copy(&self, args: &[&str], name: &str) {
        let out = self.mounted.dir.path().join("out");
        let mut all = vec!["restore"];
        all.extend(args);
        all.extend(["--to", out.to_str().unwrap()]);
        self.mounted.ok(all);
        assert_same(&listing(&out), &self.states[name], &format!("{args:?}"));
        fs::remove_dir_all(&out).unwrap();
    }
}
