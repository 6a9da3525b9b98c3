//! Others are preferred to a runner that does much worse than they, never to too many of them.

mod common;

use std::time::Duration;

use common::{Setup, model, setup};
use gateway_core::{DispatcherBuilder, HealthPolicy, OutlierPolicy, Registry};
use gateway_testkit::{MockEngine, Script, request, text};
use tokio::time::advance;

const MS: Duration = Duration::from_millis(1);

fn taking(time: Duration) -> MockEngine {
    MockEngine::new(move |_| Script::text("fine").delay(time))
}

/// Fails one of so many requests.
fn failing_one_of(requests: usize) -> MockEngine {
    let seen = std::sync::atomic::AtomicUsize::new(0);
    MockEngine::new(move |_| match seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % requests {
        0 => Script::status(500, "no"),
        _ => Script::text("fine"),
    })
}

impl Setup {
    async fn ask_times(&self, times: usize) {
        for _ in 0..times {
            let answer = self.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
            text(answer.response).await.unwrap();
        }
    }

    fn ejected(&self) -> Vec<String> {
        let fleet = self.registry.fleet();
        let ejected = fleet.runners().iter().filter(|r| self.dispatcher.standing(r).ejected.is_some());
        ejected.map(|runner| runner.id().to_string()).collect()
    }
}

/// Three times as slow is too slow.
fn strict() -> HealthPolicy {
    let outliers = OutlierPolicy { times_median: 3.0, ..OutlierPolicy::default() };
    HealthPolicy { outliers: Some(outliers), ..HealthPolicy::default() }
}

fn same(builder: DispatcherBuilder) -> DispatcherBuilder {
    builder.health(strict())
}

#[tokio::test(start_paused = true)]
async fn who_is_far_slower_than_its_peers_is_ejected_and_comes_back() {
    let mut engines = vec![taking(MS * 400)];
    engines.extend((0..5).map(|_| taking(MS * 100)));
    let setup = setup(engines, same);
    setup.ask_times(6 * 19).await;
    assert_eq!(setup.ejected(), [""; 0], "too few requests to tell");
    setup.ask_times(6 * 3).await;
    assert_eq!(setup.ejected(), ["r0"]);
    let runner = setup.registry.fleet().runner("r0").unwrap().clone();
    assert_eq!(setup.dispatcher.standing(&runner).as_str(), "ejected");
    let before = setup.recorder.tries_on("r0");
    setup.ask_times(100).await;
    assert_eq!(setup.recorder.tries_on("r0"), before, "others are preferred");

    advance(OutlierPolicy::EJECT_FOR).await;
    assert_eq!(setup.ejected(), [""; 0]);
    setup.ask_times(6 * 18).await;
    assert_eq!(setup.recorder.tries_on("r0"), before + 18, "it has another chance");
    setup.ask_times(6 * 4).await;
    assert_eq!(setup.ejected(), ["r0"], "and used it badly");
    advance(OutlierPolicy::EJECT_FOR).await;
    assert_eq!(setup.ejected(), ["r0"], "for longer, this time");
    advance(OutlierPolicy::EJECT_FOR).await;
    assert_eq!(setup.ejected(), [""; 0]);
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn who_fails_far_more_often_than_its_peers_is_ejected() {
    // A third of its requests: too few in a row and in all for its breaker.
    let mut engines = vec![failing_one_of(3)];
    engines.extend((0..5).map(|_| taking(Duration::ZERO)));
    let setup = setup(engines, same);
    for _ in 0..25 {
        // Each seventh is the second try of the sixth.
        setup.ask_times(6).await;
        advance(MS * 100).await;
    }
    assert_eq!(setup.ejected(), ["r0"]);
    let runner = setup.registry.fleet().runner("r0").unwrap().clone();
    assert_eq!(setup.dispatcher.standing(&runner).breaker.as_str(), "closed");
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn no_more_than_a_share_of_the_peers_is_ejected() {
    let engines = (0..10).map(|number| taking(if number < 4 { MS * 900 } else { MS * 100 })).collect();
    let setup = setup(engines, same);
    setup.ask_times(10 * 25).await;
    assert_eq!(setup.ejected().len(), 3, "three of ten, though four are slow");
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_ones_serve_whatever_is_thought_of_them() {
    let mut engines = vec![taking(MS * 400)];
    engines.extend((0..5).map(|_| taking(MS * 100)));
    let setup = setup(engines, same);
    setup.ask_times(6 * 22).await;
    assert_eq!(setup.ejected(), ["r0"]);
    for id in ["r1", "r2", "r3", "r4", "r5"] {
        let key = setup.registry.fleet().runner(id).unwrap().key().clone();
        setup.registry.update(&key, gateway_core::RunnerChange::Drain(true));
    }
    let before = setup.recorder.tries_on("r0");
    setup.ask_times(20).await;
    assert_eq!(setup.recorder.tries_on("r0"), before + 20);
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn few_peers_are_not_compared_and_off_is_off() {
    for (peers, outliers) in [(4, strict().outliers), (6, None)] {
        let mut engines = vec![taking(MS * 900)];
        engines.extend((1..peers).map(|_| taking(MS * 100)));
        let health = HealthPolicy { outliers, ..HealthPolicy::default() };
        let setup = setup(engines, |builder| builder.health(health));
        setup.ask_times(peers * 40).await;
        assert_eq!(setup.ejected(), [""; 0]);
    }
}
