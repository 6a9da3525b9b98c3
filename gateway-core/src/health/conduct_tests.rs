use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::{
    Admitted, BreakerPolicy, BreakerState, Change, Conduct, HealthPolicy, HeldFor, HoldPolicy, Probe,
    Reluctance, WarmupPolicy,
};
use crate::dispatch::{Cancel, Fault, Outcome};
use crate::runner::Board;

const SECOND: Duration = Duration::from_secs(1);
const FAULT: Outcome = Outcome::RunnerFault(Fault::Status);

/// One runner, its policy and its time.
struct Scene {
    conduct: Conduct,
    policy: HealthPolicy,
    now: Instant,
}

impl Scene {
    fn new(policy: HealthPolicy) -> Self {
        let (board, now) = (Arc::new(Board::default()), Instant::now());
        // The sign outlives the seat here, and nobody else is on the board.
        let sign = board.seat(None).sign();
        Self { conduct: Conduct::new(now, 7, sign), policy, now }
    }

    fn breaker(policy: BreakerPolicy) -> Self {
        Self::new(HealthPolicy { breaker: Some(policy), ..HealthPolicy::off() })
    }

    fn admit(&self) -> Option<Option<Probe>> {
        self.conduct.admit(|| self.now).map(|admitted| match admitted {
            Admitted::Freely => None,
            Admitted::Probing(probe) => Some(probe),
        })
    }

    fn end(&self, mut probe: Option<Probe>, outcome: Outcome) -> Option<Change> {
        self.conduct.record(outcome, None, probe.as_mut(), self.now, &self.policy)
    }

    /// A whole request, if it is let in.
    fn request(&self, outcome: Outcome) -> Option<Change> {
        self.end(self.admit()?, outcome)
    }

    fn state(&self) -> BreakerState {
        self.conduct.standing(self.now, &self.policy).breaker
    }

    fn reluctance(&self, chance: f64) -> Option<Reluctance> {
        self.conduct.reluctance(self.now, chance, None, &self.policy)
    }

    fn open_for(&self) -> Duration {
        match self.state() {
            BreakerState::Open { until, .. } => until - self.now,
            other => panic!("{other}"),
        }
    }
}

#[test]
fn five_faults_in_a_row_open_it_and_two_probes_close_it() {
    let mut scene = Scene::breaker(BreakerPolicy::default());
    for _ in 0..3 {
        (0..4).for_each(|_| assert_eq!(scene.request(FAULT), None));
        assert_eq!(scene.request(Outcome::Success), None, "not in a row");
    }
    (0..4).for_each(|_| assert_eq!(scene.request(FAULT), None));
    assert_eq!(scene.request(FAULT), Some(Change::Opened));
    assert!(scene.admit().is_none() && scene.reluctance(0.0).is_none());
    let time = scene.open_for();
    assert!((4.5..=5.5).contains(&time.as_secs_f64()), "{time:?}");
    scene.now += time;
    assert_eq!(scene.state().as_str(), "half_open");
    let probe = scene.admit().unwrap();
    assert!(probe.is_some() && scene.admit().is_none(), "one probe at once");
    assert_eq!(scene.end(probe, Outcome::Success), None);
    assert_eq!(scene.request(Outcome::Success), Some(Change::Closed));
    assert_eq!(scene.state(), BreakerState::Closed);
    assert_eq!(scene.request(FAULT), None, "what led to the opening is forgotten");
}

#[test]
fn half_of_the_requests_failing_opens_it_if_there_were_enough() {
    let mut scene = Scene::breaker(BreakerPolicy::default());
    for _ in 0..9 {
        assert_eq!((scene.request(FAULT), scene.request(Outcome::Success)), (None, None));
    }
    scene.now += HealthPolicy::WINDOW;
    for _ in 0..9 {
        assert_eq!((scene.request(FAULT), scene.request(Outcome::Success)), (None, None), "too few");
    }
    assert_eq!(scene.request(Outcome::Success), None);
    assert_eq!(scene.request(FAULT), Some(Change::Opened), "ten of twenty");

    let mut scene = Scene::breaker(BreakerPolicy { fault_rate: 2.0, ..BreakerPolicy::default() });
    for _ in 0..100 {
        assert_eq!((scene.request(FAULT), scene.request(Outcome::Success)), (None, None), "turned off");
    }
    scene.policy.breaker = Some(BreakerPolicy { consecutive_faults: 0, ..BreakerPolicy::default() });
    assert_eq!(scene.request(FAULT), Some(Change::Opened));
}

