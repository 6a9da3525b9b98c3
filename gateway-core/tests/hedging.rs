//! A request that has not begun to answer may be sent to a second runner; the first to begin serves.

mod common;

use std::time::Duration;

use common::{fine, model, setup};
use gateway_core::{Cancel, HedgePolicy, Outcome, PeakEwma, Registry, RequestBody};
use gateway_testkit::{Fault, MockEngine, Script, request, text};
use tokio::time::Instant;

const AFTER: Duration = Duration::from_secs(1);

fn slow(delay: u64) -> MockEngine {
    MockEngine::new(move |_| Script::chunks(["slow"]).delay(Duration::from_secs(delay)))
}

#[tokio::test(start_paused = true)]
async fn a_second_runner_is_asked_when_the_first_takes_long_and_the_loser_is_cancelled() {
    let setup = setup(vec![slow(5), fine()], |builder| builder.hedge(HedgePolicy::after(AFTER)));
    let began = Instant::now();
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    assert_eq!(began.elapsed(), AFTER);
    assert!(answer.hedged);
    assert_eq!((answer.tries, answer.runner.id().as_str()), (2, "r1"));
    assert_eq!(text(answer.response).await.unwrap(), "fine");
    assert_eq!(setup.recorder.count(Outcome::Cancelled(Cancel::ByCaller)), 1);
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn the_first_serves_if_it_begins_first_after_all() {
    let setup = setup(vec![slow(2), slow(5)], |builder| builder.hedge(HedgePolicy::after(AFTER)));
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    assert_eq!((answer.hedged, answer.runner.id().as_str()), (true, "r0"));
    drop(answer);
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn a_quick_answer_is_not_hedged_and_nor_is_what_cannot_be_sent_twice() {
    let setup = setup(vec![fine(), slow(3), fine()], |builder| builder.hedge(HedgePolicy::after(AFTER)));
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    assert!(!answer.hedged);
    drop(answer);
    let mut streamed = request(&model(), "");
    *streamed.request.body_mut() = RequestBody::stream(http_body_util::Full::new("{}".into()));
    let answer = setup.dispatcher.dispatch(streamed).await.unwrap();
    assert_eq!((answer.hedged, answer.runner.id().as_str()), (false, "r1"));
    drop(answer);
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn when_the_hedge_fails_the_first_is_still_waited_for() {
    let broken = MockEngine::new(|_| Script::chunks(["no"]).fault(Fault::CutBeforeHead));
    let setup = setup(vec![slow(5), broken], |builder| builder.hedge(HedgePolicy::after(AFTER)));
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    assert_eq!(text(answer.response).await.unwrap(), "slow");
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn hedges_are_a_small_share_of_the_requests() {
    let setup = setup(vec![slow(5), slow(5)], |builder| builder.hedge(HedgePolicy::after(AFTER)));
    let asked = (0..40).map(|_| setup.dispatcher.dispatch(request(&model(), "{}")));
    let answers = futures_util::future::join_all(asked).await;
    let hedged = answers.iter().filter(|answer| answer.as_ref().unwrap().hedged).count();
    // One in twenty, and half a one per second for ten seconds besides.
    assert_eq!(hedged, 2 + 5);
    drop(answers);
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_hangs_is_known_to_be_slow_although_all_its_answers_are_cancelled() {
    let hangs = MockEngine::new(|_| Script::chunks(["no"]).fault(Fault::NoAnswer));
    let brief = Duration::from_millis(125);
    let quick = || MockEngine::new(move |_| Script::chunks(["quick"]).delay(brief));
    let setup = setup(vec![hangs, quick(), quick()], |builder| {
        let hedge = HedgePolicy { ratio: 1.0, ..HedgePolicy::after(AFTER) };
        builder.hedge(hedge).balancer(std::sync::Arc::new(PeakEwma))
    });
    for _ in 0..20 {
        let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
        assert_eq!(text(answer.response).await.unwrap(), "quick");
    }
    let measured = setup.registry.fleet().runner("r0").unwrap().measured();
    assert_eq!((measured.first_byte, measured.answers), (Some(AFTER + brief), 1));
    assert_eq!(setup.recorder.tries_on("r0"), 1, "others are preferred from then on");
    setup.all_zero().await;
}
