//! What is done with points in time: going back in place, clones, and reading through an archive.

use crate::{Bench, Result, chain, clones, in_place};

pub fn run(bench: &mut Bench) -> Result<()> {
    in_place::run(bench)?;
    clones::run(bench)?;
    chain::run(bench)
}