#[test]
fn open_times_double_with_every_opening_until_it_was_well_for_long() {
    let mut scene = Scene::breaker(BreakerPolicy::default());
    (0..5).for_each(|_| _ = scene.request(FAULT));
    for expected in [5.0, 10.0, 20.0, 40.0, 60.0, 60.0] {
        let time = scene.open_for();
        assert!((0.9 * expected..=1.1 * expected).contains(&time.as_secs_f64()), "{time:?}, {expected}");
        assert!(time <= BreakerPolicy::LONGEST_OPEN);
        scene.now += time;
        assert_eq!(scene.request(FAULT), Some(Change::Opened), "one probe that fails is enough");
    }
    let open_again = |scene: &mut Scene, after: Duration| {
        scene.now += scene.open_for();
        (0..2).for_each(|_| _ = scene.request(Outcome::Success));
        scene.now += after;
        (0..5).for_each(|_| _ = scene.request(FAULT));
        scene.open_for()
    };
    assert!(open_again(&mut scene, SECOND) > SECOND * 50, "that was no recovery");
    assert!(open_again(&mut scene, BreakerPolicy::LONGEST_OPEN) < SECOND * 6);
}

#[test]
fn the_first_byte_passes_a_probe_and_what_breaks_off_later_is_a_fault() {
    let mut scene = Scene::breaker(BreakerPolicy::default());
    (0..5).for_each(|_| _ = scene.request(FAULT));
    scene.now += scene.open_for();
    let mut first = scene.admit().unwrap().unwrap();
    assert_eq!(scene.conduct.proved(&mut first, scene.now, &scene.policy), None);
    let mut second = scene.admit().unwrap().unwrap();
    assert_eq!(scene.end(Some(first), FAULT), Some(Change::Opened), "the first breaks off");
    assert_eq!(scene.conduct.proved(&mut second, scene.now, &scene.policy), None, "too late");
    scene.now += scene.open_for();
    let mut first = scene.admit().unwrap().unwrap();
    assert_eq!(scene.conduct.proved(&mut first, scene.now, &scene.policy), None);
    let mut second = scene.admit().unwrap().unwrap();
    assert_eq!(scene.conduct.proved(&mut second, scene.now, &scene.policy), Some(Change::Closed));
    assert_eq!(scene.end(Some(first), Outcome::Success), None, "counted once");
    assert_eq!(scene.end(Some(second), FAULT), None, "a fault like any other");
}

#[test]
fn who_cannot_be_reached_is_held_back_and_tried_if_there_is_nobody_else() {
    let mut scene = Scene::new(HealthPolicy::default());
    (0..2).for_each(|_| assert_eq!(scene.request(Outcome::NeverSent), None));
    assert_eq!(scene.reluctance(0.0), Some(Reluctance::None));
    assert_eq!(scene.request(Outcome::NeverSent), Some(Change::Held));
    assert_eq!(scene.reluctance(0.0), Some(Reluctance::Much));
    let standing = scene.conduct.standing(scene.now, &scene.policy);
    assert_eq!(standing.held, Some((scene.now + HoldPolicy::SHORTEST, HeldFor::Unreachable)));
    assert_eq!((standing.as_str(), standing.breaker), ("unreachable", BreakerState::Closed));
    assert_eq!(scene.request(Outcome::Cancelled(Cancel::ByCaller)), None);
    assert_eq!(scene.reluctance(0.0), Some(Reluctance::Much), "that proved nothing");
    scene.now += HoldPolicy::SHORTEST;
    assert_eq!(scene.reluctance(0.0), Some(Reluctance::None));
    assert!(scene.conduct.is_ordinary(), "all is over, and forgotten");
    assert_eq!(scene.request(Outcome::NeverSent), Some(Change::Held), "for longer");
    scene.request(Outcome::ClientFault);
    assert_eq!(scene.reluctance(0.0), Some(Reluctance::None), "it answered");
}

#[test]
fn who_asks_for_a_pause_gets_it() {
    let mut scene = Scene::new(HealthPolicy::default());
    let busy = |scene: &Scene, outcome| {
        scene.conduct.record(outcome, Some(SECOND * 7), None, scene.now, &scene.policy)
    };
    assert_eq!(busy(&scene, Outcome::ClientFault), None);
    assert_eq!(scene.reluctance(0.0), Some(Reluctance::None));
    assert_eq!(busy(&scene, Outcome::Overloaded), None);
    assert_eq!(scene.reluctance(0.0), Some(Reluctance::Much));
    assert_eq!(scene.conduct.standing(scene.now, &scene.policy).as_str(), "asked_to_wait");
    scene.now += SECOND * 7;
    assert_eq!(scene.reluctance(0.0), Some(Reluctance::None));
}

#[test]
fn who_comes_back_starts_slowly() {
    let mut scene = Scene::new(HealthPolicy::default());
    scene.conduct.came_back(scene.now);
    assert_eq!(scene.reluctance(0.09), Some(Reluctance::None));
    assert_eq!(scene.reluctance(0.11), Some(Reluctance::Some));
    scene.now += WarmupPolicy::OVER / 2;
    assert_eq!(scene.conduct.standing(scene.now, &scene.policy).warming, Some(0.5));
    let busy = |taken| scene.conduct.reluctance(scene.now, 0.0, Some((taken, 8)), &scene.policy);
    assert_eq!(busy(3), Some(Reluctance::None));
    assert_eq!(busy(4), Some(Reluctance::Some), "half of its slots");
    scene.now += WarmupPolicy::OVER / 2;
    assert_eq!(scene.reluctance(1.0), Some(Reluctance::None));
    assert!(scene.conduct.is_ordinary());

    let mut scene = Scene::new(HealthPolicy::default());
    (0..5).for_each(|_| _ = scene.request(FAULT));
    scene.now += scene.open_for();
    (0..2).for_each(|_| _ = scene.request(Outcome::Success));
    assert_eq!(scene.reluctance(0.5), Some(Reluctance::Some), "so does one whose breaker closed");
}

