//! A strategy for each model.

mod fleet;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fleet::TestFleet;
use gateway_core::{
    Attempt, Balancer, Candidates, Dispatcher, LeastLoaded, ModelId, PerModel, Requirements, Reservation,
    RoundRobin, Runner, RunnerStatus, Score,
};

/// Takes anybody, and notes what else it is told.
struct Noting {
    name: &'static str,
    reads_prompts: bool,
    picked: AtomicU32,
    observed: AtomicU32,
}

impl Noting {
    fn new(name: &'static str, reads_prompts: bool) -> Arc<Self> {
        Arc::new(Self { name, reads_prompts, picked: AtomicU32::new(0), observed: AtomicU32::new(0) })
    }

    fn counts(&self) -> (u32, u32) {
        (self.picked.load(Ordering::Relaxed), self.observed.load(Ordering::Relaxed))
    }
}

impl Balancer for Noting {
    fn name(&self) -> &'static str {
        self.name
    }

    fn pick(&self, _: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        self.picked.fetch_add(1, Ordering::Relaxed);
        let reservation = (0..candidates.len()).find_map(|at| candidates.try_reserve(at))?;
        Some(if self.reads_prompts { reservation.because("prefix") } else { reservation })
    }

    fn reads_prompts(&self) -> bool {
        self.reads_prompts
    }

    fn scores(&self, _: &Requirements, _: &Runner, scores: &mut Vec<Score>) {
        scores.push(Score { name: self.name, value: 1.0 });
    }

    fn observe(&self, _: &Attempt<'_>) {
        self.observed.fetch_add(1, Ordering::Relaxed);
    }
}

fn model(name: &str) -> ModelId {
    ModelId::new(name).unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_models_requests_go_to_its_strategy_and_so_does_what_came_of_them() {
    let fleet = TestFleet::new();
    fleet.join(fleet::spec("r"), RunnerStatus::serving([model("chat"), model("embedder"), model("other")]));
    let (chat, others) = (Noting::new("for-chat", true), Noting::new("for-others", false));
    let strategy = Arc::new(PerModel::new(others.clone()).model(model("chat"), chat.clone()));
    let dispatcher = Dispatcher::builder(fleet.registry.clone()).balancer(strategy.clone()).build();
    for (name, reason) in [("chat", "prefix"), ("embedder", "for-others"), ("other", "for-others")] {
        let answer = dispatcher.dispatch(gateway_testkit::request(&model(name), "{}")).await.unwrap();
        assert_eq!((answer.strategy, answer.reason), ("per-model", Some(reason)));
        gateway_testkit::text(answer.response).await.unwrap();
    }
    assert_eq!((chat.counts(), others.counts()), ((1, 1), (2, 2)));

    let scores = |requirements| fleet.scores(&*strategy, &requirements, "r")[0].name;
    assert_eq!(scores(Requirements::model(model("chat"))), "for-chat");
    assert_eq!(scores(Requirements::model(model("other"))), "for-others");
    assert_eq!(scores(Requirements::default()), "for-others");
}

#[test]
fn prompts_are_read_if_any_of_them_does() {
    let plain = || -> Arc<dyn Balancer> { Arc::new(LeastLoaded::default()) };
    assert!(!PerModel::new(plain()).model(model("a"), plain()).reads_prompts());
    assert!(PerModel::new(plain()).model(model("a"), Noting::new("reads", true)).reads_prompts());
    assert!(PerModel::new(Noting::new("reads", true)).model(model("a"), plain()).reads_prompts());
}

#[test]
fn the_last_word_on_a_model_counts() {
    let strategy = PerModel::new(Arc::new(LeastLoaded::default()))
        .model(model("a"), Noting::new("old", false))
        .model(model("a"), Arc::new(RoundRobin::default()));
    assert_eq!(strategy.strategy(Some(&model("a"))).name(), "round-robin");
    assert_eq!(strategy.strategy(Some(&model("b"))).name(), "least-loaded");
    assert_eq!(strategy.strategy(None).name(), "least-loaded");
    assert_eq!(format!("{strategy:?}"), r#"{"a": "round-robin", "*": "least-loaded"}"#);
}
