//! Trying again costs: there is a budget for all requests together, and a pause from the second failure on.

mod common;

use std::time::Duration;

use common::{failing, fine, model, setup, spec};
use gateway_core::{Backoff, BudgetPolicy, HealthPolicy, ModelId, Registry, RetryPolicy, RunnerStatus};
use gateway_testkit::{Fault, request};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_spent_budget_ends_retries_but_not_those_that_were_never_sent() {
    let budget = BudgetPolicy { ratio: 0.1, min_per_second: 0.0, ..BudgetPolicy::default() };
    let retry = RetryPolicy { budget: Some(budget), ..RetryPolicy::default() };
    // Its breaker would soon keep the broken one out of it.
    let broken = setup(vec![failing(Fault::CutBeforeHead), fine()], |builder| {
        builder.retry(retry).health(HealthPolicy::off())
    });
    let mut served = 0;
    for _ in 0..100 {
        served += usize::from(broken.dispatcher.dispatch(request(&model(), "{}")).await.is_ok());
    }
    // Round robin: every second request meets the broken runner first.
    assert!((50..=61).contains(&served), "{served}");
    let away = setup(vec![failing(Fault::Unreachable), fine()], |builder| builder.retry(retry));
    for _ in 0..100 {
        assert!(away.dispatcher.dispatch(request(&model(), "{}")).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_nobody_left_to_go_to_leaves_the_budget_to_the_others() {
    let budget = BudgetPolicy { ratio: 0.1, min_per_second: 0.0, ..BudgetPolicy::default() };
    let retry = RetryPolicy { budget: Some(budget), ..RetryPolicy::default() };
    let broken = failing(Fault::CutBeforeHead);
    let setup =
        setup(vec![broken.clone(), fine()], |builder| builder.retry(retry).health(HealthPolicy::off()));
    let lonely = ModelId::new("lonely").unwrap();
    setup.registry.join(spec("lonely"), RunnerStatus::serving([lonely.clone()]), broken.link());
    for _ in 0..90 {
        assert!(setup.dispatcher.dispatch(request(&lonely, "{}")).await.is_err());
    }
    for _ in 0..10 {
        assert!(setup.dispatcher.dispatch(request(&model(), "{}")).await.is_ok());
    }
    assert_eq!(setup.recorder.tries_on("r0"), 10, "each of them was tried again");
}

#[tokio::test(start_paused = true)]
async fn the_first_move_is_at_once_and_the_next_after_a_pause() {
    let pause = Duration::from_millis(100);
    let retry =
        RetryPolicy { backoff: Backoff::new(pause, pause * 10, 0.0).unwrap(), ..RetryPolicy::default() };
    let bad = || failing(Fault::CutBeforeHead);
    let once = setup(vec![bad(), fine()], |builder| builder.retry(retry));
    let began = Instant::now();
    assert!(once.dispatcher.dispatch(request(&model(), "{}")).await.is_ok());
    assert_eq!(began.elapsed(), Duration::ZERO);
    let twice = setup(vec![bad(), bad(), fine()], |builder| builder.retry(retry));
    let began = Instant::now();
    assert!(twice.dispatcher.dispatch(request(&model(), "{}")).await.is_ok());
    assert_eq!(began.elapsed(), pause);
}
