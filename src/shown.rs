//! Names and paths as text for people: a terminal, a log, the history, an error.
//!
//! A name is bytes that somebody else chose. Whatever leaves the program as text passes one of these functions:
//!
//! - [`shown`], [`shown_path`] and [`shown_file`], for names and paths, where a text is put together;
//! - [`plain`] and [`line`], for whole texts, in the few functions that write them out, for what was forgotten before.
//!
//! What can be read stays as it is, in any script. What does something instead of being seen ([`is_hidden`]) is written
//! as an escape, and so is each byte that is not UTF-8: `\n`, `\r` and `\t`, `\x1b` for other ASCII and for bytes,
//! `\u{202e}` for the rest. A backslash of a name is doubled, so that two names are never shown the same; one of a whole text
//! is left alone, so that a text may pass more than once.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `1.5 GiB`; exact below one KiB.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Whether a character is none to be seen: it controls the terminal, turns the direction of writing, ends a line, or
/// has no width or is empty. Those that join letters or choose their form, of which scripts and emoji have need, are not
/// among them.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Bytes of a name or a path, to be shown; with `{:?}` in quotation marks.
#[derive(Clone, Copy)]
pub struct Shown<'a>(&'a [u8]);

/// A name or a path inside the store.
pub fn shown(bytes: &[u8]) -> Shown<'_> {
    Shown(bytes)
}

/// A path from the root of a tree, which is `/` itself.
pub fn shown_path(path: &[u8]) -> Shown<'_> {
    Shown(if path.is_empty() { b"/" } else { path })
}

/// A path outside the store.
pub fn shown_file(path: &Path) -> Shown<'_> {
    Shown(path.as_os_str().as_bytes())
}

impl Shown<'_> {
    /// Writes it; what `is_marked` names gets a backslash before it.
    fn write(&self, f: &mut fmt::Formatter<'_>, is_marked: impl Fn(char) -> bool) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    _ if is_hidden(c) => write_escape(f, c)?,
                    _ if is_marked(c) => write!(f, "\\{c}")?,
                    _ => f.write_char(c)?,
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, |c| c == '\\')
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        self.write(f, |c| matches!(c, '\\' | '"'))?;
        f.write_char('"')
    }
}

fn write_escape(out: &mut impl Write, c: char) -> fmt::Result {
    match c {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        _ if c.is_ascii() => write!(out, "\\x{:02x}", u32::from(c)),
        _ => write!(out, "\\u{{{:x}}}", u32::from(c)),
    }
}

/// Text of any number of lines, without what would confuse a terminal.
pub fn plain(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_hidden(c) && !matches!(c, '\n' | '\t'))
}

/// Text that is to stay one line.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden)
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_escaped(c) {
            // A string takes everything.
            true => write_escape(&mut out, c).unwrap_or_default(),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that turns the direction of writing.
    const TURNING: &str =
        "\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}\u{200e}\u{200f}\u{61c}";

    #[test]
    fn odd_names_are_shown_escaped() {
        for (name, text) in [
            (&b"a\xff\n"[..], r"a\xff\n"),
            (b"\x1b]0;x\x07\x7f\r\t", r"\x1b]0;x\x07\x7f\r\t"),
            ("ä 文 \u{85}\u{9b}\u{202e}".as_bytes(), r"ä 文 \u{85}\u{9b}\u{202e}"),
            (b"a\\x1b \"b\"", r#"a\\x1b "b""#),
            (b"\xe2\x80", r"\xe2\x80"),
            (b"", ""),
        ] {
            assert_eq!(shown(name).to_string(), text);
        }
        assert_eq!(format!("{:?}", shown(b"a\\ \"b\" \xff")), r#""a\\ \"b\" \xff""#);
        assert_eq!(shown("क\u{200d}ष 👩\u{200d}🚀".as_bytes()).to_string(), "क\u{200d}ष 👩\u{200d}🚀");
    }

    #[test]
    fn two_names_are_never_shown_the_same() {
        let parts: [&[u8]; 8] = [b"\xff", b"\\xff", b"\\", b"\n", b"n", "\u{202e}".as_bytes(), b"\\u{202e}", b"\""];
        let mut seen = std::collections::BTreeMap::new();
        for (one, two) in parts.iter().flat_map(|one| parts.iter().map(move |two| (one, two))) {
            let name = [*one, *two].concat();
            for text in [shown(&name).to_string(), format!("{:?}", shown(&name))] {
                let before = seen.insert(text.clone(), name.clone());
                assert!(before.is_none_or(|before| before == name), "{text}");
            }
        }
    }

    #[test]
    fn whole_texts_keep_their_lines_and_pass_twice() {
        let text = format!("a\\b\tc\n\x1b[1m{TURNING}\r\n");
        let once = plain(&text).into_owned();
        assert!(once.starts_with("a\\b\tc\n\\x1b[1m\\u{202a}") && once.ends_with("\\u{61c}\\r\n"), "{once}");
        assert_eq!(plain(&once), once);
        assert_eq!(line("a\nb"), "a\\nb");
    }

    #[test]
    fn what_is_debugged_is_without_hidden_characters_too() {
        let all = (0..=u32::from(char::MAX)).filter_map(char::from_u32).filter(|c| is_hidden(*c));
        for c in all {
            let text = line(&format!("{:?}{:?}", c.to_string(), Path::new(&c.to_string()))).into_owned();
            assert!(!text.chars().any(is_hidden), "{text}");
        }
        assert!(TURNING.chars().all(is_hidden));
    }
}
