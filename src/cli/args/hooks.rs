//! Commands that run before and after.

use clap::Args as ClapArgs;
use std::time::Duration;

#[derive(Clone, Debug, Default, ClapArgs)]
pub struct Hooks {
    /// Run this with a shell first, to bring programs to rest; where it fails or takes too long, nothing is done
    #[arg(long, value_name = "CMD", help_heading = "Commands before and after")]
    pub before: Option<String>,
    /// Run this with a shell at the end, whatever came of it
    #[arg(long, value_name = "CMD", help_heading = "Commands before and after")]
    pub after: Option<String>,
    /// How long each of them may take, as 10s, which it is without this option
    #[arg(long, value_name = "SPAN", value_parser = super::targets::parse_span, help_heading = "Commands before and after")]
    pub timeout: Option<u64>,
}

const TIMEOUT: u64 = 10;

impl Hooks {
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.timeout.unwrap_or(TIMEOUT))
    }
}
