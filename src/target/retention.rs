//! Which moments stay, and why: a rule over their times alone.

use crate::clock::{Period, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// How many are to stay: of the newest, and the newest of each of so many of the newest periods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    pub last: u64,
    pub hourly: u64,
    pub daily: u64,
    pub weekly: u64,
    pub monthly: u64,
    pub yearly: u64,
    /// All that are not older than so many seconds.
    pub within: Option<u64>,
}

impl Retention {
    fn periods(&self) -> [(Period, u64, &'static str); 5] {
        [
            (Period::Hour, self.hourly, "hourly"),
            (Period::Day, self.daily, "daily"),
            (Period::Week, self.weekly, "weekly"),
            (Period::Month, self.monthly, "monthly"),
            (Period::Year, self.yearly, "yearly"),
        ]
    }

    /// For each of some times, the oldest first, why it stays; nothing says that it goes. The newest stays always.
    pub fn reasons(&self, times: &[Timestamp], now: Timestamp) -> Vec<Vec<String>> {
        let mut reasons = vec![Vec::new(); times.len()];
        for (back, at) in (0..times.len()).rev().enumerate() {
            if (back as u64) < self.last {
                reasons[at].push("last".to_string());
            } else if back == 0 {
                reasons[at].push("newest".to_string());
            }
            if self.within.is_some_and(|within| now.seconds.saturating_sub(times[at].seconds) <= within as i64) {
                reasons[at].push("within".to_string());
            }
        }
        for (period, most, name) in self.periods() {
            let mut seen = HashSet::new();
            for at in (0..times.len()).rev() {
                if seen.len() as u64 == most {
                    break;
                }
                if seen.insert(period.of(times[at])) {
                    reasons[at].push(name.to_string());
                }
            }
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    /// The times that stay.
    fn kept(retention: Retention, times: &[i64], now: i64) -> Vec<i64> {
        let all: Vec<Timestamp> = times.iter().copied().map(at).collect();
        let reasons = retention.reasons(&all, at(now));
        times.iter().zip(reasons).filter(|(_, reasons)| !reasons.is_empty()).map(|(time, _)| *time).collect()
    }

    #[test]
    fn of_each_period_the_newest_stays() {
        const DAY: i64 = 86_400;
        let times: Vec<i64> = (0..60).flat_map(|day| [day * DAY + 10, day * DAY + 20]).collect();
        let none = Retention::default();
        assert_eq!(kept(none, &times, 60 * DAY), [59 * DAY + 20]);
        assert_eq!(kept(Retention { last: 3, ..none }, &times, 0), [58 * DAY + 20, 59 * DAY + 10, 59 * DAY + 20]);
        assert_eq!(kept(Retention { daily: 2, ..none }, &times, 0), [58 * DAY + 20, 59 * DAY + 20]);
        // The sixty days from 1 January 1970 on are in two months, and in one year.
        assert_eq!(kept(Retention { monthly: 9, ..none }, &times, 0), [30 * DAY + 20, 58 * DAY + 20, 59 * DAY + 20]);
        assert_eq!(kept(Retention { yearly: 9, ..none }, &times, 0), [59 * DAY + 20]);
        let within = Retention { within: Some(2 * DAY as u64), ..none };
        assert_eq!(kept(within, &times, 60 * DAY).len(), 4);
        // A clock that went back keeps what lies ahead of it.
        assert_eq!(kept(within, &times, 0).len(), times.len());
        assert!(kept(Retention { daily: 5, ..none }, &[], 0).is_empty());
        let all = Retention { daily: u64::MAX, hourly: u64::MAX, ..none };
        assert_eq!(kept(all, &times, 0).len(), 60);
    }

    #[test]
    fn what_stays_stays_when_it_is_decided_again() {
        let times: Vec<i64> = (0..500).map(|n| n * 40_000 + n % 7 * 1000).collect();
        let rule = Retention { last: 2, hourly: 5, daily: 7, weekly: 4, monthly: 6, yearly: 1, within: None };
        let first = kept(rule, &times, 0);
        assert_eq!(kept(rule, &first, 0), first);
    }
}
