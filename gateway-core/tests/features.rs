//! Requests go to runners that can do what they ask of the API, and are told at once if none can.

mod common;

use std::sync::Arc;

use common::{fine, model, same, setup, spec};
use gateway_core::{
    CapabilityRouter, Dispatch, DispatchError, DispatchErrorKind, Dispatched, Feature, Features, Health,
    Model, ModelId, ModelRoutes, ModelState, QueuePolicy, Refusal, Registry, Requirements, Router,
    RunnerChange, RunnerStatus,
};
use gateway_testkit::{request, text};
use proptest::prelude::*;

fn asking(features: impl Into<Features>) -> Dispatch {
    let mut call = request(&model(), "{}");
    call.requirements.features = features.into();
    call
}

async fn ask(setup: &common::Setup, features: impl Into<Features>) -> Result<Dispatched, DispatchError> {
    setup.dispatcher.dispatch(asking(features)).await
}

fn serving() -> RunnerStatus {
    RunnerStatus::serving([model()])
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_something_goes_to_who_can() {
    let setup = setup(vec![], same);
    setup.registry.join(spec("plain").lacks(Features::ALL), serving(), fine().link());
    setup.registry.join(spec("able"), serving(), fine().link());
    let (mut plain, mut able) = (0, 0);
    for _ in 0..10 {
        assert_eq!(ask(&setup, Feature::Tools).await.unwrap().runner.id().as_str(), "able");
    }
    for _ in 0..10 {
        match ask(&setup, Features::NONE).await.unwrap().runner.id().as_str() {
            "plain" => plain += 1,
            _ => able += 1,
        }
    }
    assert!(plain > 0 && able > 0, "{plain} {able}: who asks for nothing goes to both");
}

#[tokio::test(start_paused = true)]
async fn if_nobody_ever_can_it_is_told_at_once_what_is_lacking() {
    let setup = setup(vec![], |builder| builder.queue(QueuePolicy::default()));
    let text = spec("text").lacks(Features::TOOLS | Feature::Logprobs).slots(1);
    setup.registry.join(text, serving(), fine().link());
    let ill = RunnerStatus { health: Health::Unhealthy, ..serving() };
    let ill =
        setup.registry.join(spec("ill").lacks(Feature::ManyAnswers | Feature::Logprobs), ill, fine().link());
    // Neither a slot nor health would help.
    let _taken = setup.registry.fleet().runner("text").unwrap().try_reserve().unwrap();
    let error = ask(&setup, Feature::Tools | Feature::Logprobs | Feature::ManyAnswers).await.unwrap_err();
    assert_eq!(error.kind(), DispatchErrorKind::Lacking(Feature::Logprobs), "which all of them lack");
    assert_eq!(error.retry_after(), None);
    assert!(!error.is_retryable());
    assert!(error.refusals().iter().any(|(_, refusal)| *refusal == Refusal::Lacks(Feature::Tools)));
    assert!(error.to_string().contains("`logprobs`"), "{error}");
    // Each lacks something, and no two the same.
    let error = ask(&setup, Feature::Tools | Feature::ManyAnswers).await.unwrap_err();
    assert_eq!(error.kind(), DispatchErrorKind::Lacking(Feature::Tools), "what the first lacks: {error}");
    // This one could, once it is well.
    let error = ask(&setup, Feature::Tools).await.unwrap_err();
    assert_eq!(error.kind(), DispatchErrorKind::NoneEligible);
    assert!(error.retry_after().is_some());
    setup.registry.update(&ill, RunnerChange::Status(serving()));
    assert_eq!(ask(&setup, Feature::Tools).await.unwrap().runner.id().as_str(), "ill");
}

#[tokio::test(start_paused = true)]
async fn a_model_is_not_loaded_where_it_would_not_help_and_a_fallback_is_taken_that_can() {
    let other = ModelId::new("other").unwrap();
    let routes = ModelRoutes::builder().fallback("m", ["other"]).build().unwrap();
    let setup = setup(vec![], |builder| builder.routes(routes));
    let cold = RunnerStatus { models: vec![Model::new(model(), ModelState::Available)], ..serving() };
    let plain = fine();
    setup.registry.join(spec("plain").lacks(Features::ALL), cold, plain.link());
    let error = ask(&setup, Feature::Tools).await.unwrap_err();
    assert_eq!(error.kind(), DispatchErrorKind::Lacking(Feature::Tools));
    assert!(plain.commands().is_empty());
    setup.registry.join(spec("able"), RunnerStatus::serving([other]), fine().link());
    let answer = ask(&setup, Feature::Tools).await.unwrap();
    assert!(answer.is_fallback);
    assert_eq!(answer.runner.id().as_str(), "able");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_one_who_can_keeps_nobody_else_from_one_who_cannot() {
    let setup = Arc::new(setup(vec![], |builder| builder.queue(QueuePolicy::default())));
    setup.registry.join(spec("plain").lacks(Features::ALL).slots(1), serving(), fine().link());
    setup.registry.join(spec("able").slots(1), serving(), fine().link());
    let hold = |id: &str| setup.registry.fleet().runner(id).unwrap().try_reserve().unwrap();
    let (plain, able) = (hold("plain"), hold("able"));
    let waiting = |features: Features| {
        let setup = setup.clone();
        tokio::spawn(async move {
            let answer = ask(&setup, features).await.unwrap();
            let id = answer.runner.id().to_string();
            text(answer.response).await.unwrap();
            id
        })
    };
    let with_tools = waiting(Feature::Tools.into());
    while setup.dispatcher.queue_depth() < 1 {
        tokio::task::yield_now().await;
    }
    let without = waiting(Features::NONE);
    while setup.dispatcher.queue_depth() < 2 {
        tokio::task::yield_now().await;
    }
    drop(plain);
    assert_eq!(without.await.unwrap(), "plain");
    assert!(!with_tools.is_finished());
    drop(able);
    assert_eq!(with_tools.await.unwrap(), "able");
}

#[test]
fn what_nobody_lacks_costs_no_verdicts() {
    let setup = setup(vec![fine(), fine()], same);
    let mut needs = Requirements::model(model());
    needs.features = Feature::Tools | Feature::Stop;
    assert!(!needs.is_model_only());
    assert!(CapabilityRouter.pool(&needs, &setup.registry.fleet()).is_exact());
    setup.registry.join(spec("other").lacks(Feature::Logprobs), serving(), fine().link());
    assert!(CapabilityRouter.pool(&needs, &setup.registry.fleet()).is_exact());
    let key = setup.registry.join(spec("plain").lacks(Feature::Stop), serving(), fine().link());
    assert!(!CapabilityRouter.pool(&needs, &setup.registry.fleet()).is_exact());
    setup.registry.leave(&key, gateway_core::LeaveReason::Disconnected);
    assert!(CapabilityRouter.pool(&needs, &setup.registry.fleet()).is_exact());
}

fn some_features() -> impl Strategy<Value = Features> {
    let few = [Feature::Tools, Feature::Logprobs, Feature::Stop, Feature::Suffix];
    proptest::sample::subsequence(few.to_vec(), 0..=4).prop_map(|features| features.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Nobody is sent where something is lacking; who is told that nobody can do it is told the truth; who could be
    /// served now is.
    #[test]
    fn the_answer_is_right_whoever_is_there(
        runners in proptest::collection::vec((some_features(), any::<bool>(), any::<bool>()), 0..6),
        asked in some_features(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let setup = setup(vec![], same);
            for (number, (lacks, up, has_model)) in runners.iter().enumerate() {
                let name = if *has_model { model() } else { ModelId::new("other").unwrap() };
                let health = if *up { Health::Healthy } else { Health::Unhealthy };
                let status = RunnerStatus { health, ..RunnerStatus::serving([name]) };
                setup.registry.join(spec(&format!("r{number}")).lacks(*lacks), status, fine().link());
            }
            let fleet = setup.registry.fleet();
            let mut needs = Requirements::model(model());
            needs.features = asked;
            let pool = CapabilityRouter.pool(&needs, &fleet);
            for runner in pool.runners() {
                assert!(!pool.is_exact() || CapabilityRouter.accepts(&needs, runner));
            }
            let knowing: Vec<_> = runners.iter().filter(|(_, _, has_model)| *has_model).collect();
            let able = |(lacks, _, _): &&&(Features, bool, bool)| lacks.and(asked).is_empty();
            match ask(&setup, asked).await {
                Ok(answer) => assert!(answer.runner.spec().lacks.and(asked).is_empty()),
                Err(error) => match error.kind() {
                    DispatchErrorKind::UnknownModel => assert!(knowing.is_empty()),
                    DispatchErrorKind::Lacking(feature) => {
                        assert!(asked.has(feature) && !knowing.is_empty());
                        assert_eq!(knowing.iter().filter(able).count(), 0);
                        assert!(knowing.iter().any(|(lacks, _, _)| lacks.has(feature)));
                    }
                    DispatchErrorKind::NoneEligible => {
                        assert!(knowing.iter().filter(able).count() > 0);
                        assert!(knowing.iter().filter(able).all(|(_, up, _)| !up));
                    }
                    other => panic!("{other:?}"),
                },
            }
        });
    }
}
