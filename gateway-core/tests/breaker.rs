//! A runner that fails is left alone, is tried with a counted number of requests, and comes back. Clients
//! cannot bring that about.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Setup, fine, model, same, setup};
use gateway_core::{
    Balancer, BestFit, BreakerState, DispatchErrorKind, Dispatched, HealthPolicy, HeldFor, HoldPolicy,
    LeastLoaded, Listener, Outcome, Refusal, Registry, RoundRobin, Runner, Standing,
};
use gateway_testkit::{Fault, MockEngine, Script, request, text};
use http::header::RETRY_AFTER;
use tokio::time::advance;

const SECOND: Duration = Duration::from_secs(1);

/// What an engine does at the moment.
#[derive(Debug, Clone, Copy)]
enum Mood {
    Fine,
    Status(u16),
    Fault(Fault),
    Busy { retry_after: &'static str },
}

/// An engine whose mood the test changes.
#[derive(Clone)]
struct Moody(Arc<Mutex<Mood>>);

impl Moody {
    fn new(mood: Mood) -> (Self, MockEngine) {
        let moody = Self(Arc::new(Mutex::new(mood)));
        let inner = moody.clone();
        let engine = MockEngine::new(move |_| match *inner.0.lock().unwrap() {
            Mood::Fine => Script::chunks(["one", "two"]),
            Mood::Status(status) => Script::status(status, "no"),
            Mood::Fault(fault) => Script::chunks(["one", "two"]).fault(fault),
            Mood::Busy { retry_after } => Script::status(503, "busy").header(RETRY_AFTER, retry_after),
        });
        (moody, engine)
    }

    fn is(&self, mood: Mood) {
        *self.0.lock().unwrap() = mood;
    }
}

impl Setup {
    fn runner(&self, id: &str) -> Arc<Runner> {
        self.registry.fleet().runner(id).unwrap().clone()
    }

    fn standing(&self, id: &str) -> Standing {
        self.dispatcher.standing(&self.runner(id))
    }

    async fn begin(&self) -> Result<Dispatched, DispatchErrorKind> {
        self.dispatcher.dispatch(request(&model(), "{}")).await.map_err(|error| error.kind())
    }

    /// A whole request: the answer's status, or why there was none.
    async fn ask(&self) -> Result<u16, DispatchErrorKind> {
        let answer = self.begin().await?;
        let status = answer.response.status().as_u16();
        // What breaks off is the recorder's to count.
        let _ = text(answer.response).await;
        Ok(status)
    }

    async fn ask_times(&self, times: usize) {
        for _ in 0..times {
            let _ = self.ask().await;
        }
    }

