//! Time as a name: what stands behind `@` in `@2h`, and the TIME of `--at TIME`.
//!
//! | form | means |
//! |---|---|
//! | `90s` `30m` `2h` `1.5h` `3d` `2w` `6mo` `1y` `1d12h` `3 weeks ago` | that long before now |
//! | `now` `today` `yesterday` | now, the last midnight, `1d` |
//! | `10:00` `9:30:15` | today's, or yesterday's where today's is still to come |
//! | `2026-11-20` | that day's midnight |
//! | `2026-11-20T10:00` `2026-11-20_10:00:05.5+01:00` | that time; also with a space between, and with `Z` |
//! | `2026-11-20T22-42-10Z` | the name that a snapshot gets by itself |
//! | `2026-11-20 22:42:10 UTC` | as pitfs prints times |
//! | `GMT-2026.11.20-10.00.00` | as Samba names versions, in UTC |
//! | `1795000000` `1795000000.5` | seconds since 1970, nine digits at least |
//!
//! Rules:
//! - no text is two of these forms;
//! - a time with a fraction of a second is that instant, and so is one that is counted back from now; a time in whole
//!   seconds means up to the end of that second, one in minutes up to the end of that minute; a day, and `today`, mean its
//!   midnight, in seconds ([`parse_until`]);
//! - a text without an offset is local time: that of the process that is asked, by `TZ` or else `/etc/localtime`, which
//!   jiff looks at again every five minutes; a zone that is not known is UTC, as for date(1);
//! - years, months, weeks and days are those of the calendar, as for date(1): `1d` before 10:00 is 10:00 of the day
//!   before, though that may be 23 or 25 hours ago, and `1mo` before 31 March is the last of February;
//! - a local time that was skipped when clocks were set forward means as much later as was skipped (02:30 becomes
//!   03:30), and one that came twice means the first: RFC 5545, section 3.3.5.

use super::Timestamp;
use crate::error::{Errno, Error, Result};
use jiff::civil::{DateTime, Time};
use jiff::fmt::friendly::SpanParser;
use jiff::fmt::strtime;
use jiff::fmt::temporal::Pieces;
use jiff::tz::TimeZone;
use jiff::{ToSpan, Zoned};

const SNAPSHOT_NAME: &str = "%Y-%m-%dT%H-%M-%SZ";
const GMT_NAME: &str = "GMT-%Y.%m.%d-%H.%M.%S";

/// With fewer, digits are more likely a year or a day.
const SECONDS_DIGITS_MIN: usize = 9;
const NANOS_DIGITS: usize = 9;

/// To jiff a leap second is the one before it, and an offset may be longer than a day.
const LEAP_SECOND: &str = ":60";
const DAY_SECONDS: i32 = 24 * 60 * 60;

/// The time that a text means, as the table above has it. INVAL where it means none, or one that is too far away.
pub fn parse_when(text: &str, now: Timestamp) -> Result<Timestamp> {
    parse_in(text, now, &TimeZone::system()).ok_or_else(|| {
        let message = format!(
            "{text:?} is no time; times are written like 2h, 1d12h, 3weeks, 2mo, now, today, yesterday, 10:00, \
             2026-11-20, 2026-11-20T10:00, 2026-11-20T10:00:00+01:00, 2026-11-20T22-42-10Z, \
             GMT-2026.11.20-10.00.00 or 1795000000"
        );
        Error::Refused(Errno::INVAL, message)
    })
}

/// The last moment that is not after a time given as text: what is given in seconds or minutes lasts that long.
pub fn parse_until(text: &str, now: Timestamp) -> Result<Timestamp> {
    let time = parse_when(text, now)?;
    Ok(match unit(text) {
        Unit::Instant => time,
        Unit::Second => time.end_of_second(),
        Unit::Minute => Timestamp { seconds: time.seconds.saturating_add(59), ..time }.end_of_second(),
    })
}

/// How exactly a time is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Instant,
    Second,
    Minute,
}

/// The unit of a text that means a time.
fn unit(text: &str) -> Unit {
    let is_date = text.as_bytes().get(4) == Some(&b'-');
    let is_from_now = !is_date && !text.contains(':') && !text.bytes().all(|byte| byte.is_ascii_digit());
    if text != "today" && is_from_now && !text.starts_with("GMT-") {
        return Unit::Instant;
    }
    // Behind the date, and before an offset.
    let time = if is_date { text.get("2026-11-20T".len()..).unwrap_or_default() } else { text };
    let time = time.split(['Z', '+', '-', ' ']).next().unwrap_or_default();
    match time.matches(':').count() {
        _ if time.contains(['.', ',']) && !text.starts_with("GMT-") => Unit::Instant,
        1 => Unit::Minute,
        _ => Unit::Second,
    }
}

