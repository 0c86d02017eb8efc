//! Fault domains: a panic ends the work in which it happens, and neither a thread that serves others nor the program.
//!
//! What stands for itself runs in a domain of its own: a read of the metadata, a request of the kernel, a command, a round of
//! background work. What it had changed is undone, or the store stops, where that is kept: [`Txn`](crate::device::Txn) and
//! [`Commit`](crate::device::Commit) see to it when they are dropped.
//!
//! One fault nobody can go on after: a second one in what the first left to be put away, as the key-value store does of locks
//! that it had poisoned. That ends the program in order, with a message and the status of an error.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, Location, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::process::exit;
use std::sync::Once;

thread_local! {
    /// How many domains this thread is in.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Where the last panic in a domain was.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

static HOOK: Once = Once::new();

/// What the program ends with after a fault in what a fault left, as after any error.
pub const ENDED: i32 = 1;

/// Runs something in a domain: its result, or the message of the panic that ended it and the place where that was, in one
/// line. Whoever asks says it; the panic itself prints nothing.
pub fn contained<T>(action: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(keep_quiet);
    DEPTH.set(DEPTH.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(action));
    DEPTH.set(DEPTH.get() - 1);
    result.map_err(|payload| {
        let message = message(&*payload).replace('\n', " ");
        // Of a panic that was only passed on nobody has noted the place.
        match PLACE.take() {
            place if place.is_empty() => message,
            place => format!("{message} ({place})"),
        }
    })
}

/// Notes where a panic in a domain is instead of printing it.
fn keep_quiet() {
    let print = take_hook();
    set_hook(Box::new(move |panic: &PanicHookInfo<'_>| match DEPTH.get() {
        0 => print(panic),
        _ if is_last(panic) => end(),
        _ => PLACE.set(panic.location().map_or(String::new(), place)),
    }));
}

/// Whether the program would be aborted next. Only the text tells.
fn is_last(panic: &PanicHookInfo<'_>) -> bool {
    ["panic in a destructor during cleanup", "panic in a function that cannot unwind"]
        .contains(&message(panic.payload()))
}

/// What has been committed is whole; a mount is left as by a daemon that was killed, and the next `mount` or `umount` frees it.
fn end() -> ! {
    let place = PLACE.take();
    // What a daemon says is limited, and this is to be heard.
    log::logger().flush();
    log::error!(
        "a fault in what a fault had left ({place}): nothing can go on after it, and this program ends. The store is as its last \
         commit left it; `pitfs check` says what is damaged"
    );
    exit(ENDED)
}

/// Without the directories, which are those of whoever built it.
fn place(location: &Location<'_>) -> String {
    let file = location.file().rsplit('/').next().unwrap_or_default();
    format!("{file}:{}", location.line())
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const CHILD: &str = "PITFS_TEST_FAULTS";

    struct Failing;

    impl Drop for Failing {
        fn drop(&mut self) {
            panic!("the second");
        }
    }

    #[test]
    fn a_fault_in_what_a_fault_left_ends_the_program_in_order() {
        if std::env::var_os(CHILD).is_some() {
            let _it_is_not_returned_to = contained(|| {
                let _failing = Failing;
                panic!("the first");
            });
            unreachable!("the program has ended");
        }
        let test = "fault::tests::a_fault_in_what_a_fault_left_ends_the_program_in_order";
        let child = Command::new(std::env::current_exe().unwrap()).args(["--exact", test]).env(CHILD, "1").status();
        assert_eq!(child.unwrap().code(), Some(ENDED), "and not a signal");
    }

    #[test]
    fn a_panic_ends_its_own_domain_and_is_told() {
        let outer = contained(|| {
            let inner = contained(|| -> u32 { panic!("the inner\none") });
            assert!(inner.unwrap_err().starts_with("the inner one (fault.rs:"));
            5
        });
        assert_eq!(outer, Ok(5));
        let numbers: Vec<u32> = Vec::new();
        assert!(contained(|| numbers[1]).unwrap_err().contains("index out of bounds"));
        assert_eq!(contained(|| 6), Ok(6));
    }
}
