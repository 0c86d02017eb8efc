//! Runs one input and sees to it that it ends, that no thread panics and that memory stays bounded.

use super::allocations::{ALLOCATION_MAX, take_largest};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

/// No input may keep a decoder busy for longer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Inputs run one at a time: panics and memory are counted for the whole process.
static TURN: Mutex<()> = Mutex::new(());
static PANICS: AtomicU64 = AtomicU64::new(0);
/// When the input that is being run began, and what it is.
static RUNNING: Mutex<Option<(Instant, String)>> = Mutex::new(None);

/// The key-value store's own assertions are caught where it is called and become errors.
fn is_contained(info: &PanicHookInfo<'_>) -> bool {
    info.location().is_some_and(|place| place.file().contains("/redb-"))
}

/// Where a thread is: a test that fails by itself, beside an input of another test, is none of that input's panics.
#[derive(Clone, Copy, PartialEq)]
enum Within {
    Other,
    Test,
    Input,
}

thread_local!(static WITHIN: Cell<Within> = const { Cell::new(Within::Other) });

/// To be called first where a test can fail while an input of another one runs.
pub fn is_a_test() {
    WITHIN.set(Within::Test);
}

fn start() {
    static START: Once = Once::new();
    START.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !is_contained(info) {
                if WITHIN.get() != Within::Test {
                    PANICS.fetch_add(1, Ordering::Relaxed);
                }
                next(info);
            }
        }));
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(Duration::from_secs(1));
                match &*lock(&RUNNING) {
                    Some((begun, input)) if begun.elapsed() > TIMEOUT => {
                        eprintln!("an input hangs: {input}");
                        std::process::abort();
                    }
                    _ => {}
                }
            }
        });
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `action` on an input that is shown as `input` if it hangs.
pub fn watched(input: impl FnOnce() -> String, action: impl FnOnce()) {
    start();
    is_a_test();
    let _turn = lock(&TURN);
    *lock(&RUNNING) = Some((Instant::now(), input()));
    let panics = PANICS.load(Ordering::Relaxed);
    take_largest();
    WITHIN.set(Within::Input);
    let result = catch_unwind(AssertUnwindSafe(action));
    is_a_test();
    let largest = take_largest();
    *lock(&RUNNING) = None;
    if let Err(panic) = result {
        resume_unwind(panic);
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), panics, "a thread panicked");
    assert!(largest <= ALLOCATION_MAX, "{largest} bytes were asked for at once");
}

/// Something that inputs are tried on one after the other. What a panic leaves of it is not used any more:
/// the test is then over.
pub struct Target<T>(T);

impl<T> Target<T> {
    pub fn new(inner: T) -> Target<T> {
        Target(inner)
    }

    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> std::ops::Deref for Target<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> std::panic::RefUnwindSafe for Target<T> {}