fn parse_in(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let now = jiff::Timestamp::try_from(now).ok()?.to_zoned(zone.clone());
    let found = match text {
        "now" => now.timestamp(),
        "today" => now.start_of_day().ok()?.timestamp(),
        "yesterday" => now.checked_sub(1.day()).ok()?.timestamp(),
        _ => seconds(text)
            .or_else(|| in_utc(SNAPSHOT_NAME, text))
            .or_else(|| in_utc(GMT_NAME, text))
            .or_else(|| clock_time(text, &now))
            .or_else(|| before(text, &now))
            .or_else(|| date(text, zone))?,
    };
    Some(found.into())
}

fn seconds(text: &str) -> Option<jiff::Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() < SECONDS_DIGITS_MIN || !is_number(whole) || !is_number(fraction) || fraction.len() > NANOS_DIGITS {
        return None;
    }
    jiff::Timestamp::new(whole.parse().ok()?, format!("{fraction:0<NANOS_DIGITS$}").parse().ok()?).ok()
}

/// A time that is written in just this way; jiff reads more than it writes.
fn in_utc(pattern: &str, text: &str) -> Option<jiff::Timestamp> {
    let found = at(strtime::parse(pattern, text).ok()?.to_datetime().ok()?, &TimeZone::UTC)?;
    (found.strftime(pattern).to_string() == text).then_some(found)
}

fn at(time: DateTime, zone: &TimeZone) -> Option<jiff::Timestamp> {
    zone.to_ambiguous_timestamp(time).compatible().ok()
}

/// `10:00`: today's, or yesterday's where today's is still to come.
fn clock_time(text: &str, now: &Zoned) -> Option<jiff::Timestamp> {
    // jiff would take an offset and pay no heed to it.
    if text.contains(LEAP_SECOND) || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':' || byte == b'.') {
        return None;
    }
    let hour = text.find(':')?;
    let time: Time = if hour == 1 { format!("0{text}").parse().ok()? } else { text.parse().ok()? };
    let today = at(now.date().to_datetime(time), now.time_zone())?;
    if today <= now.timestamp() {
        return Some(today);
    }
    at(now.date().yesterday().ok()?.to_datetime(time), now.time_zone())
}

/// `1d12h`, `2 hours ago`: a span that ends now.
fn before(text: &str, now: &Zoned) -> Option<jiff::Timestamp> {
    // A sign would leave open which way it points, and to jiff 10:00:00 is a span as well.
    if !text.starts_with(|first: char| first.is_ascii_digit()) || text.contains(':') {
        return None;
    }
    let span = SpanParser::new().parse_span(text).ok()?;
    Some(now.checked_sub(span.abs()).ok()?.timestamp())
}

