//! `metrics`: what monitoring collects, as Prometheus reads it (OpenMetrics text, which its textfile collector takes as well).

use super::output::{print, print_json};
use super::status::ask_status;
use super::{args, unexpected};
use crate::control::{StatusInfo, Target};
use crate::daemon::HealthState;
use crate::error::Result;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Labels = Vec<(&'static str, String)>;

pub(super) fn metrics(store: &Target, args: &args::Metrics) -> Result<bool> {
    let status = ask_status(store)?;
    if args.json {
        return print_json(&status).map(|()| true);
    }
    let mut text = String::new();
    encode(&mut text, &registry(&status)).map_err(|_| unexpected())?;
    print(&text).map(|()| true)
}

/// Every sample of a store has its path as a label.
fn registry(status: &StatusInfo) -> Registry {
    let mut registry = Registry::with_prefix("pitfs");
    let mut gauge = |name: &str, help: &str, samples: Vec<(Labels, i64)>| {
        let family = Family::<Labels, Gauge>::default();
        for (labels, value) in samples {
            let labels = [vec![("store", status.store.to_string())], labels].concat();
            family.get_or_create(&labels).set(value);
        }
        registry.register(name, help, family);
    };
    let one = |label: &'static str, value: &str| vec![(label, value.to_string())];
    let is_in = |state: HealthState| (one("state", state.name()), i64::from(status.health.state == state));
    gauge("health", "How the store is: 1 for its state", HealthState::ALL.map(is_in).to_vec());
    gauge("troubles", "What is wrong, as status lists it", vec![(Vec::new(), status.health.troubles.len() as i64)]);
    let bytes = [
        ("total", status.total_bytes),
        ("available", status.available_bytes),
        ("live", status.live_bytes),
        ("log", status.log_bytes),
        ("metadata", status.metadata_bytes),
        ("segments", status.segment_bytes),
        ("reserved", status.reserved_bytes),
    ];
    let bytes = bytes.map(|(kind, bytes)| (one("kind", kind), signed(bytes)));
    gauge("room_bytes", "Room: of live, of what only snapshots hold, and what there is", bytes.to_vec());
    let of_base = |base: &str| status.snapshots.iter().filter(|one| one.base == base && !one.archived).count();
    let snapshots = status.bases.iter().map(|base| (one("base", &base.name), of_base(&base.name) as i64));
    gauge("snapshots", "Snapshots in the store", snapshots.collect());
    let times = status.done.iter().map(|done| (one("what", &done.what), done.time.seconds));
    gauge(
        "last_time_seconds",
        "When the last snapshot, save, roll, backup and check was done, since 1970",
        times.collect(),
    );
    let problems = status.done.iter().map(|done| (one("what", &done.what), signed(done.problems)));
    gauge("last_problems", "Problems that the last one found", problems.collect());
    let at = |directory: &crate::control::PathText| one("directory", &directory.to_string());
    let kept = status.archives.iter().map(|archive| (at(&archive.directory), signed(archive.bytes)));
    gauge("archive_bytes", "What an archive takes", kept.collect());
    let missing = status.archives.iter().map(|archive| (at(&archive.directory), archive.missing.len() as i64));
    gauge("archive_missing_times", "Times of an archive that cannot be read", missing.collect());
    registry
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
