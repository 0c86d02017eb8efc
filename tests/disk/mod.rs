//! A disk for tests: a FUSE file system of our own that shows one directory whose files are in memory, that
//! forgets what was not synced when its power is cut, and whose requests fail when told to.
//!
//! ```text
//! test ──▶ mount of pitfs ──▶ daemon ──▶ mount of this disk ──▶ served.rs ──▶ image.rs
//!   └────────────── cut_after, cut, set_faults, after_power_cut ──────────────────┘
//! ```
#![allow(dead_code, reason = "each test file uses its part")]

mod bytes;
mod image;
mod served;

pub use image::Image;

use crate::load::Rng;
use fuser::{BackgroundSession, Config, MountOption, SessionACL};
use served::Served;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// What a disk can do to a request, each with its chance in a thousand.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub read_fails: u64,
    pub write_fails: u64,
    pub sync_fails: u64,
    /// Of writes and of allocating room.
    pub no_space: u64,
    /// Reads and writes that do only a part.
    pub short: u64,
    pub slow: u64,
}

/// What [`Faults::slow`] takes.
pub const SLOW: Duration = Duration::from_millis(100);

struct State {
    image: Image,
    /// Changing requests until the power is cut.
    changes_left: Option<u64>,
    is_cut: bool,
    faults: Faults,
    rng: Rng,
    /// How many requests were failed, shortened or made slow.
    faults_met: u64,
    /// Syncs that have returned without an error.
    syncs: u64,
    room: u64,
}

struct Shared {
    state: Mutex<State>,
    was_cut: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A disk that is plugged in at a directory.
pub struct Disk {
    at: PathBuf,
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
}

const ROOM: u64 = 256 << 20;

impl Disk {
    pub fn plug_in(at: &Path, image: Image, seed: u64) -> Disk {
        let state = State {
            image,
            changes_left: None,
            is_cut: false,
            faults: Faults::default(),
            rng: Rng::new(seed),
            faults_met: 0,
            syncs: 0,
            room: ROOM,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), was_cut: Condvar::new() });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("pitfs-test-disk".into())];
        config.acl = SessionACL::Owner;
        config.n_threads = Some(3);
        let session = fuser::spawn_mount(Served(shared.clone()), at, &config).expect("the disk mounts");
        Disk { at: at.to_path_buf(), shared, session: Some(session) }
    }

    /// What all processes see.
    pub fn image(&self) -> Image {
        self.shared.lock().image.clone()
    }

    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        self.shared.lock().image.content(name)
    }

    /// Whether a name is there, with this mode.
    pub fn has(&self, name: &str, mode: u32) -> bool {
        let state = self.shared.lock();
        state.image.find(name).is_some_and(|number| state.image.files[&number].mode & 0o7777 == mode)
    }

    /// Cuts the power at the `n`th changing request from now.
    pub fn cut_after(&self, n: u64) {
        self.shared.lock().changes_left = Some(n);
    }

    /// Cuts the power now: every request fails from here on.
    pub fn cut(&self) {
        self.shared.lock().is_cut = true;
        self.shared.was_cut.notify_all();
    }

    pub fn is_cut(&self) -> bool {
        self.shared.lock().is_cut
    }

    /// Waits until the power is cut; false if it was not in time.
    pub fn wait_for_cut(&self, timeout: Duration) -> bool {
        let state = self.shared.lock();
        let waited = self.shared.was_cut.wait_timeout_while(state, timeout, |state| !state.is_cut);
        waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0.is_cut
    }

    /// What is left after the power was cut; another call may find something else.
    pub fn after_power_cut(&self, rng: &mut Rng) -> Image {
        self.shared.lock().image.after_power_cut(rng)
    }

    pub fn set_faults(&self, faults: Faults) {
        self.shared.lock().faults = faults;
    }

    pub fn faults_met(&self) -> u64 {
        self.shared.lock().faults_met
    }

    pub fn syncs(&self) -> u64 {
        self.shared.lock().syncs
    }

    /// Takes the disk out; nobody may have files of it open any more.
    pub fn unplug(mut self) {
        self.take_out();
    }

    fn take_out(&mut self) {
        if let Some(session) = self.session.take()
            && session.umount_and_join().is_err()
        {
            super::mounted::detach(&self.at);
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.take_out();
    }
}
