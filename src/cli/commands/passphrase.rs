//! Passphrases: asked for at the terminal, or out of the environment where nobody is there.

use crate::cli::output::tell;
use crate::error::{Errno, Error, Result};
use rpassword::prompt_password;

/// What is to be a passphrase more, while the variable for the one that is known may be needed.
pub(super) const NEW_VARIABLE: &str = "PITFS_NEW_PASSPHRASE";

/// One that is known; nothing where nobody can be asked.
pub fn known() -> Option<String> {
    prompt_password("passphrase of the target: ").ok().filter(|text| !text.is_empty())
}

/// A new one, asked for twice.
pub(super) fn new(variable: &str) -> Result<String> {
    if let Ok(text) = std::env::var(variable) {
        return Ok(text);
    }
    let none = |_| {
        let text = format!("there is no terminal to ask for the passphrase at; give it as {variable}");
        Error::Refused(Errno::NOKEY, text)
    };
    loop {
        let first = prompt_password("new passphrase: ").map_err(none)?;
        if first.is_empty() {
            return Err(Error::Refused(Errno::INVAL, "an empty passphrase protects nothing".into()));
        }
        if first == prompt_password("once more: ").map_err(none)? {
            return Ok(first);
        }
        tell("they differ; once more");
    }
}
