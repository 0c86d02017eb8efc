use super::store::*;
use pitfs::device::Moment;
use std::time::Instant;

fn rss() -> String {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    text.lines().filter(|l| l.starts_with("VmHWM") || l.starts_with("VmRSS")).collect::<Vec<_>>().join(" ")
}

fn timed(store: &Store, then: &pitfs::device::Snapshot, paths: &[&[u8]], what: &str) {
    let start = Instant::now();
    let mut longest = std::time::Duration::ZERO;
    let mut last = Instant::now();
    let mut calls = 0;
    let report = store.back_with(then, paths, &mut |_| { calls += 1; longest = longest.max(last.elapsed()); last = Instant::now(); Ok(()) }).unwrap();
    eprintln!("{what}: {:.3} s, {} files, {} bytes, {} removed, {calls} calls, longest between {longest:?}; {}", start.elapsed().as_secs_f64(), report.files, report.bytes, report.removed, rss());
    assert!(report.problems.is_empty());
}

#[test]
#[ignore]
fn measure() {
    let store = Store::with_tracks(64 << 10);
    let n: u64 = std::env::var("TRACKS").map_or(16_000, |t| t.parse().unwrap());
    store.mkdir("big");
    let file = store.write("big/file", b"");
    let small = n > 100_000; let track = |seed: u64| { let mut b = vec![seed as u8; if small { 9 } else { 65536 }]; b[..8].copy_from_slice(&seed.to_be_bytes()); b };
    let start = Instant::now();
    for i in 0..n { store.write_at(file, i << 16, &track(i)); }
    let then = store.snap("then");
    for i in 0..n { store.write_at(file, i << 16, &track(i + 77)); }
    store.tree().commit().unwrap();
    eprintln!("made in {:?} {}", start.elapsed(), rss());
    timed(&store, &then, &[b"big/file"], "one file, all tracks changed");
    timed(&store, &then, &[b"big/file"], "again, nothing differs");
    store.write_at(file, 5 << 16, b"x");
    timed(&store, &then, &[b"big/file"], "one track differs");
    store.remove("big/file");
    timed(&store, &then, &[b"big/file"], "removed: a new inode");
    if std::env::var("TRACKS").is_ok() { return; }

    store.mkdir("small");
    for i in 0..5000u64 { store.write(format!("small/{i}"), &noise(i, 2000)); }
    let then = store.snap("small then");
    for i in 0..5000u64 { store.write(format!("small/{i}"), &noise(i + 9999, 2100)); }
    store.tree().commit().unwrap();
    timed(&store, &then, &[b"small"], "5,000 small files changed");
    timed(&store, &then, &[b"small"], "again, nothing differs");
    store.write("small/77", b"x");
    timed(&store, &then, &[b"small"], "one of them changed");
    store.remove("small");
    timed(&store, &then, &[b"small"], "removed: 5,000 new inodes");
    for i in 0..5000u64 { store.write(format!("small/{i} more"), &noise(i, 2000)); }
    timed(&store, &then, &[b"small"], "5,000 more files to remove");
    store.rename("small", "smaller");
    timed(&store, &then, &[b""], "a renamed directory of 5,000 moved back");
    // A large tree in which little changed.
    for d in 0..100 { store.mkdir(format!("small/d{d}")); for i in 0..500 { store.write(format!("small/d{d}/{i}"), b"x"); } }
    let then = store.snap("large then");
    store.write("small/d7/7", b"changed");
    timed(&store, &then, &[b""], "one of 55,000 files, brought back from the root");
    let _ = Moment::Live;
}
