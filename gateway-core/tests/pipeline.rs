//! Filters, weighted scorers, picker: what each of them does to a choice.

mod fleet;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleet::{TestFleet, counts, needs, spec, status, tokens, value};
use gateway_core::pipeline::{
    DeadlineFilter, Filter, LabelFilter, LabelScorer, LoadScorer, MaxLoadFilter, Picker, PipelineBuilder,
    PipelineError, Scale, Scene, Scorer, SessionScorer, TokensScorer,
};
use gateway_core::{
    Attempt, Balancer, Dispatcher, InMemoryRegistry, Pipeline, Registry, Requirements, Reservation, Runner,
    RunnerChange,
};

/// A value by the runner's id, on any scale.
struct Fixed {
    scale: Scale,
    values: &'static [(&'static str, f64)],
}

impl Scorer for Fixed {
    fn name(&self) -> &'static str {
        "fixed"
    }

    fn score(&self, _: &Requirements, runner: &Runner, _: &Scene) -> Option<f64> {
        self.values.iter().find(|(id, _)| *id == runner.id().as_str()).map(|(_, value)| *value)
    }

    fn scale(&self) -> Scale {
        self.scale
    }
}

fn fixed(values: &'static [(&'static str, f64)]) -> Fixed {
    Fixed { scale: Scale::Share, values }
}

fn build(builder: PipelineBuilder) -> Pipeline {
    builder.build().unwrap()
}

fn abc(slots: u32) -> TestFleet {
    let fleet = TestFleet::new();
    for id in ["a", "b", "c"] {
        fleet.join(spec(id).slots(slots), status());
    }
    fleet
}

/// How often each is picked, given back at once.
fn picks(fleet: &TestFleet, strategy: &Pipeline, times: u32) -> BTreeMap<String, u32> {
    let mut picks = BTreeMap::new();
    for _ in 0..times {
        *picks.entry(fleet.picked(strategy, &needs())).or_default() += 1;
    }
    picks
}

#[test]
fn the_weighted_sum_decides() {
    let fleet = abc(0);
    const ONE: &[(&str, f64)] = &[("a", 1.0), ("b", 0.5), ("c", 0.0)];
    const OTHER: &[(&str, f64)] = &[("a", 0.0), ("b", 0.6), ("c", 1.0)];
    let mix =
        |one, other| build(Pipeline::builder("mix").scorer(fixed(ONE), one).scorer(fixed(OTHER), other));
    // 0.5 one + 0.6 other is most while neither weighs much more than the other.
    for (one, other, best) in [(3.0, 1.0, "a"), (1.0, 1.0, "b"), (1.0, 3.0, "c"), (1e300, 1e300, "b")] {
        assert_eq!(fleet.picked(&mix(one, other), &needs()), best, "{one} to {other}");
    }
}

#[test]
fn equals_are_drawn_evenly() {
    let fleet = abc(0);
    let strategy = build(Pipeline::builder("equals").scorer(LoadScorer, 1.0));
    let picks = picks(&fleet, &strategy, 9_000);
    // 3,000 each, give or take six standard deviations (45 each).
    assert!(picks.values().all(|count| (2_730..=3_270).contains(count)), "{picks:?}");
}

#[test]
fn a_filter_leaves_out_and_a_preference_goes_first() {
    let fleet = TestFleet::new();
    for (id, zone) in [("near", "eu"), ("far", "us")] {
        fleet.join(spec(id).label("zone", zone).slots(2), status());
    }
    let strict = Pipeline::builder("strict").filter(LabelFilter::new("zone", "eu")).scorer(LoadScorer, 1.0);
    let held = fleet.burst(&build(strict), &needs(), 4);
    assert_eq!(counts(&held).into_iter().collect::<Vec<_>>(), [("near".to_owned(), 2)], "and nobody else");
    drop(held);
    let wish = Pipeline::builder("wish").prefer(LabelFilter::new("zone", "eu")).scorer(LoadScorer, 1.0);
    let held = fleet.burst(&build(wish), &needs(), 5);
    let order: Vec<_> = held.iter().map(|held| held.runner().id().as_str()).collect();
    assert_eq!(order, ["near", "near", "far", "far"]);
}

