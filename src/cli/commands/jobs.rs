//! `job`: what is under way, and what is wanted of it.

use super::Outcome;
use super::args::{JobVerb, Named};
use super::asking::{quietly, with_display};
use super::output::{count, print, print_json, size, table, tell, tell_all};
use super::{headed, unexpected};
use crate::control::{Answer, Job, JobInfo, JobState, ProgressInfo, Target, Verb};
use crate::error::Result;

/// How far what is being done has come.
fn come(progress: &ProgressInfo) -> String {
    match (progress.bytes, progress.total_bytes) {
        (0, 0) => String::new(),
        (bytes, 0) => size(bytes),
        (bytes, total) => format!("{} of {}", size(bytes), size(total)),
    }
}

fn state(job: &JobInfo) -> &'static str {
    match job.state {
        JobState::Waiting => "waiting",
        JobState::Running => "running",
        JobState::Paused => "paused",
        JobState::Stopped => "stopped",
        JobState::Incomplete => "incomplete",
        JobState::Done => "done",
        JobState::Cancelled => "cancelled",
    }
}

fn list(to: &Target, ended: bool, as_json: bool) -> Result<()> {
    let Answer::Jobs(jobs) = quietly(to, Verb::Job(Job::List { ended }))? else { return Err(unexpected()) };
    if as_json {
        return print_json(&jobs);
    }
    if jobs.is_empty() {
        return print("nothing is under way\n");
    }
    let named = |job: &JobInfo| match &job.holds[..] {
        [only] => format!("{}: {only}", job.what),
        _ => job.what.clone(),
    };
    let row = |job: &JobInfo| {
        let more = match (&job.failure, &job.waits_for) {
            (Some(failure), _) => failure.clone(),
            (None, Some(what)) => format!("waits for {what}"),
            (None, None) => come(&job.progress),
        };
        vec![job.job.clone(), state(job).to_string(), named(job), job.time.text.clone(), more]
    };
    print(&table(&headed(["job", "state", "what", "since", ""], jobs.iter().map(row))))
}

fn show(job: &JobInfo) -> Result<()> {
    let mut rows = vec![("job", job.job.clone()), ("what", job.what.clone()), ("state", state(job).to_string())];
    rows.push(("since", job.time.text.clone()));
    rows.extend(job.ended.iter().map(|ended| ("ended", ended.text.clone())));
    if job.snapshots > 0 {
        rows.push(("written", format!("{} of {}", job.written, count(job.snapshots, "snapshot"))));
        rows.push(("changed", size(job.added)));
        rows.push(("at the target", size(job.bytes)));
    }
    let come = come(&job.progress);
    rows.extend((!come.is_empty()).then_some(("by now", come)));
    rows.extend((!job.holds.is_empty()).then(|| ("holds", job.holds.join(", "))));
    rows.extend(job.waits_for.iter().map(|what| ("waits for", what.clone())));
    rows.extend(job.failure.iter().map(|why| ("stopped", why.clone())));
    rows.extend(job.missing.iter().map(|what| ("missing", what.clone())));
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_string(), value]).collect();
    print(&table(&rows))
}

/// How a job came out, said to whoever waited for it.
fn outcome(job: &JobInfo, as_json: bool) -> Result<Outcome> {
    if as_json {
        print_json(job)?;
    }
    let outcome = match job.state {
        JobState::Done => Outcome::Done,
        JobState::Incomplete => Outcome::Incomplete,
        _ => Outcome::WithProblems,
    };
    if as_json {
        return Ok(outcome);
    }
    match (&job.failure, job.state) {
        (Some(failure), _) => tell(format_args!("job {} has stopped: {failure}", job.job)),
        (None, JobState::Cancelled) => tell(format_args!("job {} was cancelled", job.job)),
        (None, _) if job.snapshots > 0 => {
            let written = count(job.written, "snapshot");
            print(&format!("{}: {written}, {} written, {} changed\n", job.what, size(job.bytes), size(job.added)))?;
        }
        (None, _) => {}
    }
    tell_all(&job.missing);
    Ok(outcome)
}

/// What a job is after something was wanted of it.
pub(super) fn said(job: &JobInfo, as_json: bool) -> Result<()> {
    if as_json {
        return print_json(job);
    }
    print(&format!("job {}, {}: {}\n", job.job, job.what, state(job)))
}

pub(super) fn job(to: &Target, verb: JobVerb, json: bool) -> Result<Outcome> {
    let (wanted, as_json, waits) = match verb {
        JobVerb::List { all, json: here } => return list(to, all, here || json).map(|()| Outcome::Done),
        JobVerb::Show(Named { job, json: here }) => {
            let Answer::Jobs(found) = quietly(to, Verb::Job(Job::Show { job }))? else { return Err(unexpected()) };
            let found = found.first().ok_or_else(unexpected)?;
            if here || json {
                print_json(found)?
            } else {
                show(found)?
            }
            return Ok(Outcome::Done);
        }
        JobVerb::Wait(Named { job, json: here }) => (Job::Wait { job }, here || json, true),
        JobVerb::Pause(Named { job, json: here }) => (Job::Pause { job }, here || json, false),
        JobVerb::Resume(Named { job, json: here }) => (Job::Resume { job }, here || json, false),
        JobVerb::Cancel(Named { job, json: here }) => (Job::Cancel { job }, here || json, false),
    };
    let answer = if waits { with_display(to, Verb::Job(wanted), "waiting") } else { quietly(to, Verb::Job(wanted)) };
    let Answer::Jobs(found) = answer? else { return Err(unexpected()) };
    let found = found.first().ok_or_else(unexpected)?;
    if waits {
        return outcome(found, as_json);
    }
    said(found, as_json).map(|()| Outcome::Done)
}
