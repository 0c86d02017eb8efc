//! What is left out.

use crate::error::{Errno, Error, Result};
use crate::shown::shown;

/// A pattern of `--exclude`.
pub(super) struct Pattern {
    pattern: glob::Pattern,
    is_path: bool,
    is_directory: bool,
}

/// Bytes that are not UTF-8 as characters that no name has: those at the end of the last private plane.
fn text_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().filter_map(|byte| char::from_u32(0x10fe00 + u32::from(*byte))));
    }
    text
}

/// A class of characters that begins with `^` stands for all others, as one does that begins with `!`.
fn with_negations(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars().peekable();
    while let Some(char) = chars.next() {
        out.push(char);
        if char != '[' {
            continue;
        }
        if let Some(negation) = chars.next_if(|next| ['^', '!'].contains(next)) {
            out.push(if negation == '^' { '!' } else { negation });
        }
        // A bracket at the beginning is one of the characters.
        out.extend(chars.next_if_eq(&']'));
        while let Some(inside) = chars.next_if(|next| *next != ']') {
            out.push(inside);
        }
    }
    out
}

impl Pattern {
    /// With a slash it stands for a path, with one at its end for a directory.
    pub fn parse(given: &[u8]) -> Result<Pattern> {
        let text = text_of(given);
        let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        let trimmed = with_negations(&parts.join("/"));
        let wrong = |what: &str| Error::Refused(Errno::INVAL, format!("--exclude {}: {what}", shown(given)));
        if trimmed.is_empty() {
            return Err(wrong("it matches nothing; leave it away"));
        }
        if parts.contains(&"..") {
            return Err(wrong("it matches nothing, since it leads out of the source; give the path from the source"));
        }
        let pattern = glob::Pattern::new(&trimmed).map_err(|error| wrong(error.msg))?;
        Ok(Pattern { pattern, is_path: text.contains('/'), is_directory: text.ends_with('/') || text.ends_with("/.") })
    }

    /// Whether a path from the source's root matches, given if it is a directory's.
    pub fn matches(&self, relative: &[u8], is_directory: bool) -> bool {
        if self.is_directory && !is_directory {
            return false;
        }
        let name = match self.is_path {
            true => relative,
            false => relative.rsplit(|byte| *byte == b'/').next().unwrap_or_default(),
        };
        self.pattern.matches(&text_of(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &[u8], path: &[u8]) -> bool {
        Pattern::parse(pattern).unwrap().matches(path, false)
    }

    #[test]
    fn patterns_match_names_or_paths() {
        assert!(matches(b"*.o", b"a/b/c.o") && !matches(b"*.o", b"a/b/c.ox"));
        assert!(matches(b"target", b"a/target") && matches(b"/target", b"target") && !matches(b"/target", b"a/target"));
        assert!(matches(b"a/*/c", b"a/b/c") && !matches(b"a/c", b"b/a/c"));
        assert!(matches(b"cache/*", b"cache/a/b"));
        assert!(Pattern::parse(b"[").is_err() && Pattern::parse(b"").is_err() && Pattern::parse(b"/").is_err());
    }

    #[test]
    fn a_path_is_what_it_is_however_it_is_written() {
        for written in ["./a/b", "a//b", "/a/./b", "a/b/."] {
            assert!(Pattern::parse(written.as_bytes()).unwrap().matches(b"a/b", true), "{written}");
        }
        assert!(matches(b"./a", b"a") && !matches(b"./a", b"b/a"));
        assert!(Pattern::parse(b"../a").is_err() && Pattern::parse(b"a/../b").is_err());
        assert!(matches(b"[^s]*", b"a") && !matches(b"[^s]*", b"s") && !matches(b"[!s]*", b"s"));
        assert!(matches(b"x[[^]", b"x^") && matches(b"x[[^]", b"x[") && matches(b"[]^]", b"^"));
    }

    #[test]
    fn a_slash_at_the_end_stands_for_a_directory_below_the_source() {
        let pattern = Pattern::parse(b"build/").unwrap();
        assert!(pattern.matches(b"build", true));
        assert!(!pattern.matches(b"build", false) && !pattern.matches(b"a/build", true));
        assert!(Pattern::parse(b"a/*/").unwrap().matches(b"a/b", true));
    }

    #[test]
    fn names_that_are_not_utf_8_match_like_others() {
        assert!(matches(b"cache/*", b"cache/caf\xe9.tmp") && matches(b"*.tmp", b"x/caf\xe9.tmp"));
        assert!(matches(b"caf\xe9*", b"caf\xe9.tmp") && !matches(b"caf\xe9*", b"caf\xe8.tmp"));
        assert!(matches(b"caf?.tmp", b"caf\xe9.tmp") && matches(b"caf?.tmp", "café.tmp".as_bytes()));
        assert!(!matches(b"caf\xe9.tmp", "café.tmp".as_bytes()));
    }
}