#[test]
fn earlier_preferences_go_before_later_ones() {
    let fleet = TestFleet::new();
    for (id, first, second) in
        [("both", "1", "1"), ("first", "1", "0"), ("second", "0", "1"), ("none", "0", "0")]
    {
        fleet.join(spec(id).label("first", first).label("second", second).slots(1), status());
    }
    let strategy = Pipeline::builder("wishes")
        .prefer(LabelFilter::new("first", "1"))
        .prefer(LabelFilter::new("second", "1"))
        .scorer(fixed(&[("none", 1.0)]), 1.0);
    let held = fleet.burst(&build(strategy), &needs(), 4);
    let order: Vec<_> = held.iter().map(|held| held.runner().id().as_str()).collect();
    assert_eq!(order, ["both", "first", "second", "none"]);
}

#[test]
fn amounts_are_compared_with_the_most_of_the_others() {
    let fleet = abc(0);
    const AMOUNTS: &[(&str, f64)] = &[("a", 1_000.0), ("b", 990.0), ("c", 0.0)];
    const SHARES: &[(&str, f64)] = &[("a", 0.1), ("b", 0.0), ("c", 0.0)];
    let strategy = build(
        Pipeline::builder("amounts")
            .filter(Not("c"))
            .scorer(Fixed { scale: Scale::Less, values: AMOUNTS }, 1.0)
            .scorer(fixed(SHARES), 1.0),
    );
    // A hundredth less is worth a hundredth, and not everything.
    assert_eq!(fleet.picked(&strategy, &needs()), "a");
    let amounts_only =
        build(Pipeline::builder("amounts").scorer(Fixed { scale: Scale::Less, values: AMOUNTS }, 1.0));
    assert_eq!(fleet.picked(&amounts_only, &needs()), "c");
}

/// Everybody but one.
struct Not(&'static str);

impl Filter for Not {
    fn name(&self) -> &'static str {
        "not"
    }

    fn keep(&self, _: &Requirements, runner: &Runner, _: &Scene) -> bool {
        runner.id().as_str() != self.0
    }
}

#[test]
fn what_is_not_known_is_neither_good_nor_bad() {
    let fleet = abc(0);
    let pick = |scale, values| {
        let strategy = build(Pipeline::builder("unknown").scorer(Fixed { scale, values }, 1.0));
        fleet.picked(&strategy, &needs())
    };
    assert_eq!(pick(Scale::Share, &[("a", 0.6), ("b", 0.4)]), "a");
    assert_eq!(pick(Scale::Share, &[("a", 0.4), ("b", 0.3)]), "c");
    assert_eq!(pick(Scale::Less, &[("a", 10.0), ("b", 0.0)]), "b");
    assert_eq!(pick(Scale::Share, &[("a", f64::NAN), ("b", 0.4), ("c", 0.4)]), "a");
}

#[test]
fn weighted_draws_are_in_proportion_to_the_totals() {
    let fleet = abc(0);
    const SHARES: &[(&str, f64)] = &[("a", 0.6), ("b", 0.3), ("c", 0.1)];
    let strategy = build(Pipeline::builder("lots").scorer(fixed(SHARES), 7.0).picker(Picker::Weighted));
    let drawn = picks(&fleet, &strategy, 10_000);
    for (id, share) in SHARES {
        let (expected, count) = (share * 10_000.0, f64::from(drawn[*id]));
        let deviation = (expected * (1.0 - share)).sqrt();
        assert!((count - expected).abs() < 6.0 * deviation, "{drawn:?}");
    }
    // Where everybody is worth nothing, everybody is drawn.
    let nothing = Pipeline::builder("nothing").scorer(fixed(&[("a", 0.0), ("b", 0.0), ("c", 0.0)]), 1.0);
    let drawn = picks(&fleet, &build(nothing.picker(Picker::Weighted)), 600);
    assert!(drawn.len() == 3 && drawn.values().all(|count| (130..=270).contains(count)), "{drawn:?}");
}

/// Counts how many runners are looked at.
struct Counting(Arc<AtomicU32>);

impl Scorer for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn score(&self, _: &Requirements, _: &Runner, _: &Scene) -> Option<f64> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Some(1.0)
    }
}

