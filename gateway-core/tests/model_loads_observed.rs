//! Observers hear of every order to load a model once, however it ends.

mod lifecycle_support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateway_core::{Attempt, Command, Dispatcher, InMemoryRegistry, ModelLoad, Observer, Registry};
use gateway_testkit::CommandScript;
use lifecycle_support::*;

/// Keeps what is told of loads.
#[derive(Default)]
struct Loads(Mutex<Vec<(String, String, &'static str, Duration)>>);

impl Observer for Loads {
    fn attempt(&self, _: &Attempt<'_>) {}

    fn loaded(&self, load: &ModelLoad<'_>) {
        let told = (load.runner.id.to_string(), load.model.to_string(), load.end.as_str(), load.duration);
        self.0.lock().unwrap().push(told);
    }
}

#[tokio::test(start_paused = true)]
async fn observers_hear_of_every_order_once_and_of_those_given_up() {
    let (registry, loads) = (Arc::new(InMemoryRegistry::new()), Arc::<Loads>::default());
    let dispatcher = Dispatcher::builder(registry.clone()).observer(loads.clone()).build();
    let engine = scripted(|command| match command {
        Command::LoadModel(name) if name.as_str() == "broken" => {
            CommandScript::refused("no memory").after(LOAD / 4)
        }
        _ => CommandScript::done().after(LOAD),
    });
    registry.join(spec("r"), healthy([on_disk("a"), on_disk("b"), on_disk("broken")]), engine.link());
    let told = || std::mem::take(&mut *loads.0.lock().unwrap());
    let ended = |model: &str, end, time| ("r".to_owned(), model.to_owned(), end, time);

    // Two who wait for one load.
    let (one, other) = tokio::join!(ask(&dispatcher, "a"), ask(&dispatcher, "a"));
    assert!(one.is_ok() && other.is_ok());
    assert_eq!(told(), [ended("a", "loaded", LOAD)]);
    assert!(ask(&dispatcher, "broken").await.is_err());
    assert_eq!(told(), [ended("broken", "refused", LOAD / 4)]);
    let left = tokio::time::timeout(LOAD / 2, ask(&dispatcher, "b")).await;
    assert!(left.is_err(), "it is still being loaded");
    assert_eq!(told(), [ended("b", "given_up", LOAD / 2)]);
}
