//! Bringing a tree in, for the first time and with nothing changed, beside programs that copy and back up.

use crate::command::{cold, drop_caches, has, shell, timed};
use crate::files::Input;
use crate::place::{BTRFS, EXT4, Places};
use crate::report::{Table, Target, number};
use crate::samples::Samples;
use crate::{Bench, Result};
use std::path::{Path, PathBuf};

const PITFS: &str = "pitfs sync";
const FIND: &str = "find";
const COPY: &str = "cp -a";
const FIRST: &str = "first";
const AGAIN: &str = "again";
const AGAIN_COLD: &str = "again, cold";

/// A program that copies or backs up, and its lines of shell: to begin with, and for each run.
struct Other {
    name: String,
    directory: PathBuf,
    prepare: String,
    line: String,
}

/// All that are installed. What they make lies on ext4, as the store does.
fn others(source: &Path, places: &Places) -> Vec<Other> {
    let source = source.display();
    let mut all = Vec::new();
    let mut add = |name: String, directory: &Path, prepare: &str, line: &str| {
        // `@` stands for the directory.
        let at = directory.display().to_string();
        let [prepare, line] = [prepare, line].map(|text| text.replace('@', &at));
        all.push(Other { name, directory: directory.to_path_buf(), prepare, line });
    };
    for (place, directory) in places.iter().filter(|(place, _)| [EXT4, BTRFS].contains(place)) {
        let copy = format!("cp -a '{source}/.' '@/copy' && sync -f '@'");
        add(format!("{COPY} to {place}"), &directory.join("cp"), "mkdir '@/copy'", &copy);
    }
    let Some((_, ext4)) = places.iter().next() else { return all };
    let restic = "RESTIC_PASSWORD=bench RESTIC_CACHE_DIR='@/cache' restic -q -r '@/copy'";
    let borg = "BORG_BASE_DIR='@' BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes borg";
    let programs = [
        ("rsync", "rsync -a", String::new(), format!("rsync -a '{source}/' '@/copy' && sync -f '@'")),
        ("restic", "restic", format!("{restic} init"), format!("{restic} backup '{source}'")),
        (
            "borg",
            "borg",
            format!("{borg} init -e none '@/copy'"),
            format!("{borg} create '@/copy::{{now}}' '{source}'"),
        ),
        ("rdiff-backup", "rdiff-backup", String::new(), format!("rdiff-backup backup '{source}' '@/copy'")),
    ];
    for (program, name, prepare, line) in programs {
        if has(program) {
            add(name.to_string(), &ext4.join(program), &prepare, &line);
        }
    }
    all
}

/// The first run, with the source not in the kernel's caches, and the second, with it there.
fn measure(other: &Other, samples: &mut Samples) -> Result<()> {
    std::fs::create_dir(&other.directory)?;
    if !other.prepare.is_empty() {
        shell(&other.prepare)?;
    }
    drop_caches();
    samples.add(FIRST, &other.name, timed(&other.line));
    if !other.name.starts_with(COPY) {
        // They name their runs by the second.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        samples.add(AGAIN, &other.name, timed(&other.line));
    }
    shell(&format!("rm -rf '{}'", other.directory.display()))
}

fn measure_pitfs(places: &Places, source: &Path, samples: &mut Samples) -> Result<()> {
    let store = &places.store;
    let copy = store.live().join("copy");
    let source = source.display().to_string();
    let arguments = ["sync", &source, "copy"];
    std::fs::create_dir(&copy)?;
    drop_caches();
    samples.add(FIRST, PITFS, store.timed(arguments));
    samples.add(AGAIN, PITFS, store.timed(arguments));
    let find = format!("find '{source}' -printf '%s %T@ %i\\n'");
    samples.add(AGAIN, FIND, timed(&find));
    samples.add(AGAIN_COLD, PITFS, cold(|| store.timed(arguments)));
    samples.add(AGAIN_COLD, FIND, cold(|| timed(&find)));
    shell(&format!("rm -rf '{}'", copy.display()))
}

pub fn run(bench: &mut Bench) -> Result<()> {
    let input = Input::new(bench)?;
    let places = Places::new(&bench.work)?;
    let source = bench.work.file("source");
    std::fs::create_dir(&source)?;
    shell(&input.untar(&source))?;
    let others = others(&source, &places);
    let mut samples = Samples::new([FIRST, AGAIN, AGAIN_COLD]);
    for round in 1..=bench.rounds {
        bench.report.doing(&format!("sync: round {round}, pitfs"));
        measure_pitfs(&places, &source, &mut samples)?;
        for other in &others {
            bench.report.doing(&format!("sync: round {round}, {}", other.name));
            measure(other, &mut samples)?;
        }
    }
    let header =
        ["program", "first, s", "again with nothing changed, s", "the same cold, s", "pitfs takes of it, and target"];
    let mut table = Table::new("Bringing a tree in", &header);
    let median = |row: &str| [FIRST, AGAIN, AGAIN_COLD].map(|column| samples.median(column, row));
    let [first, again, again_cold] = median(PITFS);
    for row in samples.rows() {
        let values = median(row);
        let mut judge = |what: &str, ratio: f64, target| {
            let verdict = bench.report.judge(&format!("{PITFS}, {what}, of {row}"), ratio, target);
            if ratio.is_finite() { vec![format!("{what} {} {verdict}", number(ratio))] } else { Vec::new() }
        };
        let ratios = [first / values[0], again / values[1], again_cold / values[2]];
        let [most, faster] = [1.3, 1.0].map(Target::AtMost);
        let verdicts = match row {
            PITFS => Vec::new(),
            FIND => [judge(AGAIN, ratios[1], most), judge(AGAIN_COLD, ratios[2], most)].concat(),
            _ if row.starts_with(COPY) => vec![format!("{FIRST} {}", number(ratios[0]))],
            _ => [judge(FIRST, ratios[0], faster), judge(AGAIN, ratios[1], faster)].concat(),
        };
        table.row(std::iter::once(row.to_string()).chain(values.map(number)).chain([verdicts.join(", ")]));
    }
    bench.report.table(&table)?;
    shell(&format!("rm -rf '{}'", source.display()))
}
