//! What a finished change says: which names, inodes and views are not what they were. Whoever shows the store to others,
//! as a mount does to its kernel, is told by this and by nothing else.
//!
//! ```text
//! operation ──finish──▶ published ──▶ told, by a thread of the front, as things are then
//! ```
//!
//! Invariants:
//! - nothing is published under a lock of this layer, and publishing waits for nobody;
//! - what a front changes itself, on a thread that says so ([`silently`]), it knows: that is not published;
//! - whoever has changed something can wait until all of it was told ([`Feed::wait`]).

use super::past::{BaseId, Shown};
use crate::error::Result;
use crate::meta::Table;
use parking_lot::RwLock;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

/// One thing that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    Shown(Shown),
    /// A record of a tree as it is now, and its value before.
    Record {
        table: Table,
        key: Vec<u8>,
        before: Option<Vec<u8>>,
    },
}

/// What comes to a front.
pub enum News {
    /// What one operation changed.
    Changed(Vec<Changed>),
    /// What an operation of the front's own did to whole trees: nobody needs to be told.
    Known(Vec<BaseId>),
    /// Somebody waits until all before this was told.
    Waits(Sender<()>),
}

/// Whether the front may have to be told: what nobody outside can know of is nobody's news. Called with no lock held.
pub type Concerns = Arc<dyn Fn(&Changed) -> bool + Send + Sync>;

/// Has what a front keeps, and the store has not, written to the store.
pub type Fetch = Arc<dyn Fn() -> Result<()> + Send + Sync>;

struct Front {
    news: Sender<News>,
    fetch: Fetch,
    concerns: Concerns,
}

/// Who is told.
#[derive(Default)]
pub struct Feed {
    front: RwLock<Option<Front>>,
    has_front: AtomicBool,
}

/// What users have written so far is in the store: what can be kept of a tree, or compared with it, is all there.
#[derive(Clone, Copy, Debug)]
pub struct Fetched(());

thread_local! {
    static IS_SILENT: Cell<bool> = const { Cell::new(false) };
}

/// Says, as long as it is there, whether changes of this thread are published.
struct Mode(bool);

impl Mode {
    fn set(is_silent: bool) -> Mode {
        Mode(IS_SILENT.replace(is_silent))
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        IS_SILENT.set(self.0);
    }
}

/// Does something for a front, which knows what changes by it.
pub fn silently<R>(work: impl FnOnce() -> R) -> R {
    let _mode = Mode::set(true);
    work()
}

/// Does something that a front did not ask for, on whatever thread.
pub fn aloud<R>(work: impl FnOnce() -> R) -> R {
    let _mode = Mode::set(false);
    work()
}

impl Feed {
    /// Has a front told from now on. There is one at a time.
    pub fn subscribe(&self, fetch: Fetch, concerns: Concerns) -> Receiver<News> {
        let (news, receiver) = channel();
        *self.front.write() = Some(Front { news, fetch, concerns });
        self.has_front.store(true, Ordering::Release);
        receiver
    }

    /// The front is gone.
    pub fn unsubscribe(&self) {
        self.has_front.store(false, Ordering::Release);
        *self.front.write() = None;
    }

    /// Whether what this thread changes is told to somebody.
    pub fn is_told(&self) -> bool {
        self.has_front.load(Ordering::Acquire) && !IS_SILENT.get()
    }

    pub fn publish(&self, changes: Vec<Changed>) {
        if changes.is_empty() || !self.has_front.load(Ordering::Acquire) {
            return;
        }
        if !IS_SILENT.get() {
            let Some(concerns) = self.front.read().as_ref().map(|front| front.concerns.clone()) else { return };
            let changes: Vec<Changed> = changes.into_iter().filter(|change| concerns(change)).collect();
            if !changes.is_empty() {
                self.send(News::Changed(changes));
            }
            return;
        }
        let tree = |change| match change {
            Changed::Shown(Shown::Tree { id, .. }) => Some(id),
            _ => None,
        };
        let trees: Vec<BaseId> = changes.into_iter().filter_map(tree).collect();
        if !trees.is_empty() {
            self.send(News::Known(trees));
        }
    }

    /// Waits until all that was published was told. Nothing is held that a front may wait for.
    pub fn wait(&self) {
        let (done, waits) = channel();
        self.send(News::Waits(done));
        // It is dropped unused where nobody is told any more.
        waits.recv().unwrap_or_default();
    }

    fn send(&self, news: News) {
        if let Some(front) = &*self.front.read() {
            // A front whose thread has ended tells nobody.
            drop(front.news.send(news));
        }
    }

    /// Has what users have written, and only the front has, written to the store, unless the front sees to that itself.
    /// The caller holds no lock.
    pub fn fetch(&self) -> Result<Fetched> {
        // Not under the lock, which a front that ends wants.
        let fetch = self.front.read().as_ref().filter(|_| self.is_told()).map(|front| front.fetch.clone());
        if let Some(fetch) = fetch {
            fetch()?;
        }
        Ok(Fetched(()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::LIVE;
    use super::*;

    fn change() -> Vec<Changed> {
        vec![Changed::Shown(Shown::Tree { id: LIVE, names: Vec::new(), of: None })]
    }

    #[test]
    fn a_front_is_told_of_what_it_did_not_do_itself() {
        let feed = Feed::default();
        feed.publish(change());
        let news = feed.subscribe(Arc::new(|| Ok(())), Arc::new(|_| true));
        silently(|| {
            feed.publish(change());
            aloud(|| feed.publish(change()));
            feed.publish(change());
        });
        assert!(matches!(news.try_recv(), Ok(News::Known(trees)) if trees == [LIVE]));
        assert!(matches!(news.try_recv(), Ok(News::Changed(told)) if told == change()));
        assert!(matches!(news.try_recv(), Ok(News::Known(_))));
        assert!(news.try_recv().is_err());
        feed.publish(change());
        assert!(news.try_recv().is_ok());
        feed.unsubscribe();
        feed.publish(change());
        feed.wait();
        assert!(news.try_recv().is_err());
    }

    #[test]
    fn who_waits_waits_for_all_that_came_before() {
        let feed = Feed::default();
        let news = feed.subscribe(Arc::new(|| Ok(())), Arc::new(|_| true));
        std::thread::scope(|scope| {
            feed.publish(change());
            let told = scope.spawn(move || {
                let first = matches!(news.recv(), Ok(News::Changed(_)));
                match news.recv() {
                    Ok(News::Waits(done)) => first && done.send(()).is_ok(),
                    _ => false,
                }
            });
            feed.wait();
            assert!(told.join().unwrap());
        });
    }
}
