//! What can go wrong, in four families: the media failed, stored data is corrupt, the store or its
//! format cannot be used, or an operation was asked for that the file system's rules refuse.

use std::fmt;
use std::io;

/// A POSIX error number, kept apart from its transport.
pub type Errno = rustix::io::Errno;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything a layer can report to the one above.
#[derive(Debug)]
pub enum Error {
    /// Reading, writing or syncing the media failed.
    Media { what: String, source: io::Error },
    /// Bytes that were stored came back different, or two records contradict each other.
    Corrupt { object: String, problem: String },
    /// The store cannot be used as it is: missing, of a newer format, in use, not a store.
    Store(String),
    /// What was looked at is gone: a base, a snapshot, or an inode at a moment.
    Gone,
    /// Bytes that have no place in the store, since only an archive or memory has them: nothing can share it.
    Unshared,
    /// An operation that a file system refuses, with the number the caller will see.
    Posix(Errno),
    /// A request of the user that cannot be carried out, in words.
    Refused(Errno, String),
    /// A command that makes no sense, whatever there is, in words.
    Usage(String),
    /// An earlier failure stopped all writing until the store is reopened.
    Stopped(String),
    /// A panic: this program is wrong, or did not expect what it read.
    Fault(String),
}

impl Error {
    pub fn media(what: impl Into<String>, source: io::Error) -> Error {
        Error::Media { what: what.into(), source }
    }

    pub fn corrupt(object: impl Into<String>, problem: impl Into<String>) -> Error {
        Error::Corrupt { object: object.into(), problem: problem.into() }
    }

    /// Runs something in a fault domain.
    pub fn of_panic<T>(action: impl FnOnce() -> Result<T>) -> Result<T> {
        crate::fault::contained(action).unwrap_or_else(|what| Err(Error::Fault(what)))
    }

    /// What a refusal is where only the words of the command are to blame.
    pub fn as_usage(self) -> Error {
        match self {
            Error::Refused(_, text) => Error::Usage(text),
            error => error,
        }
    }

    /// The one table from error to errno.
    pub fn errno(&self) -> Errno {
        match self {
            Error::Media { source, .. } => match Errno::from_io_error(source) {
                Some(Errno::NOSPC) => Errno::NOSPC,
                Some(Errno::DQUOT) => Errno::DQUOT,
                Some(_) | None => Errno::IO,
            },
            Error::Corrupt { .. } => Errno::IO,
            Error::Store(_) => Errno::IO,
            Error::Gone => Errno::STALE,
            Error::Unshared => Errno::XDEV,
            Error::Posix(errno) => *errno,
            Error::Refused(errno, _) => *errno,
            Error::Usage(_) => Errno::INVAL,
            Error::Stopped(_) => Errno::IO,
            Error::Fault(_) => Errno::IO,
        }
    }

    /// The number that a user of the command line is told, who asked for files outside the store as well: of what
    /// failed there, its own.
    pub fn cause(&self) -> Errno {
        match self {
            Error::Media { source, .. } => Errno::from_io_error(source).unwrap_or(Errno::IO),
            error => error.errno(),
        }
    }

    /// Whether what was looked at is gone, said in words or not.
    pub fn is_gone(&self) -> bool {
        matches!(self, Error::Gone | Error::Refused(Errno::STALE, _))
    }

    pub fn is_no_space(&self) -> bool {
        matches!(self.errno(), Errno::NOSPC | Errno::DQUOT)
    }

    /// Whether the media may only be read, or has no room.
    pub fn is_unwritable(&self) -> bool {
        let Error::Media { source, .. } = self else { return false };
        let errno = Errno::from_io_error(source);
        let refused = [Errno::ROFS, Errno::ACCESS, Errno::PERM, Errno::NOSPC, Errno::DQUOT];
        errno.is_some_and(|errno| refused.contains(&errno))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Media { what, source } => write!(f, "{what}: {source}"),
            Error::Corrupt { object, problem } => write!(f, "{object} is damaged: {problem}"),
            Error::Store(text) | Error::Refused(_, text) | Error::Usage(text) => f.write_str(text),
            Error::Gone | Error::Unshared | Error::Posix(_) => write!(f, "{}", io::Error::from(self.errno())),
            Error::Fault(what) => write!(f, "a fault in pitfs ended this: {what}"),
            Error::Stopped(why) => write!(
                f,
                "the store stopped writing after an earlier failure ({why}); unmount it, mend the cause and open it again"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Media { source, .. } => Some(source),
            Error::Corrupt { .. }
            | Error::Store(_)
            | Error::Gone
            | Error::Unshared
            | Error::Posix(_)
            | Error::Refused(..)
            | Error::Usage(_)
            | Error::Stopped(_)
            | Error::Fault(_) => None,
        }
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Error {
        Error::Posix(errno)
    }
}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Error {
        Error::Media { what: "input or output failed".into(), source }
    }
}
