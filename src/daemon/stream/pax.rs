//! The records that an extended header of a tar archive has: `LENGTH KEY=VALUE\n`, as pax(1) describes them.

use crate::clock::Timestamp;
use std::ops::Range;

pub const XATTR: &[u8] = b"SCHILY.xattr.";

/// Adds a record.
pub fn push(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The length counts its own digits.
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    records.extend(format!("{len} ").bytes());
    records.extend([key, b"=", value, b"\n"].concat());
}

/// The name of an xattr in a key, where `=` would end it.
pub fn escaped(name: &[u8]) -> Vec<u8> {
    let escape = |byte: &u8| match byte {
        b'%' => b"%25".to_vec(),
        b'=' => b"%3D".to_vec(),
        byte => vec![*byte],
    };
    name.iter().flat_map(escape).collect()
}

pub fn unescaped(key: &[u8]) -> Vec<u8> {
    let (mut name, mut rest) = (Vec::new(), key);
    while let Some((first, behind)) = rest.split_first() {
        (rest, _) = match rest {
            [b'%', b'2', b'5', more @ ..] => (more, name.push(b'%')),
            [b'%', b'3', b'D', more @ ..] => (more, name.push(b'=')),
            _ => (behind, name.push(*first)),
        };
    }
    name
}

/// A time as text: seconds since 1970, with a fraction.
pub fn time_text(time: Timestamp) -> String {
    match (time.seconds, time.nanos) {
        (seconds, 0) => seconds.to_string(),
        (seconds, nanos) if seconds >= 0 => format!("{seconds}.{nanos:09}"),
        // -1.75 is 0.25 s after -2.
        (seconds, nanos) => {
            let (whole, rest) = (seconds + 1, 1_000_000_000 - nanos);
            format!("-{}.{rest:09}", -whole)
        }
    }
}

/// A number in digits.
pub fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

pub fn time(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds: i64 = Some(whole).filter(|whole| is_digits(whole))?.parse().ok()?;
    if !is_digits(fraction) {
        return None;
    }
    let fraction: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = fraction.parse().ok()?;
    Some(match (sign, nanos) {
        (1, nanos) => Timestamp { seconds, nanos },
        (_, 0) => Timestamp { seconds: -seconds, nanos: 0 },
        (_, nanos) => Timestamp { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}

/// The map in front of the data of a file with holes, as GNU tar 1.0 has it: how many pieces there are, and where each begins
/// and how long it is, in lines, filled up to blocks of 512 bytes.
pub fn sparse_map(pieces: &[Range<u64>]) -> Vec<u8> {
    let mut map = format!("{}\n", pieces.len());
    for piece in pieces {
        map.push_str(&format!("{}\n{}\n", piece.start, piece.end - piece.start));
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(512), 0);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        let mut records = Vec::new();
        push(&mut records, b"path", b"a");
        assert_eq!(records, b"9 path=a\n");
        for len in [80, 88, 89, 90, 91, 95, 990, 1000] {
            let mut records = Vec::new();
            push(&mut records, b"k", &vec![b'x'; len]);
            let said: usize = std::str::from_utf8(&records).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, records.len());
        }
    }

    #[test]
    fn times_come_back_as_they_were() {
        for (seconds, nanos) in [(0, 0), (5, 1), (5, 500_000_000), (-1, 250_000_000), (-7, 0), (-7, 999_999_999)] {
            let then = Timestamp { seconds, nanos };
            assert_eq!(time(time_text(then).as_bytes()), Some(then), "{}", time_text(then));
        }
        assert_eq!(time(b"1.5"), Some(Timestamp { seconds: 1, nanos: 500_000_000 }));
        for wrong in [&b"x"[..], b"--9223372036854775808", b"+1", b"1.-5", b""] {
            assert_eq!(time(wrong), None);
        }
        assert_eq!(unescaped(&escaped(b"user.a=b%25")), b"user.a=b%25");
    }

    #[test]
    fn a_map_fills_blocks() {
        let map = sparse_map(&[0..10, 100..612]);
        assert!(map.starts_with(b"2\n0\n10\n100\n512\n\0") && map.len() == 512);
    }
}
