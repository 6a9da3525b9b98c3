//! The strategy `cost-aware`: the cheapest that is in time.

mod fleet;

use std::time::Duration;

use fleet::{TestFleet, counts, spec, status, tokens, value};
use gateway_core::{CostAware, Price, Requirements};

const MS: Duration = Duration::from_millis(1);

fn within(requirements: Requirements, deadline: Duration) -> Requirements {
    let mut requirements = requirements;
    requirements.workload.deadline = Some(deadline);
    requirements
}

/// `cheap` reads 1,000 tokens a second and `dear` 10,000, at ten times the cost of a token.
async fn cheap_and_dear() -> TestFleet {
    let fleet = TestFleet::new();
    let cheap = spec("cheap").slots(4).price(Price::PerMillionTokens(0.1));
    fleet.join_timed(cheap, 1_000 * MS, 10 * MS);
    let dear = spec("dear").slots(4).price(Price::PerMillionTokens(1.0));
    fleet.join_timed(dear, 100 * MS, 10 * MS);
    fleet.measure("cheap", 1_000).await;
    fleet.measure("dear", 1_000).await;
    fleet
}

#[tokio::test(start_paused = true)]
async fn takes_the_cheapest_that_is_in_time() {
    let fleet = cheap_and_dear().await;
    let strategy = CostAware::default();
    // 1 s of reading on the cheap one, 0.1 s on the dear one.
    assert_eq!(fleet.picked(&strategy, &within(tokens(1_000, 0), 2_000 * MS)), "cheap");
    assert_eq!(fleet.picked(&strategy, &within(tokens(1_000, 0), 500 * MS)), "dear");
    // What is ahead counts: two of one second each, and the third would be late.
    let held = fleet.burst(&strategy, &within(tokens(1_000, 0), 2_500 * MS), 3);
    let order: Vec<_> = held.iter().map(|held| held.runner().id().as_str()).collect();
    assert_eq!(order, ["cheap", "cheap", "dear"]);
    assert!(held.iter().all(|held| held.reason() == Some("cheapest")));
}

#[tokio::test(start_paused = true)]
async fn takes_the_soonest_if_nobody_is_in_time() {
    let fleet = cheap_and_dear().await;
    let reservation = fleet.pick(&CostAware::default(), &within(tokens(1_000, 0), 50 * MS));
    assert_eq!(reservation.runner().id().as_str(), "dear");
    assert_eq!(reservation.reason(), Some("soonest"));
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_the_cheap_are_filled_first() {
    let fleet = cheap_and_dear().await;
    let held = fleet.burst(&CostAware::default(), &tokens(1_000, 0), 9);
    assert_eq!(held.len(), 8, "no more than the slots");
    assert!(held[..4].iter().all(|held| held.runner().id().as_str() == "cheap"));
    drop(held);
    fleet.assert_all_zero();
}

#[tokio::test(start_paused = true)]
async fn a_price_that_is_not_known_is_not_zero() {
    let fleet = TestFleet::new();
    fleet.join(spec("unknown").slots(1), status());
    fleet.join(spec("nonsense").slots(1).label(Price::PER_HOUR_LABEL, "cheap!"), status());
    fleet.join(spec("known").slots(1).price(Price::PerHour(100.0)), status());
    let held = fleet.burst(&CostAware::default(), &tokens(1_000, 100), 3);
    assert_eq!(held[0].runner().id().as_str(), "known");
    assert_eq!(held.len(), 3, "and it is no reason to refuse");
}

#[tokio::test(start_paused = true)]
async fn a_known_price_that_is_late_yields_to_an_unknown_one_that_is_not() {
    let fleet = TestFleet::new();
    fleet.join_timed(spec("known").price(Price::PerHour(1.0)), 1_000 * MS, 10 * MS);
    fleet.join_timed(spec("unknown"), 100 * MS, 10 * MS);
    fleet.measure("known", 1_000).await;
    fleet.measure("unknown", 1_000).await;
    let reservation = fleet.pick(&CostAware::default(), &within(tokens(1_000, 0), 500 * MS));
    assert_eq!(reservation.runner().id().as_str(), "unknown");
    assert_eq!(reservation.reason(), Some("cheapest"), "of those in time");
}

#[tokio::test(start_paused = true)]
async fn runners_at_one_price_share_the_work() {
    let fleet = TestFleet::new();
    for (id, first_byte) in [("a", 100), ("b", 104), ("c", 98)] {
        let spec = spec(id).slots(100_000).label(Price::PER_HOUR_LABEL, "2.5");
        fleet.join_timed(spec, first_byte * MS, 10 * MS);
        fleet.measure(id, 1_000).await;
    }
    let held = fleet.burst(&CostAware::default(), &tokens(1_000, 100), 60);
    let counts = counts(&held);
    assert!(counts.values().all(|count| (17..=23).contains(count)), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn an_hour_and_a_token_are_compared_by_what_the_request_costs() {
    let fleet = TestFleet::new();
    // Eight slots at 3.6 an hour: 0.000125 a second for one of them.
    fleet.join(spec("hourly").slots(8).price(Price::PerHour(3.6)), status());
    fleet.join(spec("metered").slots(8).price(Price::PerMillionTokens(1.0)), status());
    let strategy = CostAware::default();
    let requirements = tokens(1_000, 100);
    // Nobody was measured: 0.5 s for the prompt and 3 s for the answer.
    let hourly = value(&fleet.scores(&strategy, &requirements, "hourly"), "cost").unwrap();
    let metered = value(&fleet.scores(&strategy, &requirements, "metered"), "cost").unwrap();
    assert!((hourly - 3.5 * 0.000_125).abs() < 1e-9, "{hourly}");
    assert!((metered - 0.001_1).abs() < 1e-9, "{metered}");
    assert_eq!(fleet.picked(&strategy, &requirements), "hourly");
    // Long prompts are read quickly but charged by the token; long answers hold the slot.
    assert_eq!(fleet.picked(&strategy, &tokens(0, 500)), "metered");
}

#[tokio::test(start_paused = true)]
async fn explains_cost_and_finish() {
    let fleet = cheap_and_dear().await;
    fleet.join(spec("unknown"), status());
    let strategy = CostAware::default();
    let cheap = fleet.scores(&strategy, &tokens(1_000, 0), "cheap");
    assert!((value(&cheap, "cost").unwrap() - 0.000_1).abs() < 1e-9, "{cheap:?}");
    assert!(value(&cheap, "finish").unwrap() > 0.9);
    let unknown = fleet.scores(&strategy, &tokens(1_000, 0), "unknown");
    assert_eq!(value(&unknown, "cost"), None);
    assert!(value(&unknown, "finish").unwrap() > 0.0);
}