    /// Waits until the breaker lets probes in.
    async fn until_half_open(&self, id: &str) {
        let BreakerState::Open { until, .. } = self.standing(id).breaker else { panic!("{id} is not open") };
        tokio::time::sleep_until(until).await;
        assert_eq!(self.standing(id).breaker.as_str(), "half_open");
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_fails_is_left_alone_and_comes_back_by_probes() {
    let balancers: [fn() -> Arc<dyn Balancer>; 3] =
        [|| Arc::new(RoundRobin::default()), || Arc::new(LeastLoaded::default()), || Arc::new(BestFit)];
    for balancer in balancers {
        fastrand::seed(1);
        let (moody, engine) = Moody::new(Mood::Status(500));
        let setup = setup(vec![engine, fine()], |builder| builder.balancer(balancer()));
        // No client sees a thing.
        for _ in 0..40 {
            assert_eq!(setup.ask().await, Ok(200));
        }
        let name = balancer().name();
        assert_eq!(setup.recorder.tries_on("r0"), 5, "{name}: five faults in a row, and no more");
        assert_eq!(setup.standing("r0").as_str(), "open");

        setup.until_half_open("r0").await;
        for _ in 0..40 {
            assert_eq!(setup.ask().await, Ok(200));
        }
        assert_eq!(setup.recorder.tries_on("r0"), 6, "{name}: one probe, which failed");

        setup.until_half_open("r0").await;
        moody.is(Mood::Fine);
        for _ in 0..40 {
            assert_eq!(setup.ask().await, Ok(200));
        }
        assert_eq!(setup.standing("r0").breaker, BreakerState::Closed, "{name}");
        assert_eq!(setup.standing("r0").warming, Some(0.1), "{name}");
        advance(SECOND * 30).await;
        let before = setup.recorder.tries_on("r0");
        setup.ask_times(40).await;
        assert!(setup.recorder.tries_on("r0") >= before + 10, "{name}: like any other again");
        assert!(setup.standing("r0").is_good());
        setup.all_zero().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_lets_nobody_in_even_if_there_is_nobody_else() {
    let (_, engine) = Moody::new(Mood::Fault(Fault::CutBeforeHead));
    let setup = setup(vec![engine], same);
    setup.ask_times(5).await;
    let error = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap_err();
    assert_eq!(error.kind(), DispatchErrorKind::NoneEligible);
    assert_eq!(error.refusals(), [(setup.runner("r0").id().clone(), Refusal::CircuitOpen)]);
    assert!(error.is_retryable());
    advance(SECOND * 3).await;
    let error = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap_err();
    assert!(error.retry_after().unwrap() <= SECOND * 3, "when its breaker lets somebody try");
    assert!(setup.runner("r0").try_reserve().is_none(), "nor by the back door");
    assert_eq!(setup.recorder.tries(), 5);
    setup.all_zero().await;
}

/// Whose breaker is open, with an engine whose answers the test feeds.
async fn half_open() -> (Setup, Arc<Mutex<Vec<gateway_testkit::ChunkSender>>>) {
    let feeds: Arc<Mutex<Vec<_>>> = Arc::default();
    let (opened, inner) = (AtomicUsize::new(0), feeds.clone());
    let engine = MockEngine::new(move |_| {
        if opened.fetch_add(1, Ordering::Relaxed) < 5 {
            return Script::status(500, "no");
        }
        let (feed, script) = Script::fed();
        inner.lock().unwrap().push(feed);
        script
    });
    let setup = setup(vec![engine], same);
    setup.ask_times(5).await;
    setup.until_half_open("r0").await;
    (setup, feeds)
}

#[tokio::test(start_paused = true)]
async fn one_probe_at_a_time_until_it_has_begun_to_answer() {
    let (setup, feeds) = half_open().await;
    let setup = Arc::new(setup);
    let begin = |setup: &Arc<Setup>| {
        let setup = setup.clone();
        tokio::spawn(async move { setup.begin().await })
    };
    let first = begin(&setup);
    setup.engines[0].until(|counts| counts.started == 6).await;
    // Busy with its probe: a reason to wait, no reason to give up.
    assert_eq!(setup.begin().await.unwrap_err(), DispatchErrorKind::Overloaded);
    assert_eq!(setup.engines[0].counts().started, 6);

    let first_feed = feeds.lock().unwrap().remove(0);
    assert!(first_feed.send("one").await);
    let first = first.await.unwrap().unwrap();
    assert!(matches!(setup.standing("r0").breaker, BreakerState::HalfOpen { probing: 0, passed: 1, .. }));

    let second = begin(&setup);
    setup.engines[0].until(|counts| counts.started == 7).await;
    let second_feed = feeds.lock().unwrap().remove(0);
    assert!(second_feed.send("one").await);
    let second = second.await.unwrap().unwrap();
    assert_eq!(setup.standing("r0").breaker, BreakerState::Closed, "long before the answers have ended");
    drop((first_feed, second_feed));
    assert_eq!(text(first.response).await.unwrap(), "one");
    assert_eq!(text(second.response).await.unwrap(), "one");
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_breaks_off_after_it_began_opens_it_again() {
    let (setup, feeds) = half_open().await;
    let (answer, ()) = tokio::join!(setup.begin(), async {
        setup.engines[0].until(|counts| counts.started == 6).await;
        let feed = feeds.lock().unwrap().remove(0);
        feed.send("one").await;
        feed.cut().await;
    });
    assert!(text(answer.unwrap().response).await.is_err());
    assert!(matches!(setup.standing("r0").breaker, BreakerState::Open { times: 2, .. }));
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_gives_its_place_back() {
    let (setup, _feeds) = half_open().await;
    for started in 6..16 {
        tokio::select! {
            answer = setup.begin() => panic!("{answer:?}"),
            _ = setup.engines[0].until(|counts| counts.started == started) => {}
        }
        let standing = setup.standing("r0").breaker;
        assert!(matches!(standing, BreakerState::HalfOpen { probing: 0, passed: 0, .. }), "{standing:?}");
    }
    // Nor does one that was never used keep it.
    let reservation = setup.runner("r0").try_reserve();
    assert!(reservation.is_some() && setup.runner("r0").try_reserve().is_none());
    drop(reservation);
    assert!(setup.runner("r0").try_reserve().is_some());
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_but_a_runners_fault_opens_it() {
    let harmless = [
        Mood::Status(400),
        Mood::Status(404),
        Mood::Status(422),
        Mood::Status(429),
        Mood::Status(501),
        Mood::Status(503),
        Mood::Fault(Fault::Unreachable),
    ];
    for mood in harmless {
        let (moody, engine) = Moody::new(mood);
        let setup = setup(vec![engine], same);
        setup.ask_times(100).await;
        assert_eq!(setup.standing("r0").breaker, BreakerState::Closed, "{mood:?}");
        assert_eq!(setup.recorder.tries(), 100, "{mood:?}: all of them went there");

        // Nor do they bring one that is half-open to a verdict.
        moody.is(Mood::Status(500));
        setup.ask_times(5).await;
        setup.until_half_open("r0").await;
        moody.is(mood);
        setup.ask_times(20).await;
        let standing = setup.standing("r0").breaker;
        assert!(matches!(standing, BreakerState::HalfOpen { probing: 0, passed: 0, .. }), "{mood:?}");
        assert_eq!(setup.recorder.tries(), 125, "{mood:?}");
        setup.all_zero().await;
    }
    // Clients that leave.
    let setup = setup(vec![MockEngine::new(|_| Script::text("x").fault(Fault::NoAnswer))], same);
    for started in 1..=100 {
        tokio::select! {
            answer = setup.begin() => panic!("{answer:?}"),
            _ = setup.engines[0].until(|counts| counts.started == started) => {}
        }
    }
    assert!(setup.standing("r0").is_good());
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_fault_opens_it() {
    let faults = [
        Mood::Status(500),
        Mood::Status(401),
        Mood::Fault(Fault::CutBeforeHead),
        Mood::Fault(Fault::CutBeforeFirstByte),
        Mood::Fault(Fault::CutAfter(1)),
        Mood::Fault(Fault::NoAnswer),
        Mood::Fault(Fault::StallAfter(1)),
    ];
    for mood in faults {
        let (_, engine) = Moody::new(mood);
        let setup = setup(vec![engine], same);
        setup.ask_times(5).await;
        assert_eq!(setup.standing("r0").as_str(), "open", "{mood:?}");
        setup.all_zero().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_reached_is_not_hammered_but_tried_if_there_is_nobody_else() {
    let (moody, engine) = Moody::new(Mood::Fault(Fault::Unreachable));
    let setup = setup(vec![engine, fine()], same);
    setup.ask_times(40).await;
    assert_eq!(setup.recorder.tries_on("r0"), 3);
    let standing = setup.standing("r0");
    assert!(matches!(standing.held, Some((_, HeldFor::Unreachable))));
    assert_eq!(standing.breaker, BreakerState::Closed, "that is no fault of its own");
    advance(Duration::from_millis(500)).await;
    setup.ask_times(40).await;
    assert_eq!(setup.recorder.tries_on("r0"), 4, "held back again, for longer");

    moody.is(Mood::Fine);
    let other = setup.runner("r1").key().clone();
    setup.registry.update(&other, gateway_core::RunnerChange::Drain(true));
    assert_eq!(setup.ask().await, Ok(200), "nobody else is there");
    assert_eq!(setup.recorder.tries_on("r0"), 5);
    assert!(setup.standing("r0").is_good(), "it was reached");
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_asks_for_a_pause_gets_it() {
    let (_, engine) = Moody::new(Mood::Busy { retry_after: "7" });
    let (_, vague) = Moody::new(Mood::Busy { retry_after: "soon" });
    let setup = setup(vec![engine, vague, fine()], same);
    setup.ask_times(30).await;
    assert_eq!((setup.recorder.tries_on("r0"), setup.recorder.tries_on("r1")), (1, 1));
    assert_eq!(setup.standing("r0").as_str(), "asked_to_wait");
    advance(HoldPolicy::SHORTEST).await;
    setup.ask_times(30).await;
    assert_eq!(setup.recorder.tries_on("r1"), 2, "it did not say for how long: briefly");
    advance(SECOND * 7 - HoldPolicy::SHORTEST).await;
    setup.ask_times(30).await;
    assert_eq!((setup.recorder.tries_on("r0"), setup.recorder.tries_on("r1")), (2, 3));
    assert_eq!(setup.recorder.count(Outcome::Success), 90);
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_off_spares_nobody() {
    let (_, engine) = Moody::new(Mood::Status(500));
    let setup = setup(vec![engine, fine()], |builder| builder.health(HealthPolicy::off()));
    setup.ask_times(40).await;
    assert!(setup.recorder.tries_on("r0") >= 20, "{}", setup.recorder.tries_on("r0"));
    assert!(setup.standing("r0").is_good());
    setup.all_zero().await;
}

#[derive(Default)]
struct Heard {
    slots: AtomicUsize,
    changes: AtomicUsize,
}

impl Listener for Heard {
    fn slot_freed(&self, _: &Arc<Runner>) {
        self.slots.fetch_add(1, Ordering::Relaxed);
    }

    fn fleet_changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_told_when_probes_pass() {
    let (setup, feeds) = half_open().await;
    let heard = Arc::new(Heard::default());
    let weak = Arc::downgrade(&heard);
    let fleet = setup.registry.fleet();
    fleet.bell().listen(weak);
    let _waiting = fleet.bell().wait();
    let mut answers = Vec::new();
    for (started, wanted) in [(6, (1, 0)), (7, (1, 1))] {
        let (answer, feed) = tokio::join!(setup.begin(), async {
            setup.engines[0].until(|counts| counts.started == started).await;
            let feed = feeds.lock().unwrap().remove(0);
            feed.send("one").await;
            feed
        });
        answers.push((answer.unwrap(), feed));
        // The place of the first is free; the second closed it, so that as many may come as there are slots.
        let heard = (heard.slots.load(Ordering::Relaxed), heard.changes.load(Ordering::Relaxed));
        assert_eq!(heard, wanted);
    }
    drop(answers);
    setup.all_zero().await;
}