/// `2026-11-20`, alone or with a time of day and an offset.
fn date(text: &str, zone: &TimeZone) -> Option<jiff::Timestamp> {
    const DATE: usize = "2026-11-20".len();
    const HOUR: usize = "T10".len();
    // jiff knows more forms: years of six digits, dates without hyphens, zones in brackets and times without colons,
    // of which T10-05 looks like five past ten and is ten o'clock at an offset.
    let (day, rest) = text.split_at_checked(DATE)?;
    let has_colon = rest.is_empty() || rest.as_bytes().get(HOUR) == Some(&b':');
    if day.as_bytes().get(4) != Some(&b'-') || rest.contains('[') || rest.contains(LEAP_SECOND) || !has_colon {
        return None;
    }
    let rest = rest.strip_prefix('_').map_or(rest.into(), |time| format!("T{time}"));
    let rest = rest.strip_suffix(" UTC").map_or(rest.clone(), |time| format!("{time}Z"));
    let whole = format!("{day}{rest}");
    let pieces = Pieces::parse(&whole).ok()?;
    let time = pieces.date().to_datetime(pieces.time().unwrap_or(Time::midnight()));
    match pieces.to_numeric_offset() {
        Some(offset) if offset.seconds().abs() >= DAY_SECONDS => None,
        Some(offset) => offset.to_timestamp(time).ok(),
        None => at(time, zone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    /// Central European time, without asking for a database.
    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    /// A time in UTC, as jiff reads it.
    fn utc(text: &str) -> Timestamp {
        text.parse::<jiff::Timestamp>().unwrap().into()
    }

    /// Compares what texts mean at 2026-11-20 10:30:00 in Berlin.
    fn means(cases: &[(&str, &str)]) {
        let now = utc("2026-11-20T09:30:00Z");
        for (text, wanted) in cases {
            assert_eq!(parse_in(text, now, &berlin()), Some(utc(wanted)), "{text}");
        }
    }

    #[test]
    fn spans_go_back_from_now() {
        means(&[
            ("0s", "2026-11-20T09:30:00Z"),
            ("90s", "2026-11-20T09:28:30Z"),
            ("30m", "2026-11-20T09:00:00Z"),
            ("30min", "2026-11-20T09:00:00Z"),
            ("2h", "2026-11-20T07:30:00Z"),
            ("2hours", "2026-11-20T07:30:00Z"),
            ("2 hours ago", "2026-11-20T07:30:00Z"),
            ("3 weeks ago", "2026-10-30T09:30:00Z"),
            ("1.5h", "2026-11-20T08:00:00Z"),
            ("3d", "2026-11-17T09:30:00Z"),
            ("3days", "2026-11-17T09:30:00Z"),
            ("1d12h", "2026-11-18T21:30:00Z"),
            ("2w", "2026-11-06T09:30:00Z"),
            ("36h", "2026-11-18T21:30:00Z"),
        ]);
    }

    #[test]
    fn years_months_and_days_are_those_of_the_calendar() {
        // Summer time: the same clock time is another time of UTC.
        means(&[
            ("1mo", "2026-10-20T08:30:00Z"),
            ("5months", "2026-06-20T08:30:00Z"),
            ("1y", "2025-11-20T09:30:00Z"),
            ("4w", "2026-10-23T08:30:00Z"),
            ("672h", "2026-10-23T09:30:00Z"),
        ]);
        let march = utc("2026-03-31T10:00:00Z");
        assert_eq!(parse_in("1mo", march, &TimeZone::UTC), Some(utc("2026-02-28T10:00:00Z")));
    }

    #[test]
    fn words_and_clock_times_are_local() {
        means(&[
            ("now", "2026-11-20T09:30:00Z"),
            ("today", "2026-11-19T23:00:00Z"),
            ("yesterday", "2026-11-19T09:30:00Z"),
            ("10:00", "2026-11-20T09:00:00Z"),
            ("9:30:15", "2026-11-20T08:30:15Z"),
            ("10:30", "2026-11-20T09:30:00Z"),
            ("10:30:00.5", "2026-11-19T09:30:00.5Z"),
            ("23:59", "2026-11-19T22:59:00Z"),
            ("00:00", "2026-11-19T23:00:00Z"),
        ]);
    }

    #[test]
    fn dates_are_local_unless_they_say_otherwise() {
        means(&[
            ("2026-11-20", "2026-11-19T23:00:00Z"),
            ("2026-06-01", "2026-05-31T22:00:00Z"),
            ("2026-11-20T10:00", "2026-11-20T09:00:00Z"),
            ("2026-11-20 10:00:01", "2026-11-20T09:00:01Z"),
            ("2026-11-20_10:00:01.25", "2026-11-20T09:00:01.25Z"),
            ("2026-11-20T10:00Z", "2026-11-20T10:00:00Z"),
            ("2026-11-20T10:00:00+03:00", "2026-11-20T07:00:00Z"),
            ("2026-11-20_10:00:00-0330", "2026-11-20T13:30:00Z"),
            ("2026-11-20 22:42:10 UTC", "2026-11-20T22:42:10Z"),
            ("1969-12-31T23:59:59.75Z", "1969-12-31T23:59:59.75Z"),
            ("2126-11-20T10:00Z", "2126-11-20T10:00:00Z"),
            ("2026-11-20T10:00+23:59", "2026-11-19T10:01:00Z"),
        ]);
    }

    #[test]
    fn names_and_numbers_are_utc() {
        means(&[
            ("2026-11-20T22-42-10Z", "2026-11-20T22:42:10Z"),
            ("GMT-2026.11.20-10.00.00", "2026-11-20T10:00:00Z"),
            ("1795000000", "2026-11-18T11:06:40Z"),
            ("100000000", "1973-03-03T09:46:40Z"),
            ("1795000000.5", "2026-11-18T11:06:40.5Z"),
            ("1795000000.000000001", "2026-11-18T11:06:40.000000001Z"),
        ]);
    }

    #[test]
    fn where_clocks_are_set_a_time_is_still_one() {
        let now = utc("2026-12-01T00:00:00Z");
        let berlin = |text| parse_in(text, now, &berlin());
        assert_eq!(berlin("2026-03-29T02:30"), Some(utc("2026-03-29T01:30:00Z")), "skipped");
        assert_eq!(berlin("2026-10-25T02:30"), Some(utc("2026-10-25T00:30:00Z")), "there twice");
        // Clocks that are set forward at midnight: the day begins at 01:00.
        let zone = TimeZone::posix("<-04>4<-03>,M9.1.0/0,M4.1.0/0").unwrap();
        let spring = utc("2026-09-06T12:00:00Z");
        assert_eq!(parse_in("today", spring, &zone), Some(utc("2026-09-06T04:00:00Z")));
        assert_eq!(parse_in("2026-09-06", spring, &zone), Some(utc("2026-09-06T04:00:00Z")));
    }

    #[test]
    fn a_day_back_is_the_same_clock_time_and_24_hours_are_24_hours() {
        let noon = utc("2026-03-29T10:00:00Z");
        for text in ["1d", "yesterday"] {
            assert_eq!(parse_in(text, noon, &berlin()), Some(utc("2026-03-28T11:00:00Z")), "{text}");
        }
        assert_eq!(parse_in("24h", noon, &berlin()), Some(utc("2026-03-28T10:00:00Z")));
    }

    #[test]
    fn what_is_no_time_is_refused_with_examples() {
        let wrong = [
            "",
            " ",
            "@2h",
            "-2h",
            "+2h",
            "2",
            "20261120",
            "2026",
            "2026-11",
            "2026-02-30",
            "2026-11-20T25:00",
            "2026-11-20T10",
            "2026-11-20T10-05",
            "2026-11-20T1000",
            "2026-11-20T22-42-10",
            "2026-11-20+01:00",
            "2026-1-20T22-42-10Z",
            "2026-11-20T10:00[Europe/Berlin]",
            "2026-11-20T10:00+99:00",
            "2026-11-20T10:00+24:00",
            "2026-11-20T10:00-25:00",
            "2026-11-20T10:00:60",
            "2026-11-20T10:00:60Z",
            "2026-11-20T10:00:60.5+01:00",
            "2026-11-20 10:00:60 UTC",
            "2026-11-20T22-42-60Z",
            "GMT-2026.11.20-10.00.60",
            "10:00:60",
            "1795000000.",
            "1795000000.0000000001",
            "17950000.5",
            "26-11-20",
            "10:00Z",
            "10:00+01:00",
            "24:00",
            ":",
            "ago",
            "2 fortnights",
            "2h nonsense",
            "2M",
            "2h1d",
            "tomorrow",
            "GMT-2026.13.20-10.00.00",
            "99999y",
            "99999999999999999999y",
            "9223372036854775807s",
            "9999999999999999999999999",
            "253402300800",
            "２h",
            "2026‐11‐20",
        ];
        for text in wrong {
            match parse_when(text, Timestamp { seconds: 1_795_000_000, nanos: 0 }) {
                Err(Error::Refused(Errno::INVAL, message)) => {
                    assert!(message.contains(&format!("{text:?}")) && message.contains("1d12h"), "{message}");
                }
                other => panic!("{text:?} gives {other:?}"),
            }
        }
    }

    #[test]
    fn a_time_lasts_as_long_as_the_unit_it_is_given_in() {
        let now = Timestamp { seconds: 1_795_000_000, nanos: 5 };
        let lasts = |text: &str| {
            let (from, to) = (parse_when(text, now).unwrap(), parse_until(text, now).unwrap());
            (to.seconds - from.seconds, to.nanos.wrapping_sub(from.nanos))
        };
        for text in [
            "2026-11-20T10:00:00.25",
            "2026-11-20_10:00:00.5+01:00",
            "2026-11-20 10:00:00.0",
            "10:00:00.5",
            "1795000000.5",
            "now",
            "2h",
            "90s",
            "1.5h",
            "1d12h",
            "3 weeks ago",
            "yesterday",
            "2026-11-20T10:00:00,5Z",
        ] {
            if parse_when(text, now).is_ok() {
                assert_eq!(lasts(text), (0, 0), "{text}");
            }
        }
        for text in [
            "2026-11-20T10:00:00",
            "2026-11-20 10:00:00 UTC",
            "2026-11-20T10:00:00-03:30",
            "2026-11-20T22-42-10Z",
            "GMT-2026.11.20-10.00.00",
            "1795000000",
            "9:30:15",
            "2026-11-20",
            "today",
        ] {
            assert_eq!(lasts(text), (0, 999_999_999), "{text}");
        }
        for text in
            ["2026-11-20T10:00", "2026-11-20 10:00Z", "2026-11-20_10:00+01:00", "2026-11-20T10:00-0330", "10:00"]
        {
            assert_eq!(lasts(text), (59, 999_999_999), "{text}");
        }
    }

    #[test]
    fn no_clock_is_too_wrong() {
        for seconds in [i64::MIN, -(1 << 40), 1 << 40, i64::MAX] {
            for text in ["now", "today", "1y", "10:00", "2026-11-20"] {
                assert_eq!(parse_in(text, Timestamp { seconds, nanos: u32::MAX }, &berlin()), None);
            }
        }
    }

    fn date_says(text: &str) -> Option<i64> {
        let output = Command::new("date").args(["-d", text, "+%s"]).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    }

    #[test]
    fn the_local_zone_is_that_of_date() {
        for text in ["2026-01-20 10:00", "2026-07-20 10:00", "1995-07-20", "2026-11-20 10:00:07"] {
            // Without date(1) there is nothing to compare with.
            if let Some(seconds) = date_says(text) {
                assert_eq!(parse_when(text, Timestamp::now()).unwrap(), Timestamp { seconds, nanos: 0 }, "{text}");
            }
        }
    }

    #[test]
    fn the_local_zone_is_that_of_tz_and_without_it_of_etc_localtime() {
        let zones = ["America/New_York", ":Asia/Kolkata", "NZST-12NZDT,M9.5.0,M4.1.0/3", "", "UTC", "no/such/zone"];
        for zone in zones.map(Some).into_iter().chain([None]) {
            let mut again = Command::new(std::env::current_exe().unwrap());
            again.args(["--exact", "clock::when::tests::the_local_zone_is_that_of_date"]).env_remove("TZ");
            let output = again.envs(zone.map(|zone| ("TZ", zone))).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{zone:?}: {output:?}");
        }
    }

    /// Bits of times, so that random texts come close to being some.
    const BITS: &str = "(now|ago|today|GMT-|Z|T|_| |:|-|\\.|\\+|[0-9]{1,4}|[0-9]{9,20}|s|m|h|d|w|mo|y|é|[a-z]){0,12}";

    /// The seconds that jiff counts, and that with which the year 1 begins.
    const FIRST: i64 = -377_705_023_201;
    const YEAR_1: i64 = -62_135_596_800;
    const LAST: i64 = 253_402_207_199;

    proptest! {
        #[test]
        fn no_text_ends_in_a_panic(any in ".*", bits in BITS, seconds: i64, nanos: u32) {
            for text in [any, bits] {
                let _time_or_none = parse_in(&text, Timestamp { seconds, nanos }, &berlin());
                let _time_or_none = parse_in(&text, Timestamp { seconds: seconds % (1 << 38), nanos: 0 }, &berlin());
            }
        }

        #[test]
        fn names_of_times_mean_these_times(seconds in YEAR_1..=LAST, nanos in 0u32..1_000_000_000) {
            let whole = Timestamp { seconds, nanos: 0 };
            let time = Timestamp { seconds, nanos };
            let now = Timestamp::default();
            let gmt_name = time.as_gmt_name();
            prop_assert_eq!(parse_in(gmt_name.strip_prefix('@').unwrap(), now, &berlin()), Some(whole));
            prop_assert_eq!(parse_in(&time.as_name(), now, &berlin()), Some(whole));
            prop_assert_eq!(parse_in(&time.as_text(), now, &berlin()), Some(whole));
        }

        #[test]
        fn the_way_through_jiff_changes_no_time(seconds in FIRST..=LAST, nanos in 0u32..1_000_000_000) {
            let time = Timestamp { seconds, nanos };
            prop_assert_eq!(Timestamp::from(jiff::Timestamp::try_from(time).unwrap()), time);
        }
    }
}
