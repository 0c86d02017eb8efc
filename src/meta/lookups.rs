//! How often tables are looked into, so that tests can tell what costs what. Only counted in debug builds.

#[cfg(debug_assertions)]
mod counted {
    use std::cell::Cell;

    thread_local! {
        static LOOKUPS: Cell<u64> = const { Cell::new(0) };
    }

    pub fn note() {
        LOOKUPS.set(LOOKUPS.get() + 1);
    }

    /// Look-ups by this thread: keys that were asked for, and records that were passed while looking through a range.
    pub fn lookups() -> u64 {
        LOOKUPS.get()
    }
}

#[cfg(not(debug_assertions))]
mod counted {
    pub fn note() {}
}

#[cfg(debug_assertions)]
pub use counted::lookups;
pub(super) use counted::note;
