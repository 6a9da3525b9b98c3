//! Prompts go where their beginnings are cached, unless it takes less time elsewhere; and what is remembered is
//! bounded.

mod common;
#[path = "common/strategies.rs"]
mod list;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::setup;
use gateway_core::pipeline::PipelineSpec;
use gateway_core::{
    Balancer, InMemoryRegistry, LeaveReason, PrefixCache, PromptBlocks, Registry, Requirements, Reservation,
    Workload,
};
use gateway_testkit::{Fault, MockEngine, Script, request, text};
use list::{fleet, join, model, pick_for, spec, status};

const BLOCK: u32 = 512;

/// A prompt whose blocks are of one conversation, as long as said.
fn prompt(conversation: u64, blocks: u64) -> Requirements {
    let hashes: Vec<u64> = (0..blocks).map(|block| conversation << 32 | (block + 1)).collect();
    let workload = Workload {
        prompt_tokens: Some(BLOCK * blocks as u32),
        max_tokens: Some(100),
        prefix: PromptBlocks::new(hashes, BLOCK),
        ..Workload::default()
    };
    Requirements { workload, ..Requirements::model(model()) }
}

fn pick(registry: &InMemoryRegistry, balancer: &PrefixCache, requirements: &Requirements) -> Reservation {
    pick_for(registry, balancer, requirements, &[]).expect("a slot is free")
}

#[test]
fn a_conversation_that_grows_comes_back_to_its_runner() {
    let registry = fleet(&[8; 8]);
    let balancer = PrefixCache::default();
    for conversation in 0..50 {
        let first = pick(&registry, &balancer, &prompt(conversation, 10)).runner().id().clone();
        for blocks in 11..15 {
            let next = pick(&registry, &balancer, &prompt(conversation, blocks));
            assert_eq!(next.runner().id(), &first);
            assert_eq!(next.reason(), Some("prefix"));
            assert!(next.prefill_tokens() <= BLOCK, "only the new block is to be read");
        }
    }
}

#[test]
fn a_burst_with_one_prefix_spreads_when_the_holder_has_more_to_do_than_it_saves() {
    let registry = fleet(&[64; 8]);
    let balancer = PrefixCache::default();
    let mut held = Vec::new();
    for number in 0..64 {
        // Four blocks in common, twenty of their own.
        let mut requirements = prompt(number + 1, 24);
        let mut hashes = requirements.workload.prefix.hashes().to_vec();
        (0..4).for_each(|block| hashes[block] = 7_000 + block as u64);
        requirements.workload.prefix = PromptBlocks::new(hashes, BLOCK);
        held.push(pick(&registry, &balancer, &requirements));
    }
    let fleet = registry.fleet();
    let loads: Vec<u32> = fleet.runners().iter().map(|runner| runner.load().in_flight).collect();
    assert!(loads.iter().all(|load| (4..=14).contains(load)), "{loads:?}");
}

#[test]
fn a_runner_that_comes_back_is_taken_for_cold() {
    let registry = fleet(&[8; 4]);
    let balancer = PrefixCache::default();
    let home = pick(&registry, &balancer, &prompt(1, 20)).runner().clone();
    registry.leave(home.key(), LeaveReason::Disconnected);
    let id = home.id().to_string();
    drop(home);
    join(&registry, spec(&id).slots(8), status());
    let fleet = registry.fleet();
    let runner = fleet.runner(&id).unwrap();
    let mut scores = Vec::new();
    balancer.scores(&prompt(1, 20), runner, &mut scores);
    let cached = scores.iter().find(|score| score.name == "cached_tokens").unwrap();
    assert_eq!(cached.value, 0.0);
}

#[test]
fn memory_is_bounded_whatever_is_sent() {
    let registry = fleet(&[8; 16]);
    let balancer = PrefixCache::default();
    let before = balancer.memory();
    assert!(before < 9 << 20, "{before}: 8 MiB of entries and a little");
    for conversation in 0..20_000 {
        drop(pick(&registry, &balancer, &prompt(conversation, 100)));
    }
    let after = balancer.memory();
    assert!(after < 9 << 20, "{after} after two million blocks");
}

async fn cached_after(script: impl Fn() -> Script + Send + Sync + 'static) -> f64 {
    let balancer = Arc::new(PrefixCache::default());
    let engine = MockEngine::new(move |_| script());
    let setup = setup(vec![engine], |builder| builder.balancer(balancer.clone()));
    let mut call = request(&model(), "{}");
    call.requirements = prompt(1, 20);
    if let Ok(done) = setup.dispatcher.dispatch(call).await {
        let _ = text(done.response).await;
    }
    let fleet = setup.registry.fleet();
    let mut scores = Vec::new();
    balancer.scores(&prompt(1, 20), &fleet.runners()[0], &mut scores);
    scores.iter().find(|score| score.name == "cached_tokens").unwrap().value
}

#[tokio::test(start_paused = true)]
async fn what_was_never_read_is_forgotten() {
    assert!(cached_after(|| Script::text("yes")).await > 0.0);
    assert_eq!(cached_after(|| Script::text("").fault(Fault::Unreachable)).await, 0.0);
    for refused in [429, 503, 500, 401, 400] {
        assert_eq!(cached_after(move || Script::status(refused, "no")).await, 0.0, "{refused}");
    }
}

#[test]
fn a_mixture_with_the_prefix_in_it_keeps_conversations_together_and_the_load_even() {
    let spec = r#"{"scorers": [{"name": "prefix", "weight": 2.0}, {"name": "load"}]}"#;
    let mixture = serde_json::from_str::<PipelineSpec>(spec).unwrap().build().unwrap();
    assert!(mixture.reads_prompts());
    let registry = fleet(&[8; 8]);
    let pick = |requirements: &Requirements| pick_for(&registry, &mixture, requirements, &[]).unwrap();
    let mut homes = BTreeSet::new();
    let mut first = Vec::new();
    for conversation in 0..16 {
        let held = pick(&prompt(conversation, 20));
        assert_eq!(held.reason(), None);
        homes.insert(held.runner().id().to_string());
        first.push(held);
    }
    assert_eq!(homes.len(), 8, "what is new goes where there is least to do");
    let homes: Vec<_> = first.iter().map(|held| held.runner().id().clone()).collect();
    drop(first);
    for (conversation, home) in (0..).zip(&homes) {
        let next = pick(&prompt(conversation, 21));
        assert_eq!((next.runner().id(), next.reason()), (home, Some("prefix")));
        assert!(next.prefill_tokens() <= BLOCK);
    }
    // Two thirds of what counts is the cache, one third the load: a full favourite is left alone.
    let many: Vec<_> = (0..9).map(|_| pick(&prompt(3, 21)).runner().id().clone()).collect();
    assert_eq!(many.iter().filter(|id| **id == homes[3]).count(), 9);
    let held: Vec<_> = (0..9).map(|_| pick(&prompt(3, 21))).collect();
    assert!(held.iter().any(|held| *held.runner().id() != homes[3]));
}
