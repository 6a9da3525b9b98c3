//! What is printed.

use std::collections::BTreeMap;
use std::time::Duration;

use gateway_testkit::ScriptedNeutrino;

use crate::load::{Done, Kind};

/// What became of some tasks, and what they took beyond their own time.
pub(crate) fn times(what: &str, done: &[Done]) {
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    done.iter().for_each(|one| *statuses.entry(one.status).or_default() += 1);
    println!("{what}: {} tasks, by status {statuses:?}", done.len());
    for (kind, waited, words) in [
        (Kind::Cpu, false, "processors only"),
        (Kind::Gpu, false, "accelerator, free at once"),
        (Kind::Gpu, true, "accelerator, waited for"),
    ] {
        let mut added: Vec<Duration> = done
            .iter()
            .filter(|one| one.kind == kind && one.waited == waited && one.status == 200)
            .map(|one| one.added)
            .collect();
        if added.is_empty() {
            continue;
        }
        added.sort_unstable();
        let at = |share: f64| added[((added.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        println!(
            "    {words:26} {:7}   beyond the task itself: p50 {:.2} ms, p99 {:.2} ms",
            added.len(),
            at(0.5),
            at(0.99)
        );
    }
}

/// What came to each runner so far.
pub(crate) fn runners<'r>(runners: impl Iterator<Item = (&'static str, &'r ScriptedNeutrino)>) {
    let told = runners.map(|(name, script)| {
        format!(
            "{name}: {} ({} for accelerators, {} too many)",
            script.tasks(),
            script.gpu_tasks(),
            script.too_many()
        )
    });
    println!("    so far {}", told.collect::<Vec<_>>().join("; "));
}
