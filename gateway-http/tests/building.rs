//! A gateway that makes no sense is not built, and says what to call; every setting has an effect.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use common::*;
use gateway_core::{
    Attempt, CancellationToken, Fleet, InMemoryRegistry, Observer, Pool, Refusal, Registry, Requirements,
    RoundRobin, Router, Runner, RunnerId, RunnerSource, RunnerSpec, RunnerStatus,
};
use gateway_http::{BuildError, Gateway};

#[test]
fn somebody_must_be_let_in_by_name() {
    let error = Gateway::builder().build().unwrap_err();
    assert_eq!(error, BuildError::NoClients);
    let text = error.to_string();
    assert!(text.contains("client_tokens") && text.contains("allow_anonymous_clients"), "{text}");
    assert_eq!(Gateway::builder().client_tokens([""; 0]).build().unwrap_err(), BuildError::NoClients);
    assert_eq!(
        Gateway::builder().client_tokens(["x"]).allow_anonymous_clients().build().unwrap_err(),
        BuildError::Contradiction { whose: "client" }
    );
    assert_eq!(
        builder().allow_anonymous_admins().build().unwrap_err(),
        BuildError::Contradiction { whose: "admin" }
    );
    for token in ["", "a b", "tab\t"] {
        let error = Gateway::builder().client_tokens([token]).build().unwrap_err();
        assert_eq!(error, BuildError::InvalidToken { whose: "client" });
    }
}

#[test]
fn no_token_shows_in_debug_output() {
    assert!(!format!("{:?}", builder()).contains("secret"));
    assert!(!format!("{:?}", builder().build().unwrap()).contains("secret"));
}

struct Idle;

#[async_trait]
impl RunnerSource for Idle {
    async fn run(self: Box<Self>, _: Arc<dyn Registry>, stop: CancellationToken) {
        stop.cancelled().await;
    }
}

#[test]
fn sources_need_a_runtime_and_nothing_else_does() {
    assert!(builder().build().is_ok());
    assert_eq!(builder().runners(Idle).build().unwrap_err(), BuildError::NoRuntime);
}

/// Sends everything to the runner whose id is the model's name.
struct ByName;

impl Router for ByName {
    fn pool<'f>(&self, _: &Requirements, fleet: &'f Fleet) -> Pool<'f> {
        Pool::of(fleet.runners(), false)
    }

    fn verdict(&self, requirements: &Requirements, runner: &Runner) -> Result<(), Refusal> {
        let wanted = requirements.model.as_ref().map(|model| model.as_str());
        (wanted == Some(runner.id().as_str())).then_some(()).ok_or(Refusal::Other("another".into()))
    }
}

struct Count(AtomicUsize);

impl Observer for Count {
    fn attempt(&self, _: &Attempt<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn strategy_router_registry_and_observer_plug_in() {
    let registry = Arc::new(InMemoryRegistry::new());
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let gateway = builder()
        .registry(registry.clone())
        .router(ByName)
        .strategy(RoundRobin::default())
        .observer(count.clone())
        .build()
        .unwrap();
    let link = Mock::ok();
    for id in ["one", "two"] {
        let spec = RunnerSpec::new(RunnerId::new(id).unwrap());
        registry.join(spec, RunnerStatus::serving([]), link.clone());
    }
    for id in ["one", "two", "one"] {
        let answer = whole(&gateway, chat(format!(r#"{{"model":"{id}"}}"#))).await;
        assert_eq!(answer.header("x-backend-used"), Some(id));
        assert_eq!(answer.header("x-router-reason"), Some("round-robin"));
        // No runner knows the name, yet it is what the request was routed by.
        assert_eq!(answer.header("x-model-used"), Some(id));
    }
    assert_eq!(count.0.load(Ordering::Relaxed), 3);
}
