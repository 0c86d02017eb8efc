//! What is left out.

use crate::error::{Errno, Error, Result};
use std::path::Path;

/// A pattern of `--exclude`.
pub(super) struct Pattern {
    pattern: glob::Pattern,
    is_path: bool,
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Pattern> {
        let trimmed = text.trim_matches('/');
        let pattern = glob::Pattern::new(trimmed)
            .map_err(|error| Error::Refused(Errno::INVAL, format!("--exclude {text}: {}", error.msg)))?;
        Ok(Pattern { pattern, is_path: trimmed.contains('/') || text.starts_with('/') })
    }

    pub fn matches(&self, relative: &Path) -> bool {
        if self.is_path {
            return self.pattern.matches_path(relative);
        }
        relative.file_name().is_some_and(|name| self.pattern.matches(&name.to_string_lossy()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names_or_paths() {
        let matches = |pattern: &str, path: &str| Pattern::parse(pattern).unwrap().matches(Path::new(path));
        assert!(matches("*.o", "a/b/c.o") && !matches("*.o", "a/b/c.ox"));
        assert!(matches("target", "a/target") && matches("/target", "target") && !matches("/target", "a/target"));
        assert!(matches("a/*/c", "a/b/c") && !matches("a/c", "b/a/c"));
        assert!(Pattern::parse("[").is_err());
    }
}
