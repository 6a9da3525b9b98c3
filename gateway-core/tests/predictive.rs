//! The strategy `predictive`: whoever is through first.

mod fleet;

use std::time::Duration;

use fleet::{TestFleet, counts, spec, status, tokens, value};
use gateway_core::{Balancer, Forecast, Predictive, Registry, Requirements};
use gateway_testkit::{MockEngine, Script};
use http::header::CONTENT_LENGTH;

const MS: Duration = Duration::from_millis(1);

/// Two runners, one ten times as fast as the other in everything.
async fn fast_and_slow() -> TestFleet {
    let fleet = TestFleet::new();
    fleet.join_timed(spec("fast").slots(100), 100 * MS, 10 * MS);
    fleet.join_timed(spec("slow").slots(100), 1_000 * MS, 100 * MS);
    fleet.measure("fast", 1_000).await;
    fleet.measure("slow", 1_000).await;
    fleet
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_shared_by_speed() {
    let fleet = fast_and_slow().await;
    let held = fleet.burst(&Predictive::default(), &tokens(10_000, 0), 44);
    let counts = counts(&held);
    // Ten to one, as their speeds are (a little less of a difference since the first measurement fades).
    assert!((38..=41).contains(&counts["fast"]), "{counts:?}");
    drop(held);
    fleet.assert_all_zero();
}

#[tokio::test(start_paused = true)]
async fn a_slow_runner_with_nothing_to_do_may_be_the_later_one() {
    let fleet = fast_and_slow().await;
    let strategy = Predictive::default();
    let _ahead = fleet.pick(&strategy, &tokens(5_000, 0));
    assert_eq!(fleet.picked(&strategy, &tokens(1_000, 0)), "fast", "0.5 + 0.1 s against 1 s");
    let _more = fleet.burst(&strategy, &tokens(5_000, 0), 1);
    assert_eq!(fleet.picked(&strategy, &tokens(1_000, 0)), "slow", "1.0 + 0.1 s against 1 s");
}

#[tokio::test(start_paused = true)]
async fn one_long_prompt_ahead_is_more_than_five_short_ones() {
    let fleet = TestFleet::new();
    for id in ["long", "short"] {
        fleet.join(spec(id).slots(100), status());
    }
    let _long = fleet.runner("long").try_reserve_for(&tokens(20_000, 10));
    let _short: Vec<_> =
        (0..5).map(|_| fleet.runner("short").try_reserve_for(&tokens(500, 10)).unwrap()).collect();
    assert_eq!(fleet.picked(&Predictive::default(), &tokens(1_000, 10)), "short");
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_was_never_measured_counts_as_its_peers_do() {
    let fleet = TestFleet::new();
    for id in ["a", "b"] {
        fleet.join_timed(spec(id).slots(100), 100 * MS, 10 * MS);
        fleet.measure(id, 1_000).await;
    }
    fleet.join(spec("unknown").slots(100), status());
    let held = fleet.burst(&Predictive::default(), &tokens(2_000, 100), 60);
    let counts = counts(&held);
    assert!(counts.values().all(|count| (19..=21).contains(count)), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn the_peers_speed_is_looked_up_anew_every_second() {
    let fleet = TestFleet::new();
    fleet.join_timed(spec("slow").slots(100), 1_000 * MS, 100 * MS);
    fleet.join(spec("unknown").slots(100), status());
    let strategy = Predictive::default();
    let requirements = tokens(1_000, 0);
    let assumed = || {
        drop(fleet.pick(&strategy, &requirements));
        value(&fleet.scores(&strategy, &requirements, "unknown"), "prefill").unwrap()
    };
    assert!((assumed() - 0.5).abs() < 1e-6, "nobody was measured: 2,000 tokens a second");
    fleet.measure("slow", 1_000).await;
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!((assumed() - 1.0).abs() < 1e-6);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_alone_is_measured_as_alone() {
    let fleet = TestFleet::new();
    fleet.join_timed(spec("single").slots(1), 100 * MS, 10 * MS);
    fleet.measure("single", 1_000).await;
    let decode = value(&fleet.scores(&Predictive::default(), &tokens(1_000, 100), "single"), "decode");
    // 100 chunks of 10 ms; the mock also pauses before it ends.
    assert!((1.0..1.2).contains(&decode.unwrap()), "{decode:?}");
}

#[tokio::test(start_paused = true)]
async fn only_answers_that_come_as_they_are_written_tell_how_fast_that_is() {
    let fleet = TestFleet::new();
    let whole = || Script::chunks(["{}", "\n"]).header(CONTENT_LENGTH, "3").delay(8_000 * MS);
    let engine = MockEngine::new(move |_| whole());
    fleet.registry.join(spec("whole"), status(), engine.link());
    fleet.join_timed(spec("streams"), 100 * MS, 10 * MS);
    fleet.measure("whole", 1_000).await;
    fleet.measure("streams", 1_000).await;
    let whole = fleet.runner("whole").measured();
    assert_eq!((whole.prefill_tokens_per_s, whole.chunk_interval), (None, None));
    assert_eq!(whole.first_byte, Some(8_000 * MS));
    let streams = fleet.runner("streams").measured();
    assert!(streams.prefill_tokens_per_s.is_some() && streams.chunk_interval.is_some(), "{streams:?}");
}

#[tokio::test(start_paused = true)]
async fn silence_is_not_idleness() {
    // Nothing is known of runners nor requests: only that what was sent there is there.
    let fleet = TestFleet::new();
    for id in ["a", "b", "c"] {
        fleet.join(spec(id), status());
    }
    let held = fleet.burst(&Predictive::default(), &fleet::needs(), 30);
    assert_eq!(counts(&held).into_values().collect::<Vec<_>>(), [10, 10, 10]);
}

#[tokio::test(start_paused = true)]
async fn what_was_slow_once_is_given_another_chance_in_time() {
    let fleet = fast_and_slow().await;
    let strategy = Predictive::default();
    let share = |fleet: &TestFleet| {
        let held = fleet.burst(&strategy, &tokens(1_000, 100), 40);
        counts(&held).get("slow").copied().unwrap_or(0)
    };
    let at_once = share(&fleet);
    tokio::time::advance(20 * Forecast::FADE).await;
    let later = share(&fleet);
    assert!(at_once <= 5 && later >= 15, "{at_once} of 40 at once, {later} later");
}

#[tokio::test(start_paused = true)]
async fn equals_are_drawn_evenly() {
    let fleet = TestFleet::new();
    for id in ["a", "b", "c", "d"] {
        fleet.join(spec(id), status());
    }
    let strategy = Predictive::default();
    let mut picks = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..8_000 {
        *picks.entry(fleet.picked(&strategy, &tokens(100, 100))).or_default() += 1;
    }
    // 2,000 each, give or take six standard deviations (39 each).
    assert!(picks.values().all(|count| (1_766..=2_234).contains(count)), "{picks:?}");
}

#[tokio::test(start_paused = true)]
async fn explains_itself_in_seconds() {
    let fleet = fast_and_slow().await;
    let strategy = Predictive::default();
    let requirements = Requirements { ..tokens(10_000, 100) };
    let ahead = fleet.pick(&strategy, &requirements);
    assert_eq!(ahead.runner().id().as_str(), "fast");
    let fast = fleet.scores(&strategy, &requirements, "fast");
    let names: Vec<_> = fast.iter().map(|score| score.name).collect();
    assert_eq!(names, ["waiting", "prefill", "decode", "finish"]);
    // A prompt ahead as long as its own.
    assert_eq!(value(&fast, "waiting"), value(&fast, "prefill"));
    let slow = fleet.scores(&strategy, &requirements, "slow");
    assert_eq!(value(&slow, "waiting"), Some(0.0));
    assert!(value(&slow, "finish") > value(&fast, "finish"), "{slow:?} {fast:?}");
    assert_eq!(strategy.name(), "predictive");
}
