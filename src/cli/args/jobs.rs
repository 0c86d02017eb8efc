//! `job`.

use clap::{Args as ClapArgs, Subcommand};

#[derive(Debug, ClapArgs)]
pub struct Job {
    #[command(subcommand)]
    pub verb: JobVerb,
}

#[derive(Debug, Subcommand)]
pub enum JobVerb {
    /// List what is under way, what waits and what has failed
    List {
        /// Those as well that have ended
        #[arg(short, long)]
        all: bool,
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show all there is to be said of one
    Show(Named),
    /// Wait until one has ended; its exit status is that of what it did
    Wait(Named),
    /// Let a backup let go of its target until it is resumed
    Pause(Named),
    /// Let a backup go on that was paused or has failed
    Resume(Named),
    /// End one, and let the snapshots go that are held for it
    Cancel(Named),
}

#[derive(Debug, ClapArgs)]
pub struct Named {
    /// Its number, or its name, as `pitfs job list` has it
    #[arg(value_name = "JOB")]
    pub job: String,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}
