//! What the daemon does by itself: no long piece of work keeps another from its turn, and `status` shows who is at work.

mod mounted;

use mounted::*;
use std::fs;

fn workers(mounted: &Mounted) -> Vec<serde_json::Value> {
    let status: serde_json::Value = serde_json::from_str(&mounted.ok(["status", "--json"])).unwrap();
    status["workers"].as_array().unwrap().clone()
}

/// How many turns workers have had, at one moment.
fn turns<const N: usize>(mounted: &Mounted, names: [&str; N]) -> [u64; N] {
    let all = workers(mounted);
    names.map(|name| {
        let found = all.iter().find(|worker| worker["name"] == name).unwrap();
        assert!(found["failure"].is_null(), "{found}");
        found["turns"].as_u64().unwrap()
    })
}

/// While a clone of many files is made independent, a snapshot that is deleted goes.
#[test]
fn a_long_settling_starves_no_deletion() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::unmounted();
    let source = mounted.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    for file in 0..12_000 {
        fs::write(source.join(format!("file {file}")), "content").unwrap();
    }
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["snap", "one"]);
    fs::write(source.join("file 0"), vec![7; 200_000]).unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["snap", "two"]);
    fs::write(source.join("file 0"), "content").unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.mount(&[]);
    let names: Vec<_> = workers(&mounted).iter().map(|worker| worker["name"].clone()).collect();
    assert_eq!(names, ["look", "settle", "delete", "reap", "copy"]);
    mounted.ok(["clone", "--full", "one", "clone"]);
    mounted.ok(["delete", "two"]);
    // Settling takes some seventy turns; between two of them the deletion has its own.
    let [first] = turns(&mounted, ["settle"]);
    wait_for("the deletion", || {
        let [settled, deleted] = turns(&mounted, ["settle", "delete"]);
        assert!(deleted > 0 || settled <= first + 3, "{settled} turns went by after {first}");
        deleted > 0
    });
    mounted.ok(["base", "wait", "clone"]);
    let [settled] = turns(&mounted, ["settle"]);
    assert!(settled > 12_000 / 512, "{settled}");
    wait_for("the end", || workers(&mounted).iter().all(|worker| worker["working"] == false));
    assert!(workers(&mounted).iter().all(|worker| worker["waits_for"].is_null()));
    mounted.umount();
    mounted.check();
}