#[test]
fn best_of_looks_at_so_many_and_takes_the_better() {
    let fleet = TestFleet::new();
    let ids: Vec<String> = (0..100).map(|number| format!("r{number:02}")).collect();
    for id in &ids {
        fleet.join(spec(id).slots(1_000), status());
    }
    let looks = Arc::new(AtomicU32::new(0));
    let strategy = build(
        Pipeline::builder("two")
            .scorer(LoadScorer, 1.0)
            .scorer(Counting(looks.clone()), 1.0)
            .picker(Picker::BestOf(2)),
    );
    let held = fleet.burst(&strategy, &needs(), 1_000);
    assert_eq!(looks.load(Ordering::Relaxed), 2_000);
    // Of one choice each, the fullest would have about 10 + 3 sqrt(10) = 19; of two, about ln ln 100 / ln 2
    // more than the mean of 10.
    let counts = counts(&held);
    assert!(counts.len() == 100 && counts.values().all(|count| *count <= 14), "{counts:?}");
}

#[test]
fn best_of_two_never_takes_the_worst_of_three() {
    let fleet = abc(0);
    let strategy = Pipeline::builder("two").scorer(fixed(&[("a", 1.0), ("b", 0.5), ("c", 0.0)]), 1.0);
    let picks = picks(&fleet, &build(strategy.picker(Picker::BestOf(2))), 900);
    assert_eq!(picks.get("c"), None);
    // The best is among two of three in two of three draws: 600, give or take six standard deviations.
    assert!((515..=685).contains(&picks["a"]), "{picks:?}");
}

#[test]
fn best_of_finds_the_only_one_that_is_left() {
    let fleet = TestFleet::new();
    for number in 0..100 {
        fleet.join(spec(&format!("r{number:02}")).slots(1), status());
    }
    let strategy = build(Pipeline::builder("two").scorer(LoadScorer, 1.0).picker(Picker::BestOf(2)));
    assert_eq!(fleet.burst(&strategy, &needs(), 101).len(), 100);
}

#[test]
fn a_session_stays_until_its_runner_is_too_busy() {
    let fleet = abc(10);
    let strategy = build(Pipeline::builder("sticky").scorer(LoadScorer, 1.0).scorer(SessionScorer, 0.5));
    let session = |session| {
        let mut requirements = needs();
        requirements.workload.session = Some(session);
        requirements
    };
    let favourite = fleet.picked(&strategy, &session(7));
    assert!((0..50).all(|_| fleet.picked(&strategy, &session(7)) == favourite));
    // Half of its slots more in use than the others': now a little more than that and it is left.
    let held: Vec<_> = (0..6).map(|_| fleet.runner(&favourite).try_reserve().unwrap()).collect();
    let next = fleet.picked(&strategy, &session(7));
    assert_ne!(next, favourite);
    drop(held);
    assert_eq!(fleet.picked(&strategy, &session(7)), favourite);
    // Sessions are spread, and one that has lost its favourite has a second.
    let favourites: Vec<String> = (0..300).map(|number| fleet.picked(&strategy, &session(number))).collect();
    for id in ["a", "b", "c"] {
        let count = favourites.iter().filter(|favourite| *favourite == id).count();
        assert!((60..=140).contains(&count), "{id}: {count} of 300");
    }
    fleet.registry.update(fleet.runner("a").key(), RunnerChange::Drain(true));
    for (number, favourite) in (0..).zip(&favourites) {
        let now = fleet.picked(&strategy, &session(number));
        assert!(now == *favourite || favourite == "a", "{number}: {favourite}, then {now}");
        assert_eq!(now, fleet.picked(&strategy, &session(number)), "the second one stays as well");
    }
}

#[test]
fn a_burst_spreads_by_load_and_by_tokens() {
    let fleet = abc(0);
    let load = build(Pipeline::builder("load").scorer(LoadScorer, 1.0));
    let held = fleet.burst(&load, &needs(), 30);
    assert_eq!(counts(&held).into_values().collect::<Vec<_>>(), [10, 10, 10]);
    drop(held);
    let by_tokens = build(Pipeline::builder("tokens").scorer(TokensScorer, 1.0));
    let long = fleet.pick(&by_tokens, &tokens(9_000, 100));
    let short = fleet.burst(&by_tokens, &tokens(500, 100), 10);
    assert_eq!(counts(&short).get(long.runner().id().as_str()), None, "the long one has enough to do");
}

