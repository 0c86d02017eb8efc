//! One look or operation at a time in a thread: one that waits for an operation that waits for another look of the
//! same thread would wait for ever, and does so once in a hundred thousand times. Only checked in debug builds, so
//! that tests find it.

#[cfg(debug_assertions)]
mod checked {
    use std::cell::RefCell;

    thread_local! {
        static HELD: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    }

    /// As long as it lives, the thread has the state of this device in its hands.
    pub struct Alone(usize);

    impl Alone {
        pub fn with<T>(device: &T) -> Alone {
            let address = std::ptr::from_ref(device).addr();
            HELD.with_borrow_mut(|held| {
                assert!(!held.contains(&address), "this thread looks at the state of this device already");
                held.push(address);
            });
            Alone(address)
        }
    }

    impl Drop for Alone {
        fn drop(&mut self) {
            HELD.with_borrow_mut(|held| held.retain(|address| *address != self.0));
        }
    }
}

#[cfg(not(debug_assertions))]
mod checked {
    pub struct Alone;

    impl Alone {
        pub fn with<T>(_device: &T) -> Alone {
            Alone
        }
    }
}

pub(super) use checked::Alone;
