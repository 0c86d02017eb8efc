//! The places that are compared: ext4, btrfs and pitfs, all on the disk that the work directory is on.

use crate::Result;
use crate::command::{has, is_root, ok};
use crate::store::Store;
use crate::switch;
use crate::work::{Work, unmount};
use std::path::{Path, PathBuf};
use std::process::Command;

pub const EXT4: &str = "ext4";
pub const BTRFS: &str = "btrfs";
/// Over /dev/fuse.
pub const PITFS: &str = "pitfs";
/// Over the kernel's rings.
pub const RINGS: &str = "pitfs, rings";

/// A file system in an image, or a directory. It goes when this goes.
struct Disk {
    dir: PathBuf,
    image: Option<PathBuf>,
    is_mounted: bool,
}

impl Disk {
    fn directory(dir: PathBuf) -> Result<Disk> {
        std::fs::create_dir(&dir)?;
        Ok(Disk { dir, image: None, is_mounted: false })
    }

    /// A sparse image as large as its disk has room for, mounted.
    fn image(dir: PathBuf, mkfs: &[&str]) -> Result<Disk> {
        let mut disk = Disk::directory(dir)?;
        let image = disk.dir.with_extension("img");
        let room = rustix::fs::statvfs(&disk.dir)?;
        let file = std::fs::File::create(&image)?;
        disk.image = Some(image.clone());
        file.set_len(room.f_bavail * room.f_frsize / 4 * 3)?;
        drop(file);
        ok(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image))?;
        ok(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&disk.dir))?;
        disk.is_mounted = true;
        Ok(disk)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = if self.is_mounted { unmount(&self.dir) } else { Ok(()) };
        let removed = unmounted.and_then(|()| {
            // Not what is in it, should it still be mounted.
            if self.image.is_some() {
                std::fs::remove_dir(&self.dir)?
            } else {
                std::fs::remove_dir_all(&self.dir)?
            }
            Ok(self.image.iter().try_for_each(std::fs::remove_file)?)
        });
        if let Err(error) = removed {
            eprintln!("bench: {}: {error}", self.dir.display());
        }
    }
}

/// mkfs.btrfs looks at all mounts of the machine, and fails if one does not answer: so without those of FUSE, in a
/// namespace of its own, where nobody else misses them.
const MKFS_BTRFS: &str = "awk '$3 ~ /^fuse/ { print $2 }' /proc/self/mounts | tac | xargs -r -n 1 umount -l; \
                          exec mkfs.btrfs -q -f \"$0\"";

/// None where it cannot be made, which is said.
fn btrfs(work: &Work) -> Option<Disk> {
    let mkfs = ["unshare", "--mount", "--propagation", "private", "sh", "-c", MKFS_BTRFS];
    let made = Disk::image(work.file("btrfs"), &mkfs);
    made.inspect_err(|error| eprintln!("bench: without btrfs: {error}")).ok()
}

/// All places of one part. The store comes first, since it may lie in an image that the others end.
pub struct Places {
    pub store: Store,
    rings: Option<Store>,
    list: Vec<(&'static str, PathBuf)>,
    _btrfs: Option<Disk>,
    _ext4: Disk,
}

impl Places {
    pub fn new(work: &Work) -> Result<Places> {
        let in_image = !work.is_ext4() && is_root();
        let ext4 = match in_image {
            true => Disk::image(work.file("ext4"), &["mkfs.ext4", "-q", "-F"])?,
            false => Disk::directory(work.file("ext4"))?,
        };
        let ground = if in_image { ext4.dir.as_path() } else { work.path() };
        let btrfs = if is_root() && has("mkfs.btrfs") { btrfs(work) } else { None };
        let mut list = vec![(EXT4, ext4.dir.clone())];
        list.extend(btrfs.iter().map(|disk| (BTRFS, disk.dir.clone())));
        let store = Store::mounted(&ground.join("pitfs"))?;
        list.push((PITFS, store.live()));
        let rings = match switch::on() {
            Ok(()) => Some(Store::mounted_with(&ground.join("rings"), &["-o", "io_uring=on"])?),
            Err(error) => {
                eprintln!("bench: without rings: {error}");
                None
            }
        };
        list.extend(rings.iter().map(|store| (RINGS, store.live())));
        Ok(Places { store, rings, list, _btrfs: btrfs, _ext4: ext4 })
    }

    /// Name and directory of each, in the order in which they are measured.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        self.list.iter().map(|(name, dir)| (*name, dir.as_path()))
    }

    /// Those that pitfs serves, with the number of the process.
    pub fn daemons(&self) -> impl Iterator<Item = (&'static str, &Path, u32)> {
        let process = |store: &Store| pitfs::daemon::holder(&store.path()).ok()??.process;
        let stores = [(PITFS, Some(&self.store)), (RINGS, self.rings.as_ref())];
        stores.into_iter().filter_map(move |(name, store)| {
            let (_, directory) = self.list.iter().find(|(place, _)| *place == name)?;
            Some((name, directory.as_path(), process(store?)?))
        })
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.list.iter().map(|(name, _)| *name)
    }
}

/// A directory on the same disk as [`Places`] have, for stores of their own, and what carries it.
pub struct Ground {
    pub dir: PathBuf,
    _disk: Disk,
}

impl Ground {
    pub fn new(work: &Work) -> Result<Ground> {
        let disk = match !work.is_ext4() && is_root() {
            true => Disk::image(work.file("ground"), &["mkfs.ext4", "-q", "-F"])?,
            false => Disk::directory(work.file("ground"))?,
        };
        Ok(Ground { dir: disk.dir.clone(), _disk: disk })
    }
}
