//! A runner that comes back gets its share slowly; the first runners of a fleet are simply there.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Setup, fine, model, same, setup, spec};
use gateway_core::{
    Balancer, BestFit, HealthPolicy, LeastLoaded, LeaveReason, Registry, RoundRobin, RunnerStatus,
    WarmupPolicy,
};
use gateway_testkit::{request, text};
use tokio::time::advance;

const SECOND: Duration = Duration::from_secs(1);

impl Setup {
    fn leave(&self, id: &str) {
        let key = self.registry.fleet().runner(id).unwrap().key().clone();
        assert!(self.registry.leave(&key, LeaveReason::Disconnected));
    }

    fn join(&self, id: &str) {
        self.registry.join(spec(id), RunnerStatus::serving([model()]), self.engines[0].link());
    }

    fn warming(&self, id: &str) -> Option<f64> {
        self.dispatcher.standing(self.registry.fleet().runner(id).unwrap()).warming
    }

    /// How many of so many requests, one after the other, a runner gets.
    async fn share_of(&self, id: &str, requests: u64) -> f64 {
        let before = self.recorder.tries_on(id);
        for _ in 0..requests {
            let answer = self.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
            text(answer.response).await.unwrap();
        }
        (self.recorder.tries_on(id) - before) as f64 / requests as f64
    }
}

fn four(change: impl FnOnce(gateway_core::DispatcherBuilder) -> gateway_core::DispatcherBuilder) -> Setup {
    fastrand::seed(7);
    setup(vec![fine(), fine(), fine(), fine()], change)
}

fn about(share: f64, wanted: f64) -> bool {
    (share - wanted).abs() < 0.03
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_gets_its_share_slowly() {
    let balancers: [fn() -> Arc<dyn Balancer>; 3] =
        [|| Arc::new(RoundRobin::default()), || Arc::new(LeastLoaded::default()), || Arc::new(BestFit)];
    for balancer in balancers {
        let name = balancer().name();
        let setup = four(|builder| builder.balancer(balancer()));
        let share = setup.share_of("r0", 3_000).await;
        assert!(about(share, 0.25), "{name}: {share} at first: nobody starts slowly");
        setup.leave("r0");
        advance(SECOND).await;
        setup.join("r0");
        // A tenth of the times it is one of four.
        let share = setup.share_of("r0", 3_000).await;
        assert!(about(share, 0.025), "{name}: {share} when it is back");
        advance(WarmupPolicy::OVER / 2).await;
        let share = setup.share_of("r0", 3_000).await;
        assert!(about(share, 0.125), "{name}: {share} half way");
        advance(WarmupPolicy::OVER / 2).await;
        let share = setup.share_of("r0", 3_000).await;
        assert!(about(share, 0.25), "{name}: {share} at the end");
        assert!(!setup.registry.fleet().runner("r0").unwrap().is_draining());
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_runner_that_is_back_is_not_flooded() {
    let setup = four(|builder| builder.balancer(Arc::new(LeastLoaded::default())));
    setup.leave("r0");
    let status = RunnerStatus::serving([model()]);
    setup.registry.join(spec("r0").slots(20), status, setup.engines[0].link());
    let runner = setup.registry.fleet().runner("r0").unwrap().clone();
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap());
    }
    assert_eq!(runner.load().in_flight, 2, "a tenth of its slots, though it would be the least loaded");
    drop(held);
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn who_replaces_its_own_registration_comes_back_too() {
    let setup = four(same);
    assert_eq!(setup.warming("r0"), None);
    setup.join("r0");
    assert_eq!(setup.warming("r0"), Some(0.1));
    // What it says of itself afterwards changes nothing of that.
    let key = setup.registry.fleet().runner("r0").unwrap().key().clone();
    advance(SECOND * 6).await;
    let status = RunnerStatus::serving([]);
    setup.registry.update(&key, gateway_core::RunnerChange::Status(status));
    assert_eq!(setup.warming("r0"), Some(0.2));
}

#[tokio::test(start_paused = true)]
async fn who_was_away_for_long_or_never_here_is_simply_there() {
    let setup = four(same);
    setup.leave("r0");
    advance(SECOND * 600).await;
    setup.join("r0");
    assert_eq!(setup.warming("r0"), None);
    setup.join("new");
    assert_eq!(setup.warming("new"), None);
    setup.leave("r0");
    advance(SECOND * 599).await;
    setup.join("r0");
    assert_eq!(setup.warming("r0"), Some(0.1));
}

#[tokio::test(start_paused = true)]
async fn who_warms_up_serves_when_nobody_else_can() {
    let setup = four(same);
    for id in ["r1", "r2", "r3"] {
        setup.leave(id);
    }
    setup.join("r0");
    assert_eq!(setup.share_of("r0", 50).await, 1.0);
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn how_slowly_is_for_the_policy_to_say() {
    let policy = |warmup| HealthPolicy { warmup, ..HealthPolicy::default() };
    for warmup in [None, Some(WarmupPolicy { over: Duration::ZERO, ..WarmupPolicy::default() })] {
        let setup = four(|builder| builder.health(policy(warmup)));
        setup.join("r0");
        let share = setup.share_of("r0", 400).await;
        assert!(about(share, 0.25), "{share}");
    }
    let warmup = Some(WarmupPolicy { over: SECOND * 100, from: 0.6 });
    let setup = four(|builder| builder.health(policy(warmup)));
    setup.join("r0");
    assert_eq!(setup.warming("r0"), Some(0.6));
    advance(SECOND * 80).await;
    assert_eq!(setup.warming("r0"), Some(0.8));
}
