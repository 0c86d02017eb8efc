//! A store and its archive that are not what they were: by accident, or by somebody who made all checksums right. Commands and
//! a mount are tried on each. Nothing may panic, wait for ever or take memory without end; after an accident no byte is
//! wrong, and nothing is lost without a word.
//!
//! `PITFS_MUTATE_SECONDS` says for how long, `PITFS_SEED` where to begin: a seed that failed fails again.

#[path = "../mounted/guard.rs"]
mod guard;
#[path = "../store/common/rng.rs"]
#[expect(dead_code, reason = "not all of it is needed here")]
mod rng;
mod sample;
mod trial;
mod ways;

use rng::Rng;
use sample::Sample;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use trial::{Fault, Trial};
use ways::Way;

const SECONDS_DEFAULT: u64 = 20;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn nothing_panics_hangs_lies_or_is_silent() {
    let sample = Sample::new();
    // What finds nothing wrong has to find everything.
    sample.put_back();
    let untouched = Trial { sample: &sample, is_accident: true }.run();
    assert!(untouched.faults.is_empty() && untouched.lost.is_empty() && !untouched.is_said, "{untouched:?}");
    let until = Instant::now() + Duration::from_secs(number("PITFS_MUTATE_SECONDS", SECONDS_DEFAULT));
    let first = number("PITFS_SEED", 1);
    let mut faults: Vec<(u64, Way, Fault)> = Vec::new();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in first.. {
        if Instant::now() > until {
            break;
        }
        let mut rng = Rng::new(seed);
        let way = Way::any(&mut rng);
        sample.put_back();
        if !way.apply(&sample, &mut rng) {
            continue;
        }
        *counts.entry(way.name()).or_default() += 1;
        let trial = Trial { sample: &sample, is_accident: way.is_accident() };
        faults.extend(trial.run().all().into_iter().map(|fault| (seed, way, fault)));
    }
    println!("trials: {counts:?}");
    for (seed, way, fault) in &faults {
        println!("PITFS_SEED={seed} {way:?}: {fault}");
    }
    assert!(faults.is_empty(), "{} faults", faults.len());
}
