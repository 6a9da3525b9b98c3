//! Peak-EWMA learns from answers who is slow, and forgets.

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use common::{Setup, model, setup, spec};
use gateway_core::{Measured, PeakEwma, Registry, RunnerStatus};
use gateway_testkit::{MockEngine, Script, request, text};

fn engine(delay_ms: u64) -> MockEngine {
    MockEngine::new(move |_| Script::chunks(["one", "two"]).delay(Duration::from_millis(delay_ms)))
}

fn with(engines: Vec<MockEngine>) -> Setup {
    setup(engines, |builder| builder.balancer(Arc::new(PeakEwma)))
}

/// Requests one after the other, and who served them.
async fn serve(setup: &Setup, requests: u32) -> HashMap<String, u32> {
    let mut counts = HashMap::new();
    for _ in 0..requests {
        let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
        *counts.entry(answer.runner.id().to_string()).or_default() += 1;
        text(answer.response).await.unwrap();
    }
    counts
}

#[tokio::test(start_paused = true)]
async fn the_slow_one_is_left_alone_until_its_peak_is_forgotten() {
    let setup = with(vec![engine(100), engine(2_000)]);
    // Both are unknown at first, so both are asked.
    serve(&setup, 2).await;
    assert_eq!(serve(&setup, 20).await, HashMap::from([("r0".to_owned(), 20)]));
    // 2 s fall below 0.1 s in three times the decay, while the quick one is measured again and again.
    tokio::time::sleep(Measured::DECAY * 4).await;
    serve(&setup, 1).await;
    let later = serve(&setup, 3).await;
    assert!(later.contains_key("r1"), "tried again: {later:?}");
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_is_probed_once_before_it_is_known() {
    let setup = with(vec![engine(100), engine(100)]);
    serve(&setup, 4).await;
    setup.registry.join(spec("new"), RunnerStatus::serving([model()]), engine(5_000).link());
    let runner = |id: &str| setup.registry.fleet().runner(id).unwrap().clone();
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let dispatcher = setup.dispatcher.clone();
            tokio::spawn(async move {
                let answer = dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
                text(answer.response).await.unwrap();
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    // Unknown is not idle: one request finds out, the others go where the latency is known.
    assert_eq!(runner("new").load().in_flight, 1);
    assert!((12..=28).contains(&runner("r0").load().in_flight), "{:?}", runner("r0").load());
    for call in calls {
        call.await.unwrap();
    }
    assert!(runner("new").measured().peak_first_byte.is_some());
    setup.all_zero().await;
}
