//! Before the first byte another runner is tried, and only what is safe is tried again.

mod common;

use std::collections::BTreeMap;

use common::{failing, fine, model, same, setup, spec, status};
use gateway_core::{
    DispatchErrorKind, Fault as RunnerFault, InMemoryRegistry, LifecyclePolicy, Model, ModelState, Outcome,
    Refusal, Registry, RequestBody, RetryPolicy, RunnerStatus,
};
use gateway_testkit::{Fault, MockEngine, Script, request, text};

#[tokio::test(start_paused = true)]
async fn every_failure_before_the_first_byte_is_made_good_elsewhere() {
    let bad: [(MockEngine, Outcome); 7] = [
        (failing(Fault::Unreachable), Outcome::NeverSent),
        (failing(Fault::NoAnswer), Outcome::RunnerFault(RunnerFault::FirstByteTimeout)),
        (failing(Fault::StallAfter(0)), Outcome::RunnerFault(RunnerFault::FirstByteTimeout)),
        (failing(Fault::CutBeforeHead), Outcome::RunnerFault(RunnerFault::Connection)),
        (failing(Fault::CutBeforeFirstByte), Outcome::RunnerFault(RunnerFault::Connection)),
        (status(500, "no"), Outcome::RunnerFault(RunnerFault::Status)),
        (status(503, "busy"), Outcome::Overloaded),
    ];
    for (engine, outcome) in bad {
        let setup = setup(vec![engine, fine()], same);
        let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
        assert_eq!((answer.tries, answer.runner.id().as_str()), (2, "r1"), "{outcome}");
        assert_eq!(text(answer.response).await.unwrap(), "fine");
        assert_eq!(setup.recorder.count(outcome), 1, "{outcome}");
        assert_eq!(setup.recorder.count(Outcome::Success), 1);
        setup.all_zero().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_is_never_tried_twice() {
    let engines = vec![failing(Fault::Unreachable), failing(Fault::Unreachable), failing(Fault::Unreachable)];
    let setup = setup(engines, same);
    let error = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap_err();
    assert_eq!(error.kind(), DispatchErrorKind::Unreachable);
    assert!(error.is_retryable() && error.retry_after().is_some());
    for runner in ["r0", "r1", "r2"] {
        assert_eq!(setup.recorder.tries_on(runner), 1);
    }
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_crashes_runners_does_not_go_through_the_whole_fleet() {
    let engines = (0..6).map(|_| failing(Fault::CutBeforeHead)).collect();
    let setup =
        setup(engines, |builder| builder.retry(RetryPolicy { max_failures: 2, ..RetryPolicy::default() }));
    let error = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap_err();
    assert_eq!(error.kind(), DispatchErrorKind::RunnerFailed(RunnerFault::Connection));
    assert_eq!((setup.recorder.tries(), error.tries()), (2, 2));
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn unreachable_and_busy_runners_do_not_use_up_the_tries() {
    let mut engines: Vec<_> = (0..5).map(|_| failing(Fault::Unreachable)).collect();
    engines.extend((0..5).map(|_| status(429, "busy")));
    engines.push(fine());
    let setup =
        setup(engines, |builder| builder.retry(RetryPolicy { max_failures: 1, ..RetryPolicy::default() }));
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    assert_eq!(text(answer.response).await.unwrap(), "fine");
    assert_eq!(answer.tries, 11);
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_sheds_load_is_not_asked_one_by_one() {
    let most = u64::from(RetryPolicy::MAX_OVERLOADED);
    let setup = setup((0..most + 4).map(|_| status(429, "busy")).collect(), same);
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    assert_eq!((answer.response.status().as_u16(), setup.recorder.tries()), (429, most));
    assert_eq!(answer.response.headers()["retry-after"], "7");
    drop(answer);
    // Whoever was not asked yet is asked first.
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    assert_eq!(setup.recorder.tries(), 2 * most);
    for fresh in most..most + 4 {
        assert_eq!(setup.recorder.tries_on(&format!("r{fresh}")), 1);
    }
    drop(answer);
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn who_turns_a_request_away_without_a_word_is_not_the_next_ones_first_choice() {
    let shedding = MockEngine::new(|_| Script::status(503, "busy"));
    let setup = setup(vec![shedding, fine()], |builder| {
        builder.balancer(std::sync::Arc::new(gateway_core::LeastLoaded::default()))
    });
    // The other one has more to do, and is preferred nevertheless.
    let _held = setup.registry.fleet().runner("r1").unwrap().try_reserve().unwrap();
    for tries in [2, 1, 1] {
        let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
        assert_eq!((answer.tries, answer.runner.id().as_str()), (tries, "r1"));
    }
    tokio::time::advance(gateway_core::HoldPolicy::SHORTEST).await;
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    assert_eq!(answer.tries, 2, "it is asked again soon");
}

#[tokio::test(start_paused = true)]
async fn the_runners_own_words_reach_the_client_if_nobody_does_better() {
    let setup = setup(vec![status(503, "first"), failing(Fault::Unreachable), status(503, "last")], same);
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    assert_eq!(answer.response.status(), 503);
    assert_eq!(answer.response.headers()["retry-after"], "7");
    assert_eq!(text(answer.response).await.unwrap(), "last");
    assert_eq!(setup.recorder.count(Outcome::Overloaded), 2);
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn a_clients_mistake_is_not_tried_again() {
    for code in [400, 404, 422] {
        let setup = setup(vec![status(code, "yours"), fine()], same);
        let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
        assert_eq!(answer.response.status(), code);
        assert_eq!(text(answer.response).await.unwrap(), "yours");
        assert_eq!(setup.recorder.tries(), 1);
        assert_eq!(setup.recorder.count(Outcome::ClientFault), 1);
        setup.all_zero().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_engine_does_not_implement_another_may() {
    let setup = setup(vec![status(501, "not here"), fine()], |builder| {
        builder.retry(RetryPolicy { max_failures: 1, ..RetryPolicy::default() })
    });
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    assert_eq!(text(answer.response).await.unwrap(), "fine");
    assert_eq!(setup.recorder.count(Outcome::ClientFault), 1, "and nobody is blamed");
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_without_end_keeps_nobody() {
    // The error's body never ends: what it has is left out, and connection and slot are free.
    let endless = MockEngine::new(|_| Script::status(500, "x").fault(Fault::StallAfter(1)));
    let setup = setup(vec![endless], same);
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    assert_eq!(setup.engines[0].counts().aborted, 1);
    assert_eq!(answer.response.status(), 500);
    assert_eq!(text(answer.response).await.unwrap(), "");
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn who_loads_on_demand_steps_in_for_who_has_it_loaded() {
    let setup = setup(vec![failing(Fault::Unreachable)], same);
    let mut cold = RunnerStatus::serving([model()]);
    cold.models[0].state = ModelState::OnDemand;
    setup.registry.join(spec("cold").slots(1), cold, fine().link());
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    assert_eq!((answer.tries, answer.runner.id().as_str()), (2, "cold"));
    assert_eq!(text(answer.response).await.unwrap(), "fine");
    // Loaded but draining, and the other full: that is overload, not a lack of runners.
    let warm = setup.registry.fleet().runner("r0").unwrap().key().clone();
    setup.registry.update(&warm, gateway_core::RunnerChange::Drain(true));
    let held = setup.registry.fleet().runner("cold").unwrap().try_reserve();
    let error = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap_err();
    assert_eq!(error.kind(), DispatchErrorKind::Overloaded);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_distrusts_the_gateway_does_not_tell_the_client_so() {
    let setup = setup(vec![status(401, "who are you")], same);
    let error = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap_err();
    assert_eq!(error.kind(), DispatchErrorKind::RunnerFailed(RunnerFault::Status));
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn a_streamed_request_is_sent_once() {
    let setup = setup(vec![failing(Fault::CutBeforeHead), fine()], same);
    let mut call = request(&model(), "");
    let body = http_body_util::Full::new(bytes::Bytes::from_static(b"{}"));
    *call.request.body_mut() = RequestBody::stream(body);
    let error = setup.dispatcher.dispatch(call).await.unwrap_err();
    assert_eq!(error.kind(), DispatchErrorKind::RunnerFailed(RunnerFault::Connection));
    assert_eq!(setup.recorder.tries(), 1);
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_has_begun_is_not_begun_again() {
    let setup = setup(vec![failing(Fault::CutAfter(1)), fine()], same);
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    assert!(text(answer.response).await.is_err());
    assert_eq!(setup.recorder.tries(), 1);
    assert_eq!(setup.recorder.count(Outcome::RunnerFault(RunnerFault::Connection)), 1);
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn who_could_not_serve_and_why() {
    let setup = setup(Vec::new(), |builder| builder.lifecycle(LifecyclePolicy::off()));
    let fail = async || setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap_err();
    assert_eq!(fail().await.kind(), DispatchErrorKind::UnknownModel);
    assert!(!fail().await.is_retryable());

    let join = |registry: &InMemoryRegistry, id: &str, state| {
        let mut status = RunnerStatus::serving([]);
        status.models.push(Model::new(model(), state));
        registry.join(spec(id).slots(1), status, fine().link())
    };
    join(&setup.registry, "cold", ModelState::Available);
    let error = fail().await;
    assert_eq!(error.kind(), DispatchErrorKind::NoneEligible);
    let reasons: BTreeMap<_, _> =
        error.refusals().iter().map(|(id, why)| (id.to_string(), why.clone())).collect();
    assert_eq!(reasons["cold"], Refusal::ModelNotReady(ModelState::Available));

    join(&setup.registry, "warm", ModelState::Loaded);
    let held = setup.registry.fleet().runner("warm").unwrap().try_reserve().unwrap();
    let error = fail().await;
    assert_eq!(error.kind(), DispatchErrorKind::Overloaded);
    assert!(error.retry_after().is_some());
    drop(held);
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    assert_eq!(text(answer.response).await.unwrap(), "fine");
}

#[tokio::test(start_paused = true)]
async fn a_failure_names_the_request_and_the_runner_but_no_body() {
    let setup = setup(vec![failing(Fault::CutBeforeHead)], same);
    let call = request(&model(), "a secret prompt");
    let id = call.id.clone();
    let error = setup.dispatcher.dispatch(call).await.unwrap_err();
    let words = format!("{error} {error:?}");
    assert!(words.contains("r0") && words.contains(id.as_str()), "{words}");
    assert!(!words.contains("secret"));
    let engine = MockEngine::new(|_| Script::text("x"));
    let debug = format!("{:?}", request(&model(), "a secret prompt"));
    assert!(!debug.contains("secret"), "{debug}");
    drop(engine);
}
