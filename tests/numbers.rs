//! Inode numbers as programs see them.

mod mounted;

use mounted::*;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::Path;
use std::process::Command;

/// Lists and stats a directory with calls of a 32-bit program, which fail if a number does not fit.
const OLD_PROGRAM: &str = r#"
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
static int call(int number, long a, long b, long c) {
    int result;
    asm volatile("int $0x80" : "=a"(result) : "a"(number), "b"((int)a), "c"((int)b), "d"((int)c) : "memory", "r8", "r9", "r10", "r11");
    return result;
}
enum { OPEN = 5, STAT = 106, GETDENTS = 141 };
int main(int count, char **paths) {
    char *low = mmap(0, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0), *buffer = low + 4096;
    for (int i = 1; i < count; i++) {
        int file = call(OPEN, (long)strcpy(low, paths[i]), 0, 0), found;
        while ((found = call(GETDENTS, file, (long)buffer, 32768)) > 0) {}
        if (found < 0 || call(STAT, (long)low, (long)buffer, 0) < 0) return i;
    }
    return 0;
}
"#;

/// Live with a clone, snapshots, an archived time, and every door to them; the directories that lead to `d`.
fn sample() -> (Mounted, Vec<String>) {
    let mounted = Mounted::new();
    let live = mounted.live();
    fs::create_dir(live.join("d")).unwrap();
    for i in 0..50 {
        fs::write(live.join(format!("d/f{i}")), format!("{i}")).unwrap();
    }
    fs::hard_link(live.join("d/f1"), live.join("d/second name")).unwrap();
    let archive = mounted.dir.path().join("archive");
    for name in ["old", "A"] {
        fs::write(live.join("d/f2"), name).unwrap();
        mounted.ok(["roll", "--archive", archive.to_str().unwrap(), "--keep", "1", "--name", name]);
    }
    mounted.ok(["clone", "A", "clone"]);
    let time = names(&live.join(".snapshots")).pop().unwrap();
    let mut views: Vec<String> = ["live", "A", "old", "clone", "live/.snap/A"].map(String::from).to_vec();
    views.extend([format!("live/.snapshots/{time}"), format!(".snapshots/{time}/live")]);
    (mounted, views)
}

#[test]
fn programs_with_32_bit_numbers_list_and_stat_every_view() {
    if !can_mount() {
        return;
    }
    let (mounted, views) = sample();
    let Some(program) = compiled(&mounted, OLD_PROGRAM, &[]) else { return };
    let root = mounted.snap();
    let works = |path: &Path| Command::new(&program).arg(path).status().unwrap().success();
    if !works(Path::new("/proc")) {
        return eprintln!("not run: no calls of 32-bit programs in this kernel");
    }
    assert!(works(&root));
    for view in &views {
        for directory in ["", "d", "d/f1"] {
            let path = root.join(view).join(directory);
            assert!(path.is_file() || works(&path), "{}", path.display());
        }
    }
    for hidden in ["live/.snap", "live/d/.snap", ".snapshots", "live/.snapshots"] {
        assert!(works(&root.join(hidden)), "{hidden}");
    }
}

#[test]
fn every_file_of_every_view_has_a_number_of_its_own_that_it_keeps() {
    if !can_mount() {
        return;
    }
    let (mounted, views) = sample();
    let mut seen: HashMap<u64, String> = HashMap::new();
    let mut kept = Vec::new();
    for view in &views {
        for entry in fs::read_dir(mounted.snap().join(view).join("d")).unwrap() {
            let entry = entry.unwrap();
            let (path, number) = (entry.path(), entry.metadata().unwrap().ino());
            assert_eq!(entry.ino(), number, "{}: listed as another", path.display());
            assert!(u32::try_from(number).is_ok(), "{}: {number}", path.display());
            let name = entry.file_name().into_string().unwrap().replace("second name", "f1");
            let same = seen.entry(number).or_insert(format!("{view}/{name}"));
            assert_eq!(*same, format!("{view}/{name}"), "two files have the number {number}");
            kept.push((path, number));
        }
    }
    assert_eq!(seen.len(), views.len() * 50);
    mounted.remount();
    let is_named =
        |path: &Path| !path.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b".snap"));
    for (path, number) in kept.into_iter().filter(|(path, _)| is_named(path)) {
        assert_eq!(fs::metadata(&path).unwrap().ino(), number, "{}", path.display());
    }
}
