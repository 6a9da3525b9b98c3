//! The simulator tells the truth where the truth is known, loses no request, and gives the same figures twice.

#[path = "../simulate/main.rs"]
#[allow(dead_code, reason = "its main is not called here")]
mod simulate;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use simulate::cache::BlockCache;
use simulate::engine::{Cached, Engine, Job};
use simulate::figures::{Figures, PickCost};
use simulate::ideal::Bounds;
use simulate::machine::Machine;
use simulate::run::{Run, run};
use simulate::scenario::{Fault, FaultKind, Scenario, Straggler};
use simulate::trace::Trace;
use simulate::{Options, strategies};

const MS: f64 = 1e-3;

/// Arrival in ms, prompt tokens, answer tokens, ids of the prompt's blocks.
type Request<'a> = (u64, u32, u32, &'a [u64]);

fn trace(requests: &[Request<'_>]) -> Trace {
    let line = |(at, prompt, answer, ids): &Request<'_>| {
        format!(r#"{{"timestamp":{at},"input_length":{prompt},"output_length":{answer},"hash_ids":{ids:?}}}"#)
    };
    Trace::mooncake(&requests.iter().map(line).collect::<Vec<_>>().join("\n")).unwrap()
}

fn one_runner(requests: &[Request<'_>]) -> Scenario {
    Scenario::new(trace(requests), 1, Machine::default())
}

fn shipped() -> Trace {
    Trace::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("simulate/trace.jsonl")).unwrap()
}

fn shipped_scenario(load: f64) -> Scenario {
    // A small memory, so that the cache has something to forget.
    let mut scenario = Scenario::new(shipped(), 4, Machine { kv_blocks: 60, ..Machine::default() });
    scenario.scale_to(load);
    scenario
}

/// Seconds from arrival to first token and to end.
fn times(run: &Run, request: usize) -> (f64, f64) {
    let record = run.records[request];
    let since = |at: Option<u64>| (at.unwrap() - record.arrival) as f64 / 1e9;
    (since(record.first_token), since(record.end))
}

fn close(is: f64, should: f64) {
    assert!((is - should).abs() < 1e-6 + should * 1e-6, "{is} should be {should}");
}

/// The figures without what the wall clock says of the choices.
fn deterministic(scenario: &Scenario, name: &str, run: &Run) -> String {
    let mut figures = Figures::of(scenario, name, run, &Bounds::of(scenario));
    figures.pick = PickCost { picks: figures.pick.picks, ..PickCost::default() };
    serde_json::to_string(&figures).unwrap()
}

fn run_all(scenario: &Scenario) -> impl Iterator<Item = (&'static str, Run)> {
    strategies::names().map(|name| (name, run(scenario, name).unwrap()))
}

#[test]
fn alone_on_a_runner_a_request_takes_what_the_machine_says() {
    let scenario = one_runner(&[(0, 4_000, 101, &[1, 2, 3, 4, 5, 6, 7, 8]), (60_000, 1, 1, &[99])]);
    let run = run(&scenario, "round-robin").unwrap();
    let (first, end) = times(&run, 0);
    close(first, 4_000.0 / 8_000.0);
    close(end, first + 100.0 * (20.0 + 0.3) * MS);
}

#[test]
fn prompts_are_computed_in_the_order_of_arrival() {
    let scenario = one_runner(&[(0, 3_000, 1, &[1]), (0, 1_000, 1, &[2]), (0, 5_000, 1, &[3])]);
    let run = run(&scenario, "round-robin").unwrap();
    // The first two share their last iteration: tokens 2,049 to 4,096.
    close(times(&run, 0).0, 4_096.0 / 8_000.0);
    close(times(&run, 1).0, 4_096.0 / 8_000.0);
    close(times(&run, 2).0, 9_000.0 / 8_000.0);
}

#[test]
fn tokens_come_more_slowly_in_a_large_batch() {
    let ten: Vec<(u64, u32, u32, [u64; 1])> = (0..10).map(|id| (0, 8, 1_001, [id])).collect();
    let ten: Vec<Request<'_>> =
        ten.iter().map(|(at, prompt, answer, ids)| (*at, *prompt, *answer, &ids[..])).collect();
    let run = run(&one_runner(&ten), "round-robin").unwrap();
    let (first, end) = times(&run, 9);
    close(end - first, 1_000.0 * (20.0 + 10.0 * 0.3) * MS);
}

#[test]
fn a_prompt_that_is_cached_costs_one_token() {
    let ids = [1, 2, 3, 4];
    let scenario =
        one_runner(&[(0, 2_000, 2, &ids), (10_000, 2_000, 2, &ids), (20_000, 2_000, 2, &[1, 2, 8, 9])]);
    let run = run(&scenario, "round-robin").unwrap();
    close(times(&run, 0).0, 2_000.0 / 8_000.0);
    close(times(&run, 1).0, 1.0 / 8_000.0);
    close(times(&run, 2).0, (2_000.0 - 1_024.0) / 8_000.0);
    assert_eq!(run.records[1].cached, Some(Cached { blocks: 4, tokens: 1_999 }));
    let bounds = Bounds::of(&scenario);
    close(bounds.hit_rate_blocks, 6.0 / 12.0);
    close(Figures::of(&scenario, "round-robin", &run, &bounds).share_of_ideal, 1.0);
}

#[test]
fn a_block_can_be_used_by_others_once_it_is_computed() {
    let ids = [1, 2, 3, 4, 5, 6];
    let run = run(&one_runner(&[(0, 3_000, 1, &ids), (0, 3_000, 1, &ids)]), "round-robin").unwrap();
    // The second is let in for what the first leaves of the second iteration; only the first one's work is there then.
    assert_eq!(run.records[1].cached, Some(Cached { blocks: 4, tokens: 2_048 }));
    close(times(&run, 1).0, (3_000.0 + 952.0) / 8_000.0);
}

#[test]
fn a_full_memory_forgets_the_least_recently_used_and_makes_wait() {
    let machine = Machine { kv_blocks: 6, ..Machine::default() };
    let (a, b): ([u64; 4], [u64; 4]) = ([1, 2, 3, 4], [5, 6, 7, 8]);
    // Room for one prompt of four blocks and half of another; each answer stays within the last block.
    let requests =
        trace(&[(0, 2_000, 11, &a), (0, 2_000, 11, &b), (10_000, 2_000, 11, &a), (20_000, 7_000, 1, &a)]);
    let run = run(&Scenario::new(requests, 1, machine), "round-robin").unwrap();
    let alone = 2_000.0 / 8_000.0 + 10.0 * 20.3 * MS;
    close(times(&run, 0).1, alone);
    close(times(&run, 1).1, 2.0 * alone);
    // Of the first prompt the tail went, and its head is still there.
    assert_eq!(run.records[2].cached, Some(Cached { blocks: 2, tokens: 1_024 }));
    assert_eq!(run.records[3].failed, Some("refused"), "longer than the memory");
}

#[test]
fn slots_limit_how_many_run() {
    let machine = Machine { slots: 1, ..Machine::default() };
    let mut scenario = Scenario::new(trace(&[(0, 800, 11, &[1]), (0, 800, 11, &[2])]), 2, machine);
    scenario.stragglers.push(Straggler { runner: 1, factor: 2.0 });
    let run = run(&scenario, "round-robin").unwrap();
    let alone = 0.1 + 10.0 * 20.3 * MS;
    close(times(&run, 0).1, alone);
    close(times(&run, 1).1, 2.0 * alone);
}

#[test]
fn the_capacity_that_load_is_a_share_of_is_what_a_runner_does() {
    let mut scenario =
        Scenario::new(shipped(), 1, Machine { slots: 1_000, kv_blocks: 20_000, ..Machine::default() });
    for (id, request) in scenario.trace.requests.iter_mut().enumerate() {
        // Nothing in common, so nothing is cached.
        request.blocks = (0..request.blocks.len() as u64).map(|block| (id as u64) << 32 | block).collect();
    }
    scenario.scale_to(20.0);
    close(scenario.load(), 20.0);
    let (prompts, answers) = scenario.trace.tokens();
    let should = scenario.machine.seconds_of_work(prompts, answers);
    let took = run(&scenario, "round-robin").unwrap().end as f64 / 1e9;
    assert!((took / should - 1.0).abs() < 0.1, "{took} s should be about {should} s");
}

#[test]
fn every_strategy_serves_every_request_and_finds_no_more_than_is_there() {
    let scenario = shipped_scenario(0.6);
    let bounds = Bounds::of(&scenario);
    assert!(bounds.hit_rate_blocks > 0.3 && bounds.hit_rate_blocks < bounds.unlimited_hit_rate_blocks);
    for (name, run) in run_all(&scenario) {
        let figures = Figures::of(&scenario, name, &run, &bounds);
        assert_eq!((figures.finished, figures.failed.len()), (figures.requests, 0), "{name}");
        assert!(figures.hit_rate_blocks <= bounds.unlimited_hit_rate_blocks, "{name}");
        // What was computed and what was cached are all that there is; what the last arrivals cost is not counted.
        let (prompts, _) = scenario.trace.tokens();
        let computed: u64 = run.done.iter().map(|done| done.prompt_tokens).sum();
        let cached: u64 = run.records.iter().map(|record| u64::from(record.cached.unwrap().tokens)).sum();
        assert!(computed + cached <= prompts && computed + cached > prompts * 9 / 10, "{name}");
        for (record, request) in run.records.iter().zip(&scenario.trace.requests) {
            let first = (record.first_token.unwrap() - record.arrival) as f64 / 1e9;
            let alone = f64::from(request.prompt_tokens - record.cached.unwrap().tokens) / 8_000.0;
            assert!(
                first + 1e-6 >= alone,
                "{name}: {first} s is less than the {alone} s of the prompt itself"
            );
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_figures() {
    let mut scenario = shipped_scenario(0.9);
    scenario.stragglers.push(Straggler { runner: 2, factor: 3.0 });
    scenario.report_delay = Duration::from_secs(5);
    let figures = |name: &str| deterministic(&scenario, name, &run(&scenario, name).unwrap());
    for name in strategies::names() {
        assert_eq!(figures(name), figures(name), "{name}");
    }
    let first = figures("least-loaded");
    scenario.seed = 2;
    let other = run(&scenario, "least-loaded").unwrap();
    assert_ne!(first, deterministic(&scenario, "least-loaded", &other), "the seed has an effect");
}

#[test]
fn faults_and_old_reports_have_an_effect() {
    let scenario = shipped_scenario(0.9);
    let mut slow = scenario.clone();
    slow.stragglers.push(Straggler { runner: 0, factor: 3.0 });
    let mut old = scenario.clone();
    old.report_delay = Duration::from_secs(5);
    let records = |scenario: &Scenario| run(scenario, "least-loaded").unwrap().records;
    let plain = records(&scenario);
    assert_ne!(plain, records(&slow));
    assert_ne!(plain, records(&old));
}

#[test]
fn a_dead_runner_costs_only_the_answers_that_had_begun() {
    let mut scenario = shipped_scenario(0.9);
    let at = |share: f64| Duration::from_secs_f64(scenario.trace.span() * share);
    scenario.faults = vec![
        Fault { runner: 1, at: at(0.3), kind: FaultKind::Dies },
        Fault { runner: 1, at: at(0.6), kind: FaultKind::ComesBack },
    ];
    let (died, back) = (at(0.3).as_nanos() as u64, at(0.6).as_nanos() as u64);
    for (name, run) in run_all(&scenario) {
        let mut broken = 0;
        for record in &run.records {
            match record.failed {
                Some(why) => {
                    assert_eq!((why, record.runner), ("broken off", 1), "{name}");
                    assert!(record.first_token.unwrap() <= died, "{name}");
                    broken += 1;
                }
                None => assert!(record.end.is_some(), "{name}"),
            }
        }
        assert!(broken > 0, "{name}: nobody was on the runner");
        let used = |from: u64, to: u64| {
            run.records.iter().any(|record| record.runner == 1 && (from..to).contains(&record.arrival))
        };
        assert_eq!(
            (used(0, died), used(died + 1, back)),
            (true, false),
            "{name}: before and while it was dead"
        );
        // The policy with the gate never goes back to a runner that remembers nothing, as long as others match.
        assert!(used(back, u64::MAX) || name == "ref-prefix-gate", "{name}: after it came back");
    }
}

#[test]
fn a_table_with_a_date_is_read_too() {
    let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                 2023-12-31 23:59:59.5000000,374,44\n2024-01-01 00:00:01.2500000,396,109\n";
    let trace = Trace::azure(azure).unwrap();
    close(trace.span(), 1.75);
    assert_eq!(trace.tokens(), (770, 153));
    assert!(Trace::azure("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2\n").is_err());
}

#[test]
fn prefixes_are_equal_as_far_as_ids_are() {
    let trace = trace(&[(0, 2_000, 1, &[1, 2, 3, 4]), (0, 2_000, 1, &[1, 2, 9, 4])]);
    let same: Vec<bool> =
        trace.requests[0].blocks.iter().zip(&*trace.requests[1].blocks).map(|(a, b)| a == b).collect();
    assert_eq!(same, [true, true, false, false]);
    assert_eq!(trace.requests[0].blocks.iter().collect::<BTreeSet<_>>().len(), 4);
}

#[test]
fn whatever_is_given_up_the_memory_is_free_in_the_end() {
    for seed in 0..50 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let machine = Machine { slots: 4, kv_blocks: 40, ..Machine::default() };
        let cache = Arc::new(Mutex::new(BlockCache::new(40)));
        let mut engine = Engine::new(machine, cache.clone());
        let (mut now, mut events, mut open) = (0, Vec::new(), BTreeSet::new());
        for id in 0..200 {
            let blocks: Arc<[u64]> = (0..rng.u64(1..12)).map(|block| block + rng.u64(..3) * 100).collect();
            let prompt_tokens = 512 * blocks.len() as u32 - rng.u32(..511);
            engine.submit(Job { id, prompt_tokens, answer_tokens: rng.u32(1..700), blocks });
            open.insert(id);
            now += rng.u64(..2_000_000_000);
            engine.advance(now, &mut events);
            for event in events.drain(..).filter(|event| event.done) {
                assert!(open.remove(&event.job), "{} ended twice", event.job);
            }
            if rng.u8(..3) == 0 {
                let given_up = open.iter().nth(rng.usize(..=open.len())).copied();
                engine.cancel(given_up.unwrap_or(usize::MAX));
                open.retain(|id| Some(*id) != given_up);
            }
            assert!(cache.lock().unwrap().in_use() <= 40);
        }
        engine.advance(now + 3_600_000_000_000, &mut events);
        assert_eq!(events.iter().filter(|event| event.done).count(), open.len(), "seed {seed}");
        assert_eq!((cache.lock().unwrap().in_use(), engine.load(), engine.next()), (0, (0, 0), None));
        assert_eq!((engine.demand().announced_tokens, engine.demand().active_blocks_with(&[])), (0, 0));
    }
}

fn options(words: &str) -> Options {
    Options::try_parse_from(words.split_whitespace()).unwrap()
}

#[test]
fn what_it_writes_can_be_read() {
    let options = options(
        "simulate --synthetic 60 --runners 2 --load 0.5 --strategy round-robin,ref-prefix-gate --straggler 1@2",
    );
    let (scenario, bounds, figures) = simulate::simulate(&options).unwrap();
    close(scenario.load(), 0.5);
    let json: serde_json::Value = serde_json::from_str(&serde_json::to_string(&figures).unwrap()).unwrap();
    assert_eq!(json[1]["strategy"], "ref-prefix-gate");
    assert!(json[0]["first_token"]["p99"].as_f64().unwrap() > 0.0);
    assert!(json[0]["fairness_tenants"].as_f64().unwrap() > 0.0, "the synthetic load has tenants");
    let table = simulate::table::render(&scenario, &bounds, &figures);
    assert_eq!(
        table.lines().filter(|line| line.starts_with("ref-") || line.starts_with("round-")).count(),
        2
    );
    let svg = simulate::plot::svg(&figures);
    assert!(
        svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.matches("ref-prefix-gate").count() == 2
    );
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

#[test]
fn what_makes_no_sense_is_said_so() {
    let fails = |words: &str| simulate::simulate(&options(words)).unwrap_err().to_string();
    assert!(fails("simulate --synthetic 20 --strategy guessing").contains("round-robin"));
    assert!(fails("simulate --synthetic 20 --runners 2 --straggler 2").contains("0 to 1"));
    assert!(fails("simulate --trace /nowhere.jsonl").contains("/nowhere.jsonl"));
    assert!(Options::try_parse_from(["simulate", "--synthetic", "9", "--kill", "one"]).is_err());
}
