//! Threads that carry out what the threads of queues must not wait for. There can be one for each entry, so that what waits
//! for another request never keeps that from being served.

use crate::fuse::thread;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;

type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Waiting {
    work: VecDeque<Work>,
    idle: usize,
    threads: usize,
    is_over: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<Waiting>,
    came: Condvar,
}

pub(super) struct Helpers {
    shared: Arc<Shared>,
    threads_max: usize,
}

impl Helpers {
    pub fn new(threads_max: usize) -> Helpers {
        Helpers { shared: Arc::default(), threads_max }
    }

    /// Has something done; by this thread, where no other can be had.
    pub fn run(&self, work: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.state.lock();
        state.work.push_back(Box::new(work));
        if state.idle >= state.work.len() || state.threads >= self.threads_max {
            self.shared.came.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = self.shared.clone();
        if let Err(error) = thread::begin("helper", move || serve(&shared)) {
            log::warn!("no thread for what takes long: {error}");
            let mut state = self.shared.state.lock();
            state.threads -= 1;
            let work = if state.threads == 0 { state.work.pop_back() } else { None };
            drop(state);
            work.into_iter().for_each(|work| work());
        }
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        self.shared.state.lock().is_over = true;
        self.shared.came.notify_all();
    }
}

fn serve(shared: &Shared) {
    let mut state = shared.state.lock();
    loop {
        if let Some(work) = state.work.pop_front() {
            drop(state);
            work();
            state = shared.state.lock();
        } else if state.is_over {
            return;
        } else {
            state.idle += 1;
            shared.came.wait(&mut state);
            state.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn what_waits_for_what_comes_later_does_not_keep_it_from_being_done() {
        let helpers = Helpers::new(4);
        let (done, all) = channel();
        let waiters: Vec<_> = (0..3)
            .map(|number| {
                let (go_on, waits) = channel::<()>();
                let done = done.clone();
                helpers.run(move || {
                    waits.recv().unwrap();
                    done.send(number).unwrap();
                });
                go_on
            })
            .collect();
        let tell = done.clone();
        helpers.run(move || tell.send(3).unwrap());
        assert_eq!(all.recv().unwrap(), 3);
        waiters.into_iter().for_each(|go_on| go_on.send(()).unwrap());
        let mut others: Vec<i32> = (0..3).map(|_| all.recv().unwrap()).collect();
        others.sort_unstable();
        assert_eq!(others, [0, 1, 2]);
    }
}