#[test]
fn load_and_deadline_filter() {
    let fleet = abc(10);
    let busy = (0..6).map(|_| fleet.runner("a").try_reserve().unwrap()).collect::<Vec<_>>();
    let strategy =
        build(Pipeline::builder("half").filter(MaxLoadFilter::new(0.5)).scorer(fixed(&[("a", 1.0)]), 1.0));
    assert_ne!(fleet.picked(&strategy, &needs()), "a");
    drop(busy);
    assert_eq!(fleet.picked(&strategy, &needs()), "a");
    let in_time = build(Pipeline::builder("in-time").filter(DeadlineFilter).scorer(LoadScorer, 1.0));
    let mut requirements = tokens(1_000, 100);
    assert!(fleet.try_pick(&in_time, &requirements).is_some(), "no deadline, no haste");
    requirements.workload.deadline = Some(Duration::from_secs(10));
    assert!(fleet.try_pick(&in_time, &requirements).is_some());
    requirements.workload.deadline = Some(Duration::from_millis(10));
    assert!(fleet.try_pick(&in_time, &requirements).is_none());
}

#[test]
fn slots_are_filled_and_never_exceeded() {
    for picker in [Picker::Best, Picker::Weighted, Picker::BestOf(2)] {
        let fleet = abc(5);
        let strategy =
            build(Pipeline::builder("full").scorer(LoadScorer, 1.0).scorer(TokensScorer, 1.0).picker(picker));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        let held = fleet.burst(&strategy, &tokens(10, 10), 5);
                        for runner in fleet.registry.fleet().runners() {
                            assert!(runner.load().in_flight <= 5);
                        }
                        drop(held);
                    }
                });
            }
        });
        fleet.assert_all_zero();
        assert_eq!(fleet.burst(&strategy, &needs(), 16).len(), 15, "{picker:?}");
    }
}

/// Somebody else takes the best one as soon as it was looked at: first `a`, then `b`, then `c`.
struct Outrun {
    registry: Arc<InMemoryRegistry>,
    taken: Mutex<Vec<Reservation>>,
    /// Looks that have ended; each ends with `d`.
    looks: AtomicU32,
}

impl Scorer for Outrun {
    fn name(&self) -> &'static str {
        "outrun"
    }

    fn score(&self, _: &Requirements, runner: &Runner, _: &Scene) -> Option<f64> {
        let look = self.looks.load(Ordering::Relaxed) as usize;
        if runner.id().as_str() == "d" {
            self.looks.fetch_add(1, Ordering::Relaxed);
        }
        let mut taken = self.taken.lock().unwrap();
        if taken.len() == look && ["a", "b", "c"].get(look) == Some(&runner.id().as_str()) {
            let fleet = self.registry.fleet();
            taken.push(fleet.runner(runner.id().as_str()).unwrap().try_reserve().unwrap());
            return Some(1.0);
        }
        Some(0.5)
    }
}

#[test]
fn who_loses_every_race_still_finds_the_one_that_is_left() {
    let fleet = abc(1);
    fleet.join(spec("d").label("zone", "eu").slots(1), status());
    fleet.join(spec("e").slots(9), status());
    let outrun =
        Outrun { registry: fleet.registry.clone(), taken: Mutex::default(), looks: AtomicU32::new(0) };
    let strategy = build(Pipeline::builder("outrun").filter(Not("e")).scorer(outrun, 1.0));
    assert_eq!(fleet.picked(&strategy, &needs()), "d");
}

/// Notes what it is told.
#[derive(Default)]
struct Learning {
    chosen: AtomicU32,
    observed: AtomicU32,
}

