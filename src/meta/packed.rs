//! Numbers and keys as they lie in increments and sets: packed one behind the other.

/// A number in groups of seven bits, the lowest first; the high bit of a byte says that another follows.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The number at a place, which moves behind it.
pub fn take_number(bytes: &[u8], at: &mut usize) -> Result<u64, String> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = *bytes.get(*at).ok_or("it ends within a number")?;
        *at += 1;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            break;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err("it has a number of more than 64 bits".into())
}

/// Bytes at a place, which moves behind them.
pub fn take_bytes<'a>(bytes: &'a [u8], at: &mut usize, len: u64) -> Result<&'a [u8], String> {
    let rest = bytes.get(*at..).unwrap_or_default();
    match usize::try_from(len).ok().and_then(|len| rest.get(..len)) {
        Some(found) => {
            *at += found.len();
            Ok(found)
        }
        None => Err(format!("{len} bytes are said to follow at {at}, and {} do", rest.len())),
    }
}

/// A key as the part that it shares with the one before, and its own.
pub fn put_key(out: &mut Vec<u8>, before: &[u8], key: &[u8]) {
    let shared = before.iter().zip(key).take_while(|(a, b)| a == b).count();
    put_number(out, shared as u64);
    put_number(out, (key.len() - shared) as u64);
    out.extend_from_slice(&key[shared..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_none_has_more_than_64_bits() {
        for number in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::MAX >> 1, u64::MAX] {
            let mut bytes = vec![9];
            put_number(&mut bytes, number);
            let mut at = 1;
            assert_eq!(take_number(&bytes, &mut at), Ok(number));
            assert_eq!(at, bytes.len());
            assert!(take_number(&bytes[..at - 1], &mut 1).is_err());
        }
        assert!(take_number(&[0xff; 20], &mut 0).is_err());
        assert!(take_number(&[&[0xff; 9][..], &[2]].concat(), &mut 0).is_err());
    }
}
