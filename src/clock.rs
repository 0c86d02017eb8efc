//! The time of day, which nothing else in the crate asks for, and how times are written and read.

mod epoch;
mod files;
mod when;

pub use epoch::Epoch;
pub use files::FileClock;
pub use when::{parse_until, parse_when};

use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment in UTC: seconds since 1970 (negative before) and nanoseconds within that second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp {
    pub seconds: i64,
    #[serde(deserialize_with = "crate::limits::number::nanos")]
    pub nanos: u32,
}

impl Timestamp {
    /// The last moment of the same second.
    pub fn end_of_second(self) -> Timestamp {
        Timestamp { nanos: 999_999_999, ..self }
    }

    pub fn now() -> Timestamp {
        Timestamp::from(SystemTime::now())
    }

    /// `2026-11-20T22-42-10Z`: ISO 8601 with the colons replaced, so that it is a file name anywhere.
    pub fn as_name(self) -> String {
        self.format("%Y-%m-%dT%H-%M-%SZ")
    }

    /// `2026-11-20 22:42:10 UTC`
    pub fn as_text(self) -> String {
        self.format("%Y-%m-%d %H:%M:%S UTC")
    }

    /// `2026-11-20 22:42:10.5 UTC`; without a fraction at the beginning and at the end of a second.
    pub fn as_exact_text(self) -> String {
        match self.nanos {
            0 | 999_999_999 => self.as_text(),
            nanos => {
                let fraction = format!("{nanos:09}");
                let whole = self.as_text();
                format!("{}.{} UTC", whole.trim_end_matches(" UTC"), fraction.trim_end_matches('0'))
            }
        }
    }

    /// `@GMT-2026.11.20-22.42.10`, the form that Samba reads.
    pub fn as_gmt_name(self) -> String {
        self.format("@GMT-%Y.%m.%d-%H.%M.%S")
    }

    fn format(self, pattern: &str) -> String {
        match jiff::Timestamp::try_from(self) {
            Ok(moment) => moment.strftime(pattern).to_string(),
            Err(_) => format!("{}s", self.seconds),
        }
    }
}

/// A part of the calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Period {
    /// Which of its kind a time lies in.
    pub fn of(self, time: Timestamp) -> String {
        time.format(match self {
            Period::Hour => "%Y-%m-%d %H",
            Period::Day => "%Y-%m-%d",
            Period::Week => "%G week %V",
            Period::Month => "%Y-%m",
            Period::Year => "%Y",
        })
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Timestamp {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Timestamp { seconds: after.as_secs() as i64, nanos: after.subsec_nanos() },
            Err(before) => {
                let before = before.duration();
                let seconds = (before.as_secs() as i64).wrapping_neg();
                match before.subsec_nanos() {
                    0 => Timestamp { seconds, nanos: 0 },
                    nanos => Timestamp { seconds: seconds - 1, nanos: 1_000_000_000 - nanos },
                }
            }
        }
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> SystemTime {
        let moment = if time.seconds >= 0 {
            UNIX_EPOCH.checked_add(Duration::new(time.seconds as u64, time.nanos))
        } else {
            UNIX_EPOCH
                .checked_sub(Duration::from_secs(time.seconds.unsigned_abs()))
                .and_then(|whole| whole.checked_add(Duration::from_nanos(time.nanos.into())))
        };
        moment.unwrap_or(UNIX_EPOCH)
    }
}

/// Fails outside the years -9999 to 9999.
impl TryFrom<Timestamp> for jiff::Timestamp {
    type Error = jiff::Error;

    fn try_from(time: Timestamp) -> Result<jiff::Timestamp, jiff::Error> {
        jiff::Timestamp::new(time.seconds, i32::try_from(time.nanos).unwrap_or(i32::MAX))
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(moment: jiff::Timestamp) -> Timestamp {
        // Before 1970 jiff counts both downwards.
        let (seconds, nanos) = (moment.as_second(), moment.subsec_nanosecond());
        match u32::try_from(nanos) {
            Ok(nanos) => Timestamp { seconds, nanos },
            Err(_) => Timestamp { seconds: seconds - 1, nanos: 1_000_000_000 - nanos.unsigned_abs() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_survive_the_way_there_and_back() {
        for (seconds, nanos) in [(-1, 0), (-1, 1), (-2, 999_999_999), (0, 0), (0, 1), (1 << 33, 5), (-(1 << 33), 7)] {
            let time = Timestamp { seconds, nanos };
            assert_eq!(Timestamp::from(SystemTime::from(time)), time);
        }
    }

    #[test]
    fn names_have_no_colon_and_sort_by_time() {
        let early = Timestamp { seconds: 1_795_000_000, nanos: 0 };
        let late = Timestamp { seconds: 1_795_000_001, nanos: 0 };
        assert_eq!(early.as_name().len(), "2026-11-20T22-42-10Z".len());
        assert!(!early.as_name().contains(':') && early.as_name() < late.as_name());
    }
}
