//! What each built-in scorer goes by.

mod fleet;

use std::time::Duration;

use fleet::{TestFleet, counts, needs, spec, status, tokens};
use gateway_core::pipeline::{
    CostScorer, FinishScorer, LabelScorer, LatencyScorer, LoadScorer, QueueScorer, Scene, Scorer,
    SessionScorer, TokensScorer, WarmScorer,
};
use gateway_core::{
    Load, Model, ModelState, Pipeline, Price, Registry, ReportedLoad, Requirements, RunnerChange,
    RunnerStatus,
};

const MS: Duration = Duration::from_millis(1);

fn only(scorer: impl Scorer) -> Pipeline {
    Pipeline::builder("only").scorer(scorer, 1.0).build().unwrap()
}

fn score(fleet: &TestFleet, scorer: impl Scorer, requirements: &Requirements, id: &str) -> Option<f64> {
    let runner = fleet.runner(id);
    scorer.score(requirements, &runner, &Scene::of(&runner))
}

fn hold(fleet: &TestFleet, id: &str, requests: usize) -> Vec<gateway_core::Reservation> {
    (0..requests).map(|_| fleet.runner(id).try_reserve().unwrap()).collect()
}

fn report(fleet: &TestFleet, id: &str, active: u32, queued: u32) {
    let status = RunnerStatus { load: Some(ReportedLoad { active, queued }), ..status() };
    assert!(fleet.registry.update(fleet.runner(id).key(), RunnerChange::Status(status)));
}

#[tokio::test(start_paused = true)]
async fn load_is_the_share_of_slots_that_is_free() {
    let fleet = TestFleet::new();
    fleet.join(spec("eight").slots(8), status());
    fleet.join(spec("silent"), status());
    let _held = (hold(&fleet, "eight", 2), hold(&fleet, "silent", 2));
    let load = |id| score(&fleet, LoadScorer, &needs(), id);
    assert_eq!((load("eight"), load("silent")), (Some(0.75), Some(0.5)));
    report(&fleet, "eight", 6, 0);
    assert_eq!(load("eight"), Some(0.25), "four requests of others");
    report(&fleet, "eight", 60, 0);
    assert!(load("eight") <= Some(0.0));
    tokio::time::advance(Load::STALE).await;
    assert_eq!(load("eight"), Some(0.75), "what was said long ago is forgotten");
    // Who does not say is never full, but the less free the more it has.
    let _more = hold(&fleet, "silent", 7);
    assert_eq!(load("silent"), Some(0.1));
}

#[tokio::test(start_paused = true)]
async fn queue_is_what_was_reported_and_sent_since() {
    let fleet = TestFleet::new();
    for id in ["a", "b", "silent"] {
        fleet.join(spec(id), status());
    }
    report(&fleet, "a", 4, 3);
    report(&fleet, "b", 4, 0);
    let queue = |id| score(&fleet, QueueScorer, &needs(), id);
    assert_eq!([queue("a"), queue("b"), queue("silent")], [Some(3.0), Some(0.0), None]);
    // A burst between two reports does not all go where the queue was short.
    let held = fleet.burst(&only(QueueScorer), &needs(), 30);
    let counts = counts(&held);
    assert!(counts["b"] < 20 && counts["a"] >= 5, "{counts:?}");
    tokio::time::advance(Load::STALE).await;
    assert_eq!(queue("a"), None, "a queue of long ago says nothing");
}

#[test]
fn tokens_are_counted_by_the_slot() {
    let fleet = TestFleet::new();
    fleet.join(spec("small").slots(2), status());
    fleet.join(spec("large").slots(8), status());
    let held = fleet.burst(&only(TokensScorer), &tokens(900, 100), 10);
    assert_eq!(counts(&held).into_values().collect::<Vec<_>>(), [8, 2]);
    drop(held);
    assert_eq!(score(&fleet, TokensScorer, &needs(), "small"), Some(0.0));
    let _said_nothing = hold(&fleet, "small", 1);
    assert_eq!(score(&fleet, TokensScorer, &needs(), "small"), None, "unknown is not zero");
}