impl Scorer for Learning {
    fn name(&self) -> &'static str {
        "learning"
    }

    fn score(&self, _: &Requirements, _: &Runner, _: &Scene) -> Option<f64> {
        None
    }

    fn reads_prompts(&self) -> bool {
        true
    }

    fn chosen(&self, _: &Requirements, reservation: Reservation) -> Reservation {
        self.chosen.fetch_add(1, Ordering::Relaxed);
        reservation.with_cached(600).because("learned")
    }

    fn observe(&self, _: &Attempt<'_>) {
        self.observed.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn scorers_learn_of_choices_and_of_what_came_of_them() {
    let fleet = abc(0);
    let learning = Arc::new(Learning::default());
    let strategy = Arc::new(build(Pipeline::builder("learns").scorer(learning.clone(), 1.0)));
    assert!(strategy.reads_prompts());
    let reservation = fleet.pick(&*strategy, &tokens(1_000, 10));
    assert_eq!((reservation.prefill_tokens(), reservation.reason()), (400, Some("learned")));
    let dispatcher = Dispatcher::builder(fleet.registry.clone()).balancer(strategy.clone()).build();
    let answer = dispatcher.dispatch(gateway_testkit::request(&fleet::model(), "{}")).await.unwrap();
    gateway_testkit::text(answer.response).await.unwrap();
    assert_eq!(learning.chosen.load(Ordering::Relaxed), 2);
    assert_eq!(learning.observed.load(Ordering::Relaxed), 1);
    let other = build(Pipeline::builder("does-not").scorer(LoadScorer, 1.0));
    assert!(!other.reads_prompts());
}

#[test]
fn explains_each_part_and_the_total() {
    let fleet = TestFleet::new();
    fleet.join(spec("near").label("zone", "eu").slots(4), status());
    fleet.join(spec("far").slots(4), status());
    let strategy = build(
        Pipeline::builder("mix")
            .filter(MaxLoadFilter::new(0.5))
            .prefer(LabelFilter::new("zone", "us"))
            .scorer(LoadScorer, 3.0)
            .scorer(LabelScorer::new("zone", "eu"), 1.0)
            .scorer(Fixed { scale: Scale::Less, values: &[("near", 2.0), ("far", 8.0)] }, 0.0),
    );
    let held = fleet.pick(&strategy, &needs());
    assert_eq!(held.runner().id().as_str(), "near");
    let near = fleet.scores(&strategy, &needs(), "near");
    let names: Vec<_> = near.iter().map(|score| score.name).collect();
    assert_eq!(names, ["max-load", "label", "load", "label", "fixed", "total"]);
    let values: Vec<_> = near.iter().map(|score| score.value).collect();
    assert_eq!(values, [1.0, 0.0, 0.75, 1.0, 0.75, 0.75 * 0.75 + 0.25]);
    let far = fleet.scores(&strategy, &needs(), "far");
    assert_eq!((value(&far, "fixed"), value(&far, "total")), (Some(0.0), Some(0.75)));
    assert_eq!(strategy.name(), "mix");
}

#[test]
fn what_cannot_work_is_not_built() {
    let load = || Pipeline::builder("p").scorer(LoadScorer, 1.0);
    let error = |builder: PipelineBuilder| builder.build().unwrap_err();
    assert_eq!(error(Pipeline::builder("p")), PipelineError::NoScorer);
    assert_eq!(error(Pipeline::builder("p").scorer(LoadScorer, 0.0)), PipelineError::NoScorer);
    for weight in [-1.0, f64::NAN, f64::INFINITY] {
        let text = error(load().scorer(TokensScorer, weight)).to_string();
        assert!(text.contains("`tokens`") && text.contains("0 or more"), "{text}");
    }
    for draws in [0, 1, 17] {
        assert_eq!(error(load().picker(Picker::BestOf(draws))), PipelineError::BestOf(draws));
    }
    let favourite = load().scorer(SessionScorer, 1.0).picker(Picker::BestOf(2));
    assert_eq!(error(favourite), PipelineError::FavouriteMissed("session"));
    let many = (0..16).fold(load(), |builder, _| builder.scorer(LoadScorer, 1.0));
    assert_eq!(error(many), PipelineError::TooMany(17, "scorers"));
    let many = (0..17).fold(load(), |builder, _| builder.filter(DeadlineFilter));
    assert_eq!(error(many), PipelineError::TooMany(17, "filters"));
    for name in ["", "two words", "käse"] {
        let built = Pipeline::builder(name).scorer(LoadScorer, 1.0).build();
        assert_eq!(built.unwrap_err(), PipelineError::Name(name.to_owned()));
    }
}
