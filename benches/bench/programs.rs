//! Programs that back up versions of a tree, as lines of shell.

use crate::Result;
use crate::command::{cold, has, ok, shell, timed};
use crate::files::read_tree;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Some programs name their runs by the second.
const BETWEEN_RUNS: Duration = Duration::from_millis(1100);

/// A program, and its lines of shell. In them `$at` is its directory, `$source` the tree, `$target` a directory to restore
/// or mount to, `$version` a version's number and `$back` how many versions it lies back. A line that is empty is
/// something that it cannot do.
pub struct Program {
    pub name: &'static str,
    pub directory: PathBuf,
    pub prepare: String,
    /// What is done for each version.
    pub steps: Vec<String>,
    pub restore: String,
    /// Reads all that is kept, and says whether it is whole.
    pub verify: String,
    /// Ends when the mount is there.
    pub mount: String,
    /// Where a version stands in the mount; `@` is its number.
    pub shown: &'static str,
    /// Has the program itself in the kernel's caches.
    pub load: String,
    pub is_pitfs: bool,
    pub last_run: Instant,
}

/// A version that is wanted back, and a tree that is the same.
pub struct Wanted<'a> {
    pub version: usize,
    pub back: usize,
    pub original: &'a Path,
}

impl Program {
    /// One that can do nothing yet.
    pub fn new(ground: &Path, name: &'static str) -> Program {
        Program {
            name,
            directory: ground.join(name.replace(", ", "-").replace(' ', "-")),
            prepare: String::new(),
            steps: Vec::new(),
            restore: String::new(),
            verify: String::new(),
            mount: String::new(),
            shown: "v@",
            load: String::new(),
            is_pitfs: name.starts_with("pitfs"),
            last_run: Instant::now(),
        }
    }

    pub fn line(&self, line: &str, tree: &Path, version: usize, back: usize) -> String {
        let (at, tree) = (self.directory.display(), tree.display());
        format!("at='{at}' source='{tree}' target='{tree}' version={version} back={back}; {line}")
    }

    /// Brings one version in; seconds of each step.
    pub fn save(&mut self, source: &Path, version: usize) -> Result<Vec<f64>> {
        std::thread::sleep(BETWEEN_RUNS.saturating_sub(self.last_run.elapsed()));
        self.last_run = Instant::now();
        shell(&format!("{} && sync -f '{}'", read_tree(source), source.display()))?;
        let lines = self.steps.iter().map(|step| self.line(step, source, version, 0));
        Ok(lines.map(|line| timed(&line)).collect())
    }

    /// Gets a version back, compared byte by byte. It stays there until the end: ext4 takes long to find inodes near those
    /// that went in the last minutes, up to seconds for a tree like this, and that has nothing to do with who restores.
    pub fn restore(&self, ground: &Path, wanted: &Wanted, is_cold: bool) -> Result<f64> {
        let count = std::fs::read_dir(ground)?.count();
        let target = ground.join(format!("restored-{count}"));
        std::fs::create_dir(&target)?;
        shell(&format!("sync -f '{}'", target.display()))?;
        let line = self.line(&self.restore, &target, wanted.version, wanted.back);
        let took = if is_cold { cold(|| timed(&line)) } else { timed(&line) };
        if took.is_finite() {
            let (original, target) = (wanted.original.display(), target.display());
            shell(&format!("diff -r --no-dereference '{original}' '{target}'"))
                .map_err(|error| format!("{}: version {} came back different: {error}", self.name, wanted.version))?;
        }
        Ok(took)
    }

    /// Bytes on the disk of what is kept; not of caches that can be made anew.
    pub fn room(&self) -> Result<f64> {
        let kept = ["store", "archive", "copy"].map(|name| self.directory.join(name));
        disk_usage(kept.iter().filter(|path| path.exists()).map(PathBuf::as_path))
    }
}

pub fn disk_usage<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<f64> {
    let text = ok(Command::new("du").args(["-s", "-B1"]).args(paths))?;
    text.lines().map(|line| Ok(line.split('\t').next().unwrap_or_default().parse::<f64>()?)).sum()
}

fn restic(ground: &Path) -> Program {
    let restic = "RESTIC_PASSWORD=bench RESTIC_CACHE_DIR=\"$at/cache\" restic -q -r \"$at/copy\"";
    let is_there = "for i in $(seq 1000); do mountpoint -q \"$target\" && exit; sleep 0.005; done; exit 1";
    Program {
        prepare: format!("{restic} init"),
        steps: vec![format!("cd \"$source\" && {restic} backup --tag v$version .")],
        restore: format!("{restic} restore latest --tag v$version --target \"$target\""),
        verify: format!("{restic} check --read-data"),
        mount: format!("{restic} mount \"$target\" >/dev/null 2>&1 & {is_there}"),
        shown: "tags/v@/latest",
        load: "restic version".to_string(),
        ..Program::new(ground, "restic")
    }
}

fn borg(ground: &Path) -> Program {
    let borg = "BORG_PASSPHRASE=bench BORG_BASE_DIR=\"$at\" borg";
    Program {
        prepare: format!("{borg} init -e repokey \"$at/copy\""),
        steps: vec![format!("cd \"$source\" && {borg} create \"$at/copy::v$version\" .")],
        restore: format!("cd \"$target\" && {borg} extract \"$at/copy::v$version\""),
        verify: format!("{borg} check --verify-data \"$at/copy\""),
        mount: format!("{borg} mount \"$at/copy\" \"$target\""),
        load: "borg --version".to_string(),
        ..Program::new(ground, "borg")
    }
}

fn rdiff_backup(ground: &Path) -> Program {
    Program {
        steps: vec!["rdiff-backup backup \"$source\" \"$at/copy\"".to_string()],
        restore: "rdiff-backup --force restore --at ${back}B \"$at/copy\" \"$target\"".to_string(),
        verify: "rdiff-backup verify \"$at/copy\"".to_string(),
        load: "rdiff-backup --version".to_string(),
        ..Program::new(ground, "rdiff-backup")
    }
}

/// Those that are not pitfs, as far as they are installed.
pub fn others(ground: &Path) -> Vec<Program> {
    [restic, borg, rdiff_backup].map(|program| program(ground)).into_iter().filter(|one| has(one.name)).collect()
}