#[tokio::test(start_paused = true)]
async fn latency_is_the_peak_for_each_request_there() {
    let fleet = TestFleet::new();
    fleet.join_timed(spec("quick"), 100 * MS, 10 * MS);
    fleet.join_timed(spec("slow"), 300 * MS, 10 * MS);
    fleet.join(spec("unknown"), status());
    fleet.measure("quick", 100).await;
    fleet.measure("slow", 100).await;
    let latency = |id| score(&fleet, LatencyScorer, &needs(), id);
    assert_eq!(latency("unknown"), None);
    let alone = latency("quick").unwrap();
    let _held = hold(&fleet, "quick", 3);
    assert!((latency("quick").unwrap() / alone - 4.0).abs() < 1e-6);
    assert_eq!(fleet.picked(&only(LatencyScorer), &needs()), "slow", "0.3 s against four times 0.1 s");
}

#[tokio::test(start_paused = true)]
async fn finish_is_the_forecast() {
    let fleet = TestFleet::new();
    fleet.join_timed(spec("quick"), 100 * MS, 10 * MS);
    fleet.join_timed(spec("slow"), 1_000 * MS, 10 * MS);
    fleet.measure("quick", 1_000).await;
    fleet.measure("slow", 1_000).await;
    let requirements = tokens(1_000, 100);
    let expected = {
        let runner = fleet.runner("quick");
        Scene::of(&runner).forecast(&requirements, &runner).finish_s()
    };
    assert_eq!(score(&fleet, FinishScorer, &requirements, "quick"), Some(expected));
    // The same choice as the strategy: the peers' speed comes with it.
    let held = fleet.burst(&only(FinishScorer), &tokens(10_000, 0), 22);
    assert!((19..=21).contains(&counts(&held)["quick"]), "{:?}", counts(&held));
}

#[test]
fn cost_is_by_price_and_what_is_not_known_is_dearest() {
    let fleet = TestFleet::new();
    fleet.join(spec("cheap").price(Price::PerMillionTokens(0.1)), status());
    fleet.join(spec("dear").price(Price::PerMillionTokens(1.0)), status());
    fleet.join(spec("unknown"), status());
    let requirements = tokens(900, 100);
    let cost = |id| score(&fleet, CostScorer, &requirements, id).unwrap();
    assert!((cost("cheap") - 0.000_1).abs() < 1e-12 && cost("unknown").is_infinite());
    assert_eq!(fleet.picked(&only(CostScorer), &requirements), "cheap");
    let shown = |id| fleet.scores(&only_after_a_pick(&fleet, &requirements), &requirements, id)[0].value;
    assert!((shown("cheap") - 0.9).abs() < 1e-9);
    assert_eq!((shown("dear"), shown("unknown")), (0.0, 0.0));
}

fn only_after_a_pick(fleet: &TestFleet, requirements: &Requirements) -> Pipeline {
    let strategy = only(CostScorer);
    drop(fleet.pick(&strategy, requirements));
    strategy
}

#[test]
fn sessions_go_to_larger_runners_more_often() {
    let fleet = TestFleet::new();
    fleet.join(spec("small").slots(2), status());
    fleet.join(spec("large").slots(6), status());
    let strategy = only(SessionScorer);
    let large = (0..1_000).filter(|session| {
        let mut requirements = needs();
        requirements.workload.session = Some(*session);
        fleet.picked(&strategy, &requirements) == "large"
    });
    // Three in four; hashes are the same on every run.
    assert!((700..=800).contains(&large.count()));
    assert_eq!(score(&fleet, SessionScorer, &needs(), "small"), None, "no session, no favourite");
}

#[test]
fn a_loaded_model_is_warm() {
    let fleet = TestFleet::new();
    fleet.join(spec("loaded"), status());
    let models = vec![Model::new(fleet::model(), ModelState::OnDemand)];
    fleet.join(spec("on-demand"), RunnerStatus { models, ..status() });
    let warm = |requirements: &Requirements, id| score(&fleet, WarmScorer, requirements, id);
    assert_eq!((warm(&needs(), "loaded"), warm(&needs(), "on-demand")), (Some(1.0), Some(0.0)));
    assert_eq!(warm(&Requirements::default(), "loaded"), None);
}

#[test]
fn a_label_is_there_or_not() {
    let fleet = TestFleet::new();
    fleet.join(spec("near").label("zone", "eu"), status());
    fleet.join(spec("far").label("zone", "us"), status());
    fleet.join(spec("silent"), status());
    let label = |id| score(&fleet, LabelScorer::new("zone", "eu"), &needs(), id);
    assert_eq!([label("near"), label("far"), label("silent")], [Some(1.0), Some(0.0), Some(0.0)]);
    assert_eq!(fleet.picked(&only(LabelScorer::new("zone", "eu")), &needs()), "near");
}