#[test]
fn what_is_turned_off_does_nothing() {
    let scene = Scene::new(HealthPolicy::off());
    for outcome in Outcome::ALL {
        (0..50).for_each(|_| {
            scene.conduct.record(outcome, Some(SECOND), None, scene.now, &scene.policy);
        });
    }
    scene.conduct.came_back(scene.now);
    assert_eq!(scene.reluctance(1.0), Some(Reluctance::None));
    assert!(scene.conduct.standing(scene.now, &scene.policy).is_good());
}

#[test]
fn the_board_says_who_has_to_be_looked_at() {
    let board = Arc::new(Board::default());
    let seat = board.seat(None);
    let mut scene = Scene::new(HealthPolicy::default());
    scene.conduct = Conduct::new(scene.now, 7, seat.sign());
    assert!(!board.has_reluctant());
    (0..5).for_each(|_| _ = scene.request(FAULT));
    assert!(board.has_reluctant());
    scene.now += scene.open_for();
    (0..2).for_each(|_| _ = scene.request(Outcome::Success));
    assert!(board.has_reluctant(), "it warms up");
    scene.now += WarmupPolicy::OVER;
    scene.reluctance(1.0);
    assert!(!board.has_reluctant());
}

fn says_nothing(outcome: Outcome) -> bool {
    !matches!(outcome, Outcome::Success | Outcome::RunnerFault(_))
}

fn any_policy() -> impl Strategy<Value = BreakerPolicy> {
    (0u32..4, 0.1..1.5, 1u32..8, 1u8..4, 1u8..4).prop_map(|(row, fault_rate, min_requests, probes, close)| {
        BreakerPolicy {
            consecutive_faults: row,
            fault_rate,
            min_requests,
            probes,
            close_after: close,
            ..BreakerPolicy::default()
        }
    })
}

proptest! {
    /// Whatever a client does wrong, however busy a runner is and whatever is given up: the breaker is where it
    /// would be without.
    #[test]
    fn the_breaker_ignores_every_client_fault(
        policy in any_policy(),
        requests in prop::collection::vec((0u64..4_000, prop::sample::select(Outcome::ALL.to_vec())), 1..200),
    ) {
        let (mut with, mut without) = (Scene::breaker(policy), Scene::breaker(policy));
        without.now = with.now;
        without.conduct = Conduct::new(with.now, 7, Arc::new(Board::default()).seat(None).sign());
        for (ms, outcome) in requests {
            with.now += Duration::from_millis(ms);
            without.now = with.now;
            let change = with.request(outcome);
            if says_nothing(outcome) {
                prop_assert_eq!(change, None);
            } else {
                prop_assert_eq!(change, without.request(outcome));
            }
            prop_assert_eq!(with.state(), without.state());
        }
    }

    /// However requests overlap and end: never more probes than places, and all places are given back.
    #[test]
    fn probes_are_counted(
        policy in any_policy(),
        steps in prop::collection::vec((0u64..4_000, any::<bool>(), any::<prop::sample::Index>(),
            prop::sample::select(Outcome::ALL.to_vec()), any::<bool>()), 1..300),
    ) {
        let mut scene = Scene::breaker(policy);
        let mut under_way: Vec<Option<Probe>> = Vec::new();
        for (ms, starts, which, outcome, begins) in steps {
            scene.now += Duration::from_millis(ms);
            if starts || under_way.is_empty() {
                under_way.extend(scene.admit());
            } else {
                let mut probe = under_way.swap_remove(which.index(under_way.len()));
                if let (Some(probe), true) = (&mut probe, begins) {
                    scene.conduct.proved(probe, scene.now, &scene.policy);
                }
                scene.end(probe, outcome);
            }
            let probes = under_way.iter().flatten().count();
            prop_assert!(probes <= usize::from(policy.probes));
            if let BreakerState::HalfOpen { probing, .. } = scene.state() {
                prop_assert_eq!(usize::from(probing), probes);
            }
        }
        for probe in under_way {
            scene.end(probe, Outcome::Cancelled(Cancel::ByCaller));
        }
        if let BreakerState::HalfOpen { probing, .. } = scene.state() {
            prop_assert_eq!(probing, 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_way_of_ending_is_counted() {
    let scene = Scene::new(HealthPolicy::off());
    for (times, outcome) in Outcome::ALL.into_iter().enumerate() {
        (0..times).for_each(|_| assert_eq!(scene.request(outcome), None));
    }
    let counted: Vec<_> = scene.conduct.outcomes().collect();
    assert_eq!(counted, Outcome::ALL.into_iter().zip(0..).collect::<Vec<_>>());
}
