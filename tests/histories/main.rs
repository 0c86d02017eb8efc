//! Who is who: copies of stores, archives that are others', that are not there, that lost something or were made shorter.
//! Whatever happens, a time shows what it was, or is not shown.

mod random;
mod stand;

use pitfs::control::{Answer, Archive, ArchiveInfo, ShortenedInfo, Snap, Verb};
use pitfs::daemon::{MergeOptions, PruneOptions, RollOptions};
use pitfs::error::Result;
use serde_bytes::ByteBuf;
use stand::*;
use std::fs;
use std::path::{Path, PathBuf};

struct Stand {
    dir: tempfile::TempDir,
    store: Store,
}

impl Stand {
    /// A store that was rolled to an archive a few times, all but the newest time only in the archive.
    fn rolled(times: u32) -> Stand {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::create(&dir.path().join("store"));
        for i in 1..=times {
            change(&mut store, i);
            store.roll(Some(&dir.path().join("archive")), Some(1), &format!("r{i}")).unwrap();
        }
        Stand { dir, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn archive(&self) -> PathBuf {
        self.path("archive")
    }
}

/// Small and large files change, some each time, some seldom, and one is new.
fn change(store: &mut Store, i: u32) {
    let bytes =
        |seed: u32, len: usize| -> Vec<u8> { (0..len).map(|at| (at as u32 * 31 + seed * 7 + 1) as u8).collect() };
    store.write("often", format!("version {i}").as_bytes());
    store.write(&format!("large{}", i % 3), &bytes(i, 20_000 + 5_000 * i as usize));
    store.write(&format!("new{i}"), &bytes(i, 40));
}

fn refusal<T: std::fmt::Debug>(result: Result<T>, words: &[&str]) -> String {
    let text = result.expect_err("it is refused").to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    text
}

fn names(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|i| format!("r{i}")).collect()
}

#[test]
fn a_copy_of_a_store_never_takes_its_archive() {
    let mut stand = Stand::rolled(3);
    let mut copy = stand.store.copy_to(&stand.path("copy"));
    change(&mut stand.store, 4);
    stand.store.roll(None, Some(1), "r4").unwrap();
    change(&mut copy, 40);
    copy.snap("c4");
    let said = refusal(copy.roll(None, Some(1), "c5"), &["has gone on without this store", "Nothing was changed"]);
    assert!(said.contains("r3") && said.contains("r4"), "{said}");
    assert_eq!(copy.shown("the copy"), ["r1", "r2", "r3", "c4"]);
    change(&mut stand.store, 5);
    stand.store.snap("s5");
    stand.store.roll(None, Some(1), "r6").unwrap();
    assert_eq!(stand.store.shown("the original"), ["r1", "r2", "r3", "r4", "s5", "r6"]);
    // The copy goes on elsewhere, with what was before.
    copy.ask(Verb::Archive(Archive::Detach { directory: None })).unwrap();
    let other = stand.path("other");
    fs::create_dir(&other).unwrap();
    for increment in &increments(&stand.archive())[..2] {
        fs::copy(increment, other.join(increment.file_name().unwrap())).unwrap();
    }
    fs::copy(stand.archive().join("archive"), other.join("archive")).unwrap();
    copy.roll(Some(&other), Some(1), "c6").unwrap();
    assert_eq!(copy.shown("the copy elsewhere"), ["r1", "r2", "r3", "c4", "c6"]);
    assert_eq!(stand.store.shown("the original, after that"), ["r1", "r2", "r3", "r4", "s5", "r6"]);
}

#[test]
fn whichever_copy_comes_second_is_refused() {
    let mut stand = Stand::rolled(2);
    let mut copy = stand.store.copy_to(&stand.path("copy"));
    copy.roll(None, Some(1), "c3").unwrap();
    refusal(stand.store.roll(None, Some(1), "r3"), &["has gone on without this store"]);
    assert_eq!(stand.store.shown("the original"), ["r1", "r2"]);
    assert_eq!(copy.shown("the copy"), ["r1", "r2", "c3"]);
}

#[test]
fn an_older_copy_that_is_put_back_keeps_what_it_has() {
    let mut stand = Stand::rolled(2);
    stand.store.snap("kept");
    let backup = stand.store.copy_to(&stand.path("backup"));
    for i in 3..5 {
        change(&mut stand.store, i);
        stand.store.roll(None, Some(1), &format!("r{i}")).unwrap();
    }
    copy(&backup.path, &stand.store.path);
    let mut store = Store { path: stand.store.path.clone(), ..backup };
    let before = store.shown("put back");
    assert_eq!(before, ["r1", "r2", "kept"]);
    for _ in 0..2 {
        change(&mut store, 9);
        refusal(store.roll(None, Some(1), "again"), &["older copy", "detach"]);
        assert_eq!(store.shown("refused"), before);
    }
}

#[test]
fn one_directory_is_the_archive_of_one_base() {
    let mut stand = Stand::rolled(2);
    let mut other = Store::create(&stand.path("second"));
    other.write("often", b"other");
    for _ in 0..2 {
        refusal(other.roll(Some(&stand.archive()), Some(1), "o1"), &["the archive of another store"]);
    }
    refusal(other.attach(&stand.archive()), &["the archive of another store"]);
    assert_eq!(other.shown("the other"), [""; 0]);
    stand.store.roll(None, Some(1), "r3").unwrap();
    assert_eq!(stand.store.shown("the one"), ["r1", "r2", "r3"]);
    // Increments of others without a label are others' all the same.
    fs::remove_file(stand.archive().join("archive")).unwrap();
    refusal(other.attach(&stand.archive()), &["increments of another store"]);
    refusal(stand.store.roll(None, Some(1), "r4"), &["no label", "archive attach"]);
    stand.store.attach(&stand.archive()).unwrap();
}

#[test]
fn an_archive_that_is_not_there_is_no_empty_archive() {
    let mut stand = Stand::rolled(3);
    let away = stand.path("away");
    fs::rename(stand.archive(), &away).unwrap();
    for is_made in [false, true] {
        if is_made {
            fs::create_dir(stand.archive()).unwrap();
        }
        change(&mut stand.store, 4);
        for given in [None, Some(stand.archive())] {
            refusal(stand.store.roll(given.as_deref(), Some(1), "r4"), &["is not there", "mounted"]);
        }
        refusal(stand.store.attach(&stand.archive()), &[]);
        assert_eq!(stand.store.shown("away"), ["r3"]);
        let status = stand.store.ask(Verb::Status).unwrap();
        let Answer::Status(status) = status else { panic!("{status:?}") };
        let missing: Vec<&str> = status.archives[0].missing.iter().map(|time| time.name.as_str()).collect();
        assert_eq!(missing, ["r1", "r2"]);
        assert!(status.archives[0].problems[0].contains("is not there"), "{:?}", status.archives[0].problems);
    }
    assert!(increments(&stand.archive()).is_empty());
    fs::remove_dir_all(stand.archive()).unwrap();
    fs::rename(&away, stand.archive()).unwrap();
    stand.store.roll(None, Some(1), "r4").unwrap();
    assert_eq!(stand.store.shown("back"), ["r1", "r2", "r3", "r4"]);
}

#[test]
fn another_archive_in_its_place_is_refused_and_one_that_moved_is_attached() {
    let mut stand = Stand::rolled(2);
    let mut second = stand.store.copy_to(&stand.path("second"));
    second.ask(Verb::Archive(Archive::Detach { directory: None })).unwrap();
    second.roll(Some(&stand.path("second archive")), Some(1), "c3").unwrap();
    let moved = stand.path("moved");
    fs::rename(stand.archive(), &moved).unwrap();
    fs::rename(stand.path("second archive"), stand.archive()).unwrap();
    refusal(stand.store.roll(None, Some(1), "r3"), &["another archive"]);
    assert_eq!(stand.store.shown("another in its place"), ["r2"]);
    stand.store.attach(&moved).unwrap();
    stand.store.roll(None, Some(1), "r3").unwrap();
    assert_eq!(stand.store.shown("moved"), ["r1", "r2", "r3"]);
}

#[test]
fn lost_increments_are_noticed_and_joined_again() {
    let mut stand = Stand::rolled(5);
    let elsewhere = stand.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let newest = increments(&stand.archive()).split_off(2);
    for increment in &newest {
        fs::rename(increment, elsewhere.join(increment.file_name().unwrap())).unwrap();
    }
    let said = refusal(stand.store.roll(None, Some(1), "r6"), &["has lost its newest increments", "archive join"]);
    assert!(said.contains("nothing that the store has"), "{said}");
    assert_eq!(stand.store.shown("lost"), ["r5"]);
    refusal(stand.store.attach(&stand.archive()), &["does not hold"]);
    stand.store.ask(Verb::Archive(Archive::Join { directory: elsewhere.clone() })).unwrap();
    stand.store.roll(None, Some(1), "r6").unwrap();
    assert_eq!(stand.store.shown("joined"), ["r1", "r2", "r3", "r4", "r5", "r6"]);
    refusal(stand.store.ask(Verb::Archive(Archive::Join { directory: elsewhere })), &["that the archive lacks"]);
}

#[test]
fn what_is_joined_without_the_newest_is_missed_as_before() {
    let mut stand = Stand::rolled(5);
    let (older, newer) = (stand.path("older"), stand.path("newer"));
    for (at, increment) in increments(&stand.archive()).into_iter().enumerate() {
        let to = if at < 2 { &older } else { &newer };
        fs::create_dir_all(to).unwrap();
        fs::rename(&increment, to.join(increment.file_name().unwrap())).unwrap();
    }
    let join = |from: &PathBuf| stand.store.ask(Verb::Archive(Archive::Join { directory: from.clone() }));
    let Answer::Archives(info) = join(&older).unwrap() else { panic!() };
    assert!(info[0].problems.iter().any(|problem| problem.contains("missing")), "{:?}", info[0].problems);
    assert_eq!((info[0].increments.len(), info[0].missing.len()), (2, 4));
    let lost = ["has lost its newest increments", "archive join"];
    refusal(prune(&stand.store, PruneOptions { keep: Some(1), ..PruneOptions::default() }), &lost);
    refusal(merge_years(&stand.store), &lost);
    let mut copy = stand.store.copy_to(&stand.path("copy"));
    refusal(copy.roll(None, Some(1), "r6"), &lost);
    let Answer::Detached(detached) = copy.ask(Verb::Archive(Archive::Detach { directory: None })).unwrap() else {
        panic!()
    };
    assert_eq!(detached.leads_to.as_deref(), Some("r5"));
    join(&newer).unwrap();
    change(&mut stand.store, 6);
    stand.store.roll(None, Some(1), "r6").unwrap();
    assert_eq!(stand.store.shown("joined"), names(1..7));
}

#[test]
fn what_the_store_still_holds_is_saved_again_when_asked() {
    let mut stand = Stand::rolled(2);
    for i in 3..6 {
        change(&mut stand.store, i);
        stand.store.roll(None, None, &format!("r{i}")).unwrap();
    }
    for newest in increments(&stand.archive()).split_off(2) {
        fs::remove_file(newest).unwrap();
    }
    refusal(stand.store.roll(None, None, "r6"), &["has lost its newest increments", "r3"]);
    let problems = listed(&stand.store).problems;
    assert!(problems.len() == 1 && problems[0].contains("has lost its newest increments"), "{problems:?}");
    stand.store.attach(&stand.archive()).unwrap();
    assert!(listed(&stand.store).problems.is_empty());
    stand.store.roll(None, Some(1), "r6").unwrap();
    assert_eq!(stand.store.shown("saved again"), ["r1", "r2", "r3", "r4", "r5", "r6"]);
}

#[test]
fn no_increment_is_ever_replaced() {
    let mut stand = Stand::rolled(2);
    change(&mut stand.store, 3);
    // Something has the name that the next increment would get.
    let (from, to) = stand.store.open(|daemon| {
        let from = daemon.views().snapshots().with_archived().unwrap().pop().unwrap();
        (from, daemon.views().snapshots().take(Some(b"r3")).unwrap())
    });
    stand.store.times.insert("r3".into(), stand.store.live.clone());
    let name = pitfs::archive::file_name(&from.mark(), &to.mark());
    fs::write(stand.archive().join(&name), "somebody's").unwrap();
    // However often a timer tries, no snapshot is taken for nothing.
    for _ in 0..2 {
        refusal(stand.store.roll(None, Some(1), "r4"), &["exists", "remove it"]);
    }
    assert_eq!(fs::read(stand.archive().join(&name)).unwrap(), b"somebody's");
    fs::remove_file(stand.archive().join(&name)).unwrap();
    let shown = stand.store.shown("refused");
    assert!(["r1", "r2", "r3"].iter().all(|name| shown.contains(&name.to_string())), "{shown:?}");
    stand.store.roll(None, Some(1), "r5").unwrap();
    assert_eq!(stand.store.shown("rolled on"), ["r1", "r2", "r3", "r5"]);
}

#[test]
fn the_oldest_increments_may_go_by_hand() {
    let mut stand = Stand::rolled(5);
    let oldest = increments(&stand.archive());
    fs::remove_file(&oldest[0]).unwrap();
    fs::remove_file(&oldest[1]).unwrap();
    let told = |stand: &Stand| match stand.store.ask(Verb::Status).unwrap() {
        Answer::Status(status) => (status.archives[0].missing.len(), status.archives[0].problems.concat()),
        other => panic!("{other:?}"),
    };
    let (missing, problems) = told(&stand);
    assert!(missing == 2 && problems.contains("whose increments were removed"), "{missing}: {problems}");
    prune(&stand.store, PruneOptions { keep: Some(9), before: None, is_dry_run: false }).unwrap();
    assert_eq!(told(&stand), (0, String::new()), "it is known that they went");
    change(&mut stand.store, 6);
    for i in 6..8 {
        let problems = stand.store.roll(None, Some(1), &format!("r{i}")).unwrap();
        assert_eq!(problems, [""; 0]);
    }
    assert_eq!(stand.store.shown("by hand"), names(3..8));
}

#[test]
fn newest_increments_that_are_missing_are_not_taken_for_old_ones_that_went() {
    let mut stand = Stand::rolled(3);
    stand.store.ask(Verb::Hold { names: vec![b"r3".to_vec().into()], tag: None, held: true }).unwrap();
    for i in 4..6 {
        change(&mut stand.store, i);
        stand.store.roll(None, Some(1), &format!("r{i}")).unwrap();
    }
    let newest = increments(&stand.archive()).split_off(2);
    newest.iter().for_each(|file| fs::remove_file(file).unwrap());
    let Answer::Status(status) = stand.store.ask(Verb::Status).unwrap() else { panic!("no status") };
    let missing: Vec<&str> = status.archives[0].missing.iter().map(|time| time.name.as_str()).collect();
    assert_eq!(missing, ["r4"]);
    let problems = status.archives[0].problems.concat();
    assert!(problems.contains("has lost its newest increments") && !problems.contains("forgets them"), "{problems}");
    refusal(stand.store.roll(None, Some(1), "r6"), &["has lost its newest increments"]);
    refusal(prune(&stand.store, PruneOptions { keep: Some(9), before: None, is_dry_run: false }), &["has lost"]);
}

fn prune(store: &Store, options: PruneOptions) -> Result<ShortenedInfo> {
    match store.ask(Verb::Archive(Archive::Prune(options)))? {
        Answer::Shortened(shortened) => Ok(shortened),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_oldest_increments_go_by_command() {
    let mut stand = Stand::rolled(6);
    let keep = |keep, is_dry_run| PruneOptions { keep: Some(keep), before: None, is_dry_run };
    let went = |shortened: ShortenedInfo| shortened.times.into_iter().map(|gone| gone.name).collect::<Vec<_>>();
    refusal(prune(&stand.store, PruneOptions::default()), &["--keep", "--before"]);
    assert_eq!(went(prune(&stand.store, keep(2, true)).unwrap()), ["r1", "r2", "r3"]);
    assert_eq!(stand.store.shown("a dry run"), names(1..7));
    assert_eq!(went(prune(&stand.store, keep(2, false)).unwrap()), ["r1", "r2", "r3"]);
    assert_eq!(stand.store.shown("pruned"), names(4..7));
    assert_eq!(increments(&stand.archive()).len(), 2);
    let status = stand.store.ask(Verb::Status).unwrap();
    let Answer::Status(status) = status else { panic!("{status:?}") };
    assert_eq!((status.archives[0].missing.len(), status.archives[0].problems.len()), (0, 0));
    // What was let go does not come back.
    stand.store.roll(None, Some(1), "r7").unwrap();
    assert_eq!(stand.store.shown("rolled on"), names(4..8));
    let long_ago = pitfs::clock::Timestamp { seconds: 1, nanos: 0 };
    let before = PruneOptions { before: Some(long_ago), ..PruneOptions::default() };
    assert_eq!(went(prune(&stand.store, before).unwrap()), [""; 0]);
    let all = PruneOptions { before: Some(pitfs::clock::Timestamp::now()), ..PruneOptions::default() };
    assert_eq!(went(prune(&stand.store, all).unwrap()), ["r4", "r5"]);
    assert_eq!(stand.store.shown("all but the newest"), names(6..8));
}

#[test]
fn the_newest_save_stands_in_the_archive_too() {
    let mut stand = Stand::rolled(1);
    let save = |store: &mut Store, name: &str| {
        let name_bytes = Some(ByteBuf::from(name.as_bytes()));
        store.ask(Verb::Snap(Snap { name: name_bytes, save: true, ..Snap::default() })).unwrap();
        store.times.insert(name.into(), store.live.clone());
    };
    save(&mut stand.store, "first save");
    change(&mut stand.store, 2);
    for i in 2..4 {
        stand.store.roll(None, Some(1), &format!("r{i}")).unwrap();
    }
    let last = |store: &Store| store.open(|daemon| daemon.views().snapshots().last_save());
    assert_eq!(last(&stand.store).unwrap().record.name, "first save");
    assert!(!last(&stand.store).unwrap().is_archived, "a roll lets it stand");
    // By hand it can go: then it is found where it is.
    stand.store.open(|daemon| daemon.views().deletions().delete(&[b"first save"]).map(|_| ())).unwrap();
    assert!(last(&stand.store).unwrap().is_archived);
    let all = PruneOptions { keep: Some(1), ..PruneOptions::default() };
    let shortened = prune(&stand.store, all).unwrap();
    assert_eq!(shortened.standing_save.as_deref(), Some("first save"));
    assert_eq!(last(&stand.store).unwrap().record.name, "first save");
    // And where it is not there, no older one is taken for it.
    save(&mut stand.store, "second save");
    stand.store.open(|daemon| daemon.views().deletions().delete(&[b"second save"]).map(|_| ())).unwrap();
    let said = last(&stand.store).unwrap_err().to_string();
    assert!(said.contains("second save") && said.contains("first save"), "{said}");
}

#[test]
fn several_increments_become_one() {
    for times in [3, 9] {
        let mut stand = Stand::rolled(times);
        let all = pitfs::clock::Period::Year;
        let merge = |is_dry_run| Verb::Archive(Archive::Merge(MergeOptions { per: all, before: None, is_dry_run }));
        let Answer::Shortened(would) = stand.store.ask(merge(true)).unwrap() else { panic!() };
        assert_eq!(would.times.len() as u32, times - 2);
        assert_eq!(stand.store.shown("a dry run"), names(1..=times));
        let Answer::Shortened(_) = stand.store.ask(merge(false)).unwrap() else { panic!() };
        assert_eq!(increments(&stand.archive()).len(), 1);
        assert_eq!(stand.store.shown("merged"), names([1, times]));
        change(&mut stand.store, 20);
        stand.store.roll(None, Some(1), "r20").unwrap();
        assert_eq!(stand.store.shown("rolled on"), names([1, times, 20]));
        // The index has nothing that the increments have not.
        fs::remove_file(stand.archive().join("index")).unwrap();
        assert_eq!(stand.store.shown("the index anew"), names([1, times, 20]));
    }
}

/// What `archive list` says of the attached archive.
fn listed(store: &Store) -> ArchiveInfo {
    let Answer::Archives(mut info) = store.ask(Verb::Archive(Archive::List { directory: None })).unwrap() else {
        panic!()
    };
    info.remove(0)
}

fn merge_years(store: &Store) -> Result<ShortenedInfo> {
    let merge = MergeOptions { per: pitfs::clock::Period::Year, before: None, is_dry_run: false };
    match store.ask(Verb::Archive(Archive::Merge(merge)))? {
        Answer::Shortened(shortened) => Ok(shortened),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_merge_that_was_interrupted_loses_nothing_and_leaves_nothing() {
    let stand = Stand::rolled(6);
    let (before, after) = (stand.path("before"), stand.path("after"));
    copy(&stand.archive(), &before);
    merge_years(&stand.store).unwrap();
    copy(&stand.archive(), &after);
    let parts = increments(&before);
    let merged = increments(&after).pop().unwrap();
    let name = |path: &Path| path.file_name().unwrap().to_owned();
    // All that can be there in between: the merged one is whole, and some of its parts are gone, whatever the index has.
    for index in [before.join("index"), after.join("index")] {
        for left in 0..1u32 << parts.len() {
            let is_left = |at: usize| left >> at & 1 == 1;
            copy(&before, &stand.archive());
            fs::copy(&index, stand.archive().join("index")).unwrap();
            fs::copy(&merged, stand.archive().join(name(&merged))).unwrap();
            for (_, part) in parts.iter().enumerate().filter(|(at, _)| !is_left(*at)) {
                fs::remove_file(stand.archive().join(name(part))).unwrap();
            }
            let unfinished = stand.archive().join(".0000000001-something.increment.new");
            fs::write(&unfinished, "begun").unwrap();
            let what = format!("parts {left:b} left");
            assert_eq!(stand.store.shown(&what), names([1, 6]));
            let info = listed(&stand.store);
            assert_eq!(info.problems, [""; 0], "{what}");
            let named: Vec<_> = info.increments.iter().filter(|one| one.merged_into.is_some()).collect();
            assert_eq!(named.len(), left.count_ones() as usize, "{what}");
            assert!(
                named
                    .iter()
                    .all(|one| one.merged_into.as_ref().is_some_and(|into| name(into.as_path()) == name(&merged)))
            );
            assert_eq!(info.increments.len(), named.len() + 1, "{what}");
            // Any of the three lets them go.
            let store = &mut stand.store.clone();
            match left % 3 {
                0 => drop(merge_years(store).unwrap()),
                1 => drop(prune(store, PruneOptions { keep: Some(9), ..PruneOptions::default() }).unwrap()),
                _ => {
                    let copy = stand.path("copy");
                    *store = store.copy_to(&copy);
                    drop(store.roll(None, None, "r7").unwrap());
                }
            }
            let left = increments(&stand.archive());
            assert!(!unfinished.exists(), "{what}");
            let all = if left.len() == 2 { names([1, 6, 7]) } else { names([1, 6]) };
            assert!(left.iter().any(|path| name(path) == name(&merged)) && left.len() < 3, "{what}: {left:?}");
            assert_eq!(store.shown(&what), all);
        }
    }
}

#[test]
fn parts_stay_where_what_they_were_merged_into_is_damaged() {
    let stand = Stand::rolled(5);
    let before = stand.path("before");
    copy(&stand.archive(), &before);
    merge_years(&stand.store).unwrap();
    for part in increments(&before) {
        fs::copy(&part, stand.archive().join(part.file_name().unwrap())).unwrap();
    }
    let merged = listed(&stand.store).increments.into_iter().find(|one| one.merged_into.is_none()).unwrap().file;
    let merged = PathBuf::from(merged);
    // In the bytes of a track, which only whoever reads that notices.
    let mut bytes = fs::read(&merged).unwrap();
    let at = bytes.len() / 3;
    bytes[at] ^= 0x40;
    fs::write(&merged, bytes).unwrap();
    let problems = merge_years(&stand.store).unwrap().problems;
    assert!(problems.iter().any(|problem| problem.contains("is damaged") && problem.contains("stay")), "{problems:?}");
    // Without it they have everything.
    fs::remove_file(&merged).unwrap();
    assert_eq!(stand.store.shown("from the parts"), names(1..6));
}

#[test]
fn a_part_that_cannot_be_removed_is_named_until_it_can() {
    let mut stand = Stand::rolled(5);
    let stuck = increments(&stand.archive()).swap_remove(1);
    let mark = |flags| fs::File::open(&stuck).map(|file| rustix::fs::ioctl_setflags(file, flags));
    if !mark(rustix::fs::IFlags::IMMUTABLE).is_ok_and(|marked| marked.is_ok()) {
        eprintln!("not run: no file can be made immutable here");
        return;
    }
    let problems = merge_years(&stand.store).unwrap().problems;
    assert!(problems.len() == 1 && problems[0].contains(stuck.to_str().unwrap()), "{problems:?}");
    change(&mut stand.store, 6);
    let said = stand.store.roll(None, Some(1), "r6").unwrap();
    assert_eq!(said, problems);
    // What it is merged into becomes a part itself.
    let problems = merge_years(&stand.store).unwrap().problems;
    assert!(problems.iter().all(|problem| problem.contains(stuck.to_str().unwrap())), "{problems:?}");
    assert_eq!(listed(&stand.store).increments.iter().filter(|one| one.merged_into.is_some()).count(), 1);
    assert_eq!(increments(&stand.archive()).len(), 2);
    mark(rustix::fs::IFlags::empty()).unwrap().unwrap();
    assert_eq!(merge_years(&stand.store).unwrap().problems, [""; 0]);
    assert_eq!(increments(&stand.archive()).len(), 1);
    assert_eq!(stand.store.shown("in the end"), names([1, 6]));
}

/// More than are merged at a time, and increments of a copy between the same epochs stay.
#[test]
fn many_are_merged_in_steps_and_those_of_a_copy_stay() {
    let mut stand = Stand::rolled(2);
    let mut copy_of = stand.store.copy_to(&stand.path("copy"));
    let theirs = stand.path("theirs");
    copy(&stand.archive(), &theirs);
    copy_of.attach(&theirs).unwrap();
    change(&mut copy_of, 30);
    copy_of.roll(None, Some(1), "c3").unwrap();
    for i in 3..140 {
        stand.store.write("often", &[i as u8; 50]);
        stand.store.snap(&format!("r{i}"));
    }
    stand.store.roll(None, Some(1), "r140").unwrap();
    let foreign = increments(&theirs).pop().unwrap();
    let foreign_here = stand.archive().join(foreign.file_name().unwrap());
    fs::copy(&foreign, &foreign_here).unwrap();
    let shortened = merge_years(&stand.store).unwrap();
    assert_eq!((shortened.times.len(), shortened.problems), (138, vec![]));
    assert_eq!(increments(&stand.archive()).len(), 2);
    assert!(foreign_here.exists());
    assert_eq!(stand.store.shown("merged"), names([1, 140]));
    let info = listed(&stand.store);
    assert_eq!(info.increments.iter().filter(|one| !one.reachable && one.merged_into.is_none()).count(), 1);
}

/// The archive had them, and was told to have them no more.
#[test]
fn what_was_merged_away_is_freed_from_the_store_too() {
    let mut stand = Stand::rolled(1);
    for i in 2..8 {
        change(&mut stand.store, i);
        stand.store.roll(None, None, &format!("r{i}")).unwrap();
    }
    stand.store.open(|daemon| daemon.views().snapshots().hold(&[b"r3"], None).map(|_| ())).unwrap();
    assert_eq!(merge_years(&stand.store).unwrap().times.len(), 5);
    assert_eq!(stand.store.shown("what the store has stays"), names(1..8));
    change(&mut stand.store, 8);
    let tried = stand.store.open(|daemon| {
        let options = RollOptions { keep: Some(2), ..RollOptions::default() };
        daemon.rolls().plan(daemon.views(), &options).unwrap().freed.len()
    });
    stand.store.roll(None, Some(2), "r8").unwrap();
    assert_eq!(stand.store.shown("freed"), names([1, 3, 7, 8]), "what is held stays");
    assert_eq!(tried, 5);
    // What the archive lost is not freed: the store has it alone.
    let last = increments(&stand.archive()).pop().unwrap();
    stand.store.roll(None, None, "r9").unwrap();
    fs::remove_file(last).unwrap();
    stand.store.roll(None, Some(1), "r10").unwrap();
    assert_eq!(stand.store.shown("lost"), names([3, 7, 8, 9, 10]));
}

#[test]
fn no_times_go_from_an_archive_that_has_gone_on_without_the_store() {
    let mut stand = Stand::rolled(4);
    let backup = stand.store.copy_to(&stand.path("backup"));
    change(&mut stand.store, 5);
    stand.store.roll(None, Some(1), "r5").unwrap();
    let before = increments(&stand.archive());
    for is_dry_run in [true, false] {
        let merge = MergeOptions { per: pitfs::clock::Period::Year, before: None, is_dry_run };
        refusal(
            backup.ask(Verb::Archive(Archive::Merge(merge))),
            &["has gone on without this store", "r5", "Nothing was changed"],
        );
        refusal(
            prune(&backup, PruneOptions { keep: Some(1), before: None, is_dry_run }),
            &["has gone on without this store", "r5"],
        );
    }
    assert_eq!(increments(&stand.archive()), before);
    assert_eq!(backup.shown("the copy"), names(1..5));
    assert_eq!(stand.store.shown("the original"), names(1..6));
    // The one that has gone on may.
    assert_eq!(merge_years(&stand.store).unwrap().times.len(), 3);
}

/// Whatever is in the place of an archive, each command says what it met, where, and what helps.
#[test]
fn what_is_wrong_with_an_archive_as_a_whole_is_said_by_every_command() {
    let mut stand = Stand::rolled(4);
    let archive = stand.archive();
    let shown = archive.display().to_string();
    let refuse_all = |stand: &mut Stand, words: &[&str]| {
        let verbs = [
            Archive::List { directory: None },
            Archive::Verify { directory: None },
            Archive::Prune(PruneOptions { keep: Some(1), ..PruneOptions::default() }),
            Archive::Merge(MergeOptions { per: pitfs::clock::Period::Year, before: None, is_dry_run: false }),
        ];
        for verb in verbs {
            refusal(stand.store.ask(Verb::Archive(verb)), words);
        }
        refusal(stand.store.roll(None, Some(1), "refused"), words);
    };
    let away = stand.path("away");
    fs::rename(&archive, &away).unwrap();
    let is_gone = [shown.as_str(), "is not there", "mounted", "archive detach"];
    refuse_all(&mut stand, &is_gone);
    fs::create_dir(&archive).unwrap();
    refuse_all(&mut stand, &is_gone);
    fs::remove_dir(&archive).unwrap();
    fs::write(&archive, "a file").unwrap();
    refuse_all(&mut stand, &is_gone);
    refusal(stand.store.attach(&archive), &[&shown, "is no directory"]);
    fs::remove_file(&archive).unwrap();
    let mut other = Store::create(&stand.path("other"));
    other.roll(Some(&archive), None, "o1").unwrap();
    refuse_all(&mut stand, &[&shown, "the archive of another store", "directory of its own"]);
    let Answer::Archives(info) = other.ask(Verb::Archive(Archive::List { directory: Some(away.clone()) })).unwrap()
    else {
        panic!()
    };
    assert!(
        info[0].problems.len() == 1 && info[0].problems[0].contains("3 are of another store"),
        "{:?}",
        info[0].problems
    );
    fs::remove_dir_all(&archive).unwrap();
    fs::rename(&away, &archive).unwrap();
    // Without the newest nothing of it can be read, and nothing goes.
    let newest = increments(&archive).pop().unwrap();
    fs::rename(&newest, &away).unwrap();
    let lost = [shown.as_str(), "lost its newest increments", "archive join", "archive detach"];
    refusal(prune(&stand.store, PruneOptions { keep: Some(1), ..PruneOptions::default() }), &lost);
    refusal(merge_years(&stand.store), &lost);
    refusal(stand.store.roll(None, Some(1), "refused"), &lost);
    refusal(stand.store.attach(&archive), &["r3", "does not hold", "Put back"]);
    assert!(listed(&stand.store).problems[0].contains("cannot be reached until it is put back"));
    fs::rename(&away, &newest).unwrap();
    assert_eq!(stand.store.shown("put back"), names(1..5));
}

#[test]
fn parts_of_what_was_merged_are_not_joined_again() {
    let stand = Stand::rolled(5);
    let before = stand.path("before");
    copy(&stand.archive(), &before);
    merge_years(&stand.store).unwrap();
    let join = |directory: &PathBuf| stand.store.ask(Verb::Archive(Archive::Join { directory: directory.clone() }));
    refusal(join(&before), &["that the archive lacks"]);
    assert_eq!(increments(&stand.archive()).len(), 1);
}

#[test]
fn a_volume_of_another_store_is_refused() {
    let stand = Stand::rolled(1);
    let other = Store::create(&stand.path("other"));
    fs::copy(other.path.join("volume.0"), stand.store.path.join("volume.0")).unwrap();
    let error = pitfs::daemon::Daemon::open(&stand.store.path).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("belongs to another store"), "{error}");
}

/// The first roll of many snapshots costs as much for each as that of a few.
#[test]
fn a_first_roll_follows_the_number_of_snapshots() {
    let syncs = |snapshots: u32| {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::create(&dir.path().join("store"));
        store.open(|daemon| {
            for i in 0..snapshots {
                daemon.views().snapshots().take(Some(format!("s{i}").as_bytes())).unwrap();
            }
        });
        for i in 0..snapshots {
            store.times.insert(format!("s{i}"), store.live.clone());
        }
        let commits = |store: &Store| store.open(|daemon| daemon.views().tree().device().commit_number());
        let before = commits(&store);
        store.roll(Some(&dir.path().join("archive")), None, "rolled").unwrap();
        let after = commits(&store);
        assert_eq!(store.shown("all").len() as u32, snapshots + 1);
        after - before
    };
    let (few, many) = (syncs(10), syncs(120));
    assert!(many <= few + 3, "{few} commits for 10 snapshots, {many} for 120");
}

#[test]
fn what_cannot_be_reached_goes_only_where_its_time_would() {
    let stand = Stand::rolled(7);
    let keep = |keep| PruneOptions { keep: Some(keep), ..PruneOptions::default() };
    let went = |shortened: ShortenedInfo| shortened.times.into_iter().map(|gone| gone.name).collect::<Vec<_>>();
    // One is missing for a while: r1 to r4 cannot be reached, r5 and r6 can.
    let missing = increments(&stand.archive()).swap_remove(3);
    let away = stand.path("away");
    fs::rename(&missing, &away).unwrap();
    let long_ago = pitfs::clock::Timestamp { seconds: 1, nanos: 0 };
    let before = PruneOptions { before: Some(long_ago), ..PruneOptions::default() };
    for options in [keep(100), before] {
        assert_eq!(went(prune(&stand.store, options).unwrap()), [""; 0]);
    }
    assert_eq!(went(prune(&stand.store, keep(4)).unwrap()), ["r1"]);
    fs::rename(&away, &missing).unwrap();
    assert_eq!(stand.store.shown("put back"), names(2..8));
}

#[test]
fn one_increment_in_the_place_of_another_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::create(&dir.path().join("store"));
    let archive = dir.path().join("archive");
    let bytes = |seed: u64| -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..16 << 10).map(|_| next()).collect()
    };
    for i in 0..8 {
        store.write("file", &bytes(i * 77 + 5));
        store.roll(Some(&archive), Some(1), &format!("r{i}")).unwrap();
    }
    // Two of the same length, as the index knows them.
    let all = increments(&archive);
    let length = |path: &PathBuf| fs::metadata(path).unwrap().len();
    let pairs = all.iter().flat_map(|one| all.iter().map(move |other| (one, other)));
    let (one, other) =
        pairs.filter(|(one, other)| one != other).find(|(one, other)| length(one) == length(other)).unwrap();
    fs::remove_file(one).unwrap();
    fs::copy(other, one).unwrap();
    let at = all.iter().position(|path| path == one).unwrap();
    store.open(|daemon| {
        let views = daemon.views();
        for snapshot in views.snapshots().with_archived().unwrap().into_iter().filter(|one| one.is_readable()) {
            let moment = pitfs::device::Moment::At(snapshot.epoch);
            let root = pitfs::tree::root_of(pitfs::device::LIVE);
            let Ok((inode, _)) = views.tree().names().lookup(root.at(moment), b"file") else { continue };
            if let Ok(read) = views.tree().files().read(inode.at(moment), 0, 16 << 10) {
                assert!(read == store.times[&snapshot.record.name]["file"], "{}", snapshot.record.name);
                assert_ne!(snapshot.record.name, format!("r{at}"), "its bytes are gone");
            }
        }
    });
    let verify = Verb::Archive(Archive::Verify { directory: None });
    let Answer::Verified(verified) = store.ask(verify).unwrap() else { panic!() };
    let info = &verified.archive;
    assert!(info.problems.iter().any(|problem| problem.contains("not what its name says")), "{:?}", info.problems);
}

#[test]
fn joining_leaves_what_is_damaged_and_what_a_copy_saved() {
    let mut stand = Stand::rolled(5);
    // A copy goes its own way, in a copy of the archive.
    let mut second = stand.store.copy_to(&stand.path("second"));
    let theirs = stand.path("theirs");
    copy(&stand.archive(), &theirs);
    second.attach(&theirs).unwrap();
    second.roll(None, Some(1), "c6").unwrap();
    second.roll(None, Some(1), "c7").unwrap();
    let join = |store: &Store| store.ask(Verb::Archive(Archive::Join { directory: theirs.clone() }));
    refusal(join(&stand.store), &["that the archive lacks"]);
    // What this one lacks comes back, but for what is damaged.
    for increment in increments(&stand.archive()) {
        fs::remove_file(increment).unwrap();
    }
    fs::write(&increments(&theirs)[1], "").unwrap();
    let Answer::Archives(info) = join(&stand.store).unwrap() else { panic!() };
    let info = &info[0];
    assert!(info.problems.iter().any(|problem| problem.contains("no increment")), "{:?}", info.problems);
    assert_eq!(increments(&stand.archive()).len(), 3);
    change(&mut stand.store, 6);
    stand.store.roll(None, Some(1), "r6").unwrap();
    assert_eq!(stand.store.shown("joined"), ["r3", "r4", "r5", "r6"]);
}
