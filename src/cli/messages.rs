//! Messages on standard error.
//!
//! What a daemon has to say can depend on what others do: somebody reads a damaged file over and over. So each warning and
//! error of a daemon is said once a minute, with the number of those that were left out, and of different ones so
//! many; and its log is moved away when it has become long, so that no more than two pieces of it are ever there.

use super::log_file::{LOG_BYTES_MAX, open_log};
use crate::media::Directory;
use crate::shown::line;
use env_logger::{Builder, Env, Logger};
use log::{Level, Log, Metadata, Record};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long a message is not said again.
pub const ROUND: Duration = Duration::from_secs(60);
/// Different messages in that time.
const TEXTS_MAX: usize = 200;

/// What a daemon has said; nothing in commands, which say all.
static SAID: OnceLock<Mutex<Said>> = OnceLock::new();
/// The store whose log standard error is.
static LOGS_OF: OnceLock<Arc<Directory>> = OnceLock::new();
/// Held by whoever moves the log.
static MOVING: Mutex<()> = Mutex::new(());

struct Messages(Logger);

/// Lets messages be heard, as PITFS_LOG says.
pub fn begin() {
    let logger = Builder::from_env(Env::new().filter_or("PITFS_LOG", "warn,fuser=error"))
        .format(|out, record| writeln!(out, "[{:<5}] {}", record.level(), line(&record.args().to_string())))
        .build();
    let most = logger.filter();
    if log::set_boxed_logger(Box::new(Messages(logger))).is_ok() {
        log::set_max_level(most);
    }
}

/// From now on nothing is said twice in a round; whoever says this begins the rounds, with [`Log::flush`].
pub fn limit() {
    SAID.get_or_init(Mutex::default);
}

/// Standard error is the log of this store.
pub fn go_to_log_of(store: &Arc<Directory>) {
    LOGS_OF.get_or_init(|| store.clone());
}

impl Log for Messages {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        // Who asks for more than warnings wants all of it.
        let is_limited = record.level() <= Level::Warn && self.0.matches(record);
        let said = SAID.get().filter(|_| is_limited);
        if said.is_none_or(|said| said.lock().is_due(record.level(), record.args().to_string())) {
            self.say(record);
        }
    }

    /// Ends a round, with what was left out in it.
    fn flush(&self) {
        let Some(said) = SAID.get() else { return };
        // The lock is not held while something is said.
        let said = std::mem::take(&mut *said.lock());
        for (level, text) in said.left_out() {
            self.say(&Record::builder().level(level).target("pitfs").args(format_args!("{text}")).build());
        }
    }
}

impl Messages {
    fn say(&self, record: &Record<'_>) {
        self.0.log(record);
        if let Some(store) = LOGS_OF.get()
            && let Err(error) = bound_log(store)
        {
            let text = format_args!("the log was not moved away: {error}");
            self.0.log(&Record::builder().level(Level::Warn).target("pitfs").args(text).build());
        }
    }
}

/// Begins the log anew if it is long.
fn bound_log(store: &Directory) -> std::io::Result<()> {
    let _moving = MOVING.lock();
    if rustix::fs::fstat(rustix::stdio::stderr())?.st_size as u64 > LOG_BYTES_MAX {
        rustix::stdio::dup2_stderr(open_log(store)?)?;
    }
    Ok(())
}

/// What was said in one round.
#[derive(Default)]
struct Said {
    /// How often each was left out.
    texts: HashMap<(Level, String), u64>,
    /// Others that were left out.
    others: u64,
}

impl Said {
    /// Whether a message is to be said.
    fn is_due(&mut self, level: Level, text: String) -> bool {
        let is_full = self.texts.len() >= TEXTS_MAX;
        match self.texts.get_mut(&(level, text.clone())) {
            Some(left_out) => *left_out += 1,
            None if is_full => self.others += 1,
            None => {
                self.texts.insert((level, text), 0);
                return true;
            }
        }
        false
    }

    /// Says what was left out, in words.
    fn left_out(self) -> impl Iterator<Item = (Level, String)> {
        let others = (self.others > 0)
            .then(|| (Level::Warn, format!("{} other messages were left out within a minute", self.others)));
        let again = self.texts.into_iter().filter(|(_, left_out)| *left_out > 0);
        again.map(|((level, text), left_out)| (level, format!("{left_out} times more: {text}"))).chain(others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_in_a_round_and_counted() {
        let mut said = Said::default();
        assert!(said.is_due(Level::Error, "a".into()));
        for _ in 0..7 {
            assert!(!said.is_due(Level::Error, "a".into()));
        }
        assert!(said.is_due(Level::Warn, "a".into()) && said.is_due(Level::Error, "b".into()));
        let left_out: Vec<_> = said.left_out().collect();
        assert_eq!(left_out, [(Level::Error, "7 times more: a".to_string())]);
        assert!(Said::default().is_due(Level::Error, "a".into()), "a new round");
    }

    #[test]
    fn different_messages_are_bounded_and_counted() {
        let mut said = Said::default();
        let due = (0..TEXTS_MAX + 50).filter(|i| said.is_due(Level::Warn, format!("message {i}"))).count();
        assert_eq!((due, said.texts.len()), (TEXTS_MAX, TEXTS_MAX));
        let left_out: Vec<_> = said.left_out().collect();
        assert_eq!(left_out, [(Level::Warn, "50 other messages were left out within a minute".to_string())]);
    }
}
