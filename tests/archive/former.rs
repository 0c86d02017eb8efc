//! An archive whose increments were written before there were sets, kept as it was.

use super::mounted::*;
use std::fs;
use std::path::Path;
use std::process::Command;

const PITFS: &str = env!("CARGO_BIN_EXE_pitfs");
const ROUNDS: usize = 5;

/// The files of a round, as whoever made the archive wrote them.
fn round(last: usize) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for i in 0..30 {
        let written = (0..=last).rev().find(|round| *round == 0 || i % (round + 2) == 0).unwrap();
        files.push((format!("f{i}"), format!("{i} in round {written}\n").repeat(i * 20 + 1).into_bytes()));
    }
    let large = (0..200_000u64)
        .map(|k| (((k * k + 7 * k) / 3 + if k % 50_000 < 700 { last as u64 * 13 } else { 0 }) % 251) as u8);
    files.push(("large".into(), large.collect()));
    files.push((format!("only {last}"), format!("only {last}").into_bytes()));
    files.sort();
    files
}

fn shown(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let names = names(directory).into_iter();
    let mut all: Vec<_> = names.map(|name| (name.clone(), fs::read(directory.join(name)).unwrap())).collect();
    all.sort();
    all
}

#[test]
fn an_archive_of_before_is_read_gone_on_with_and_merged() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::unmounted();
    let dir = mounted.dir.path().join("kept");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kept/archive-4.tar.zst");
    let bytes = zstd::stream::decode_all(fs::File::open(kept).unwrap()).unwrap();
    tar::Archive::new(bytes.as_slice()).unpack(&dir).unwrap();
    let (store, archive, snap) = (dir.join("store"), dir.join("archive"), dir.join("snap"));
    fs::create_dir(&snap).unwrap();
    let ok = |args: &[&str]| {
        let output = Command::new(PITFS).arg("-s").arg(&store).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let label = || fs::read_to_string(archive.join("archive")).unwrap();
    let directory = archive.to_str().unwrap();
    ok(&["archive", "attach", directory]);
    assert!(ok(&["archive", "verify"]).contains("4 increments") && label().contains("format 4"));
    // Whoever only looks changes nothing.
    ok(&["mount", store.to_str().unwrap(), snap.to_str().unwrap()]);
    let check = |rounds: &[usize]| {
        for number in rounds {
            let found = shown(&snap.join(format!("round {number}")));
            assert!(found == round(*number), "round {number}");
        }
    };
    check(&[0, 1, 2, 3, 4]);
    assert!(label().contains("format 4"));
    // What comes now is a set, and leads on from what there is.
    fs::write(snap.join("live/f0"), "new").unwrap();
    ok(&["roll", "--name", "new", "--keep", "1"]);
    assert!(label().contains("format 5"));
    let magic = |path: &Path| fs::read(path).unwrap()[..8].to_vec();
    let count = |wanted: &[u8]| {
        let files = fs::read_dir(&archive).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|end| end == "increment") && magic(path) == wanted).count()
    };
    assert_eq!((count(b"pitfsinc"), count(b"pitfsset")), (ROUNDS - 1, 1));
    assert!(ok(&["archive", "verify"]).contains("5 increments"));
    check(&[0, 1, 2, 3, 4]);
    let compared = ok(&["diff", "round 1", "round 4"]);
    assert!(compared.contains("M large") && compared.contains("+ only 4"), "{compared}");
    ok(&["umount", snap.to_str().unwrap()]);
    // The index is made anew of both kinds.
    fs::remove_file(archive.join("index")).unwrap();
    ok(&["mount", store.to_str().unwrap(), snap.to_str().unwrap()]);
    check(&[0, 1, 2, 3, 4]);
    // Merged, they are one.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let merged = ok(&["archive", "merge", "--per", "year"]);
    assert_eq!((count(b"pitfsinc"), count(b"pitfsset")), (0, 1), "{merged}");
    check(&[0]);
    assert!(ok(&["archive", "verify"]).contains("no problems"));
    ok(&["umount", snap.to_str().unwrap()]);
    assert!(ok(&["check"]).contains("no problems"));
}
