//! Runners follow their inventory: who is new joins, who has gone drains, who is as before is left alone.

mod sourcing;
mod support;

use std::sync::Arc;
use std::time::Duration;

use gateway_core::{
    FleetEvent, Inventory, InventoryChange, InventoryChange::*, LeaveReason, Registry, Runner, RunnerChange,
    RunnerId,
};
use gateway_transport_http::{HttpRunner, HttpRunners};
use proptest::prelude::*;
use sourcing::{Running, next, pinned, run, told};
use support::*;
use tokio::time::Instant;

fn id(name: &str) -> RunnerId {
    RunnerId::new(name).unwrap()
}

fn ids(running: &Running) -> Vec<String> {
    running.registry.fleet().runners().iter().map(|runner| runner.id().to_string()).collect()
}

impl Running {
    fn of(&self, name: &str) -> Arc<Runner> {
        self.registry.fleet().runner(name).unwrap_or_else(|| panic!("{name} is not there")).clone()
    }

    async fn until_there(&self, name: &str) -> Arc<Runner> {
        self.until(name, |runners| runners.iter().any(|runner| runner.id().as_str() == name)).await;
        self.of(name)
    }
}

fn left(runner: &Runner, reason: LeaveReason) -> FleetEvent {
    FleetEvent::Left(runner.key().clone(), reason)
}

async fn closed(runner: &Runner) {
    soon("closing the link", async {
        while !matches!(runner.link().send(get("/")).await, Err(error) if error.to_string().contains("closed")) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_that_vanishes_drains() {
    let (tell, runners) = told();
    let running = run(runners);
    tell.send(All(vec![pinned("a"), pinned("b")])).await.unwrap();
    let (a, b) = (running.until_there("a").await, running.until_there("b").await);
    let under_way = a.try_reserve().unwrap();
    let mut events = running.registry.events();
    tell.send(All(vec![pinned("b")])).await.unwrap();
    assert_eq!(next(&mut events).await, FleetEvent::Changed(a.key().clone()));
    assert!(running.of("a").is_draining() && a.try_reserve().is_none(), "nothing new goes there");
    assert!(b.try_reserve().is_some());
    drop(under_way);
    assert_eq!(next(&mut events).await, left(&a, LeaveReason::Disconnected));
    assert_eq!(running.of("b").key(), b.key(), "the other was not touched");
    closed(&a).await;
}

#[tokio::test]
async fn a_request_under_way_ends_well_on_one_that_has_gone() {
    let (finish, finished) = tokio::sync::watch::channel(false);
    let server = Server::start(move |_, mut peer| {
        let mut finished = finished.clone();
        async move {
            while let Some(request) = peer.request().await {
                if request.line().starts_with("POST") {
                    peer.write("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nfour").await;
                    let _ = finished.wait_for(|finished| *finished).await;
                    peer.write("more").await;
                } else {
                    peer.write(answer(200, "{}")).await;
                }
            }
        }
    })
    .await;
    let (tell, runners) = told();
    let running = run(runners);
    tell.send(Found(HttpRunner::new(&server.url).unwrap().id("a").models(["m"]))).await.unwrap();
    let a = running.until_there("a").await;
    let slot = a.try_reserve().unwrap();
    let mut body = a.link().send(post("/v1/chat/completions", "{}")).await.unwrap().into_body();
    assert_eq!(chunk(&mut body).await.unwrap().unwrap(), "four");
    tell.send(Gone(id("a"))).await.unwrap();
    running.until("draining", |runners| runners[0].is_draining()).await;
    finish.send_replace(true);
    assert_eq!(chunk(&mut body).await.unwrap().unwrap(), "more");
    assert!(chunk(&mut body).await.is_none());
    drop((body, slot));
    running.until("leaving", <[_]>::is_empty).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_as_before_is_not_disturbed() {
    let (tell, runners) = told();
    let running = run(runners);
    let a = || pinned("a").slots(2).label("zone", "eu").api_key("k");
    tell.send(All(vec![a()])).await.unwrap();
    let before = running.until_there("a").await;
    let mut events = running.registry.events();
    tell.send(All(vec![a()])).await.unwrap();
    tell.send(Found(a())).await.unwrap();
    tell.send(Gone(id("nobody"))).await.unwrap();
    tell.send(Found(pinned("last"))).await.unwrap();
    let last = next(&mut events).await;
    assert!(matches!(&last, FleetEvent::Joined(key) if key.id.as_str() == "last"), "{last:?}");
    assert_eq!(running.of("a").key(), before.key());
}

#[tokio::test]
async fn one_that_has_changed_joins_anew_and_its_old_self_finishes() {
    let models = r#"{"object":"list","data":[{"id":"m","object":"model"}]}"#;
    let server = Scripted::start([("/v1/models", 200, models)]).await;
    let a = || HttpRunner::new(&server.url).unwrap().id("a");
    let (tell, runners) = told();
    let running = run(runners);
    tell.send(Found(a())).await.unwrap();
    let old = running.until_there("a").await;
    let under_way = old.try_reserve().unwrap();
    let mut events = running.registry.events();
    tell.send(Found(a().slots(3).label("zone", "eu"))).await.unwrap();
    // In one step: there is no moment without a runner.
    assert_eq!(next(&mut events).await, left(&old, LeaveReason::Replaced));
    let new = running.of("a");
    assert_eq!(next(&mut events).await, FleetEvent::Joined(new.key().clone()));
    assert_eq!((new.spec().labels["zone"].as_str(), new.load().slots.unwrap().get()), ("eu", 3));
    assert!(new.try_reserve().is_some() && old.try_reserve().is_none());
    whole(old.link().send(get("/v1/models")).await).await.expect("its requests may end");
    drop(under_way);
    closed(&old).await;
    assert_eq!(running.of("a").key(), new.key());
}

#[tokio::test(start_paused = true)]
async fn the_old_self_serves_until_the_new_one_answers_but_not_for_ever() {
    let (tell, runners) = told();
    let running = run(runners);
    tell.send(Found(pinned("a"))).await.unwrap();
    let old = running.until_there("a").await;
    let mut events = running.registry.events();
    // Of this one nothing is known, so it joins when it answers, which it never does.
    tell.send(Found(HttpRunner::new("http://127.0.0.1:1").unwrap().id("a"))).await.unwrap();
    let changed = Instant::now();
    let after = loop {
        let event = tokio::time::timeout(HttpRunners::HANDOVER * 3, events.next()).await;
        match event.expect("it serves for ever").unwrap() {
            // Its probes fail: that is told, too.
            FleetEvent::Changed(_) if !old.is_draining() => {}
            FleetEvent::Changed(_) => break changed.elapsed(),
            other => panic!("{other:?}"),
        }
    };
    assert!(after >= HttpRunners::HANDOVER && after < HttpRunners::HANDOVER * 2, "{after:?}");
    assert_eq!(next(&mut events).await, left(&old, LeaveReason::Disconnected));
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_back_while_its_old_self_drains_serves() {
    let (tell, runners) = told();
    let running = run(runners);
    for round in 0..3 {
        tell.send(Found(pinned("a"))).await.unwrap();
        let old = running.until_there("a").await;
        let under_way = old.try_reserve().unwrap();
        tell.send(Gone(id("a"))).await.unwrap();
        running.until("draining", |runners| runners[0].is_draining()).await;
        let mut events = running.registry.events();
        // As it was, or changed: both are a new registration.
        let back = if round == 1 { pinned("a").slots(7) } else { pinned("a") };
        tell.send(Found(back)).await.unwrap();
        assert_eq!(next(&mut events).await, left(&old, LeaveReason::Replaced));
        let new = running.of("a");
        assert!(new.key().generation > old.key().generation);
        assert!(!new.is_draining() && new.try_reserve().is_some());
        drop(under_way);
        closed(&old).await;
        assert_eq!(running.of("a").key(), new.key(), "the end of the old one is nobody else's");
        tell.send(Gone(id("a"))).await.unwrap();
        running.until("leaving", <[_]>::is_empty).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_drains_stays_drained_though_its_entry_changes_or_comes_back() {
    for goes_first in [false, true] {
        let (tell, runners) = told();
        let running = run(runners);
        tell.send(Found(pinned("a"))).await.unwrap();
        let old = running.until_there("a").await;
        let _under_way = old.try_reserve().unwrap();
        assert!(running.registry.update(old.key(), RunnerChange::Drain(true)));
        if goes_first {
            tell.send(Gone(id("a"))).await.unwrap();
            // Passes when nobody has anything left to do.
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(running.of("a").key(), old.key());
        }
        tell.send(Found(pinned("a").slots(2))).await.unwrap();
        running.until("changing", |runners| runners.iter().any(|runner| runner.key() != old.key())).await;
        assert!(running.of("a").is_draining());
    }
}

#[tokio::test(start_paused = true)]
async fn draining_does_not_take_for_ever() {
    let (tell, runners) = told();
    let running = run(runners.drain_timeout(Duration::from_secs(40)));
    tell.send(Found(pinned("a"))).await.unwrap();
    let a = running.until_there("a").await;
    let _hangs = a.try_reserve().unwrap();
    tell.send(Gone(id("a"))).await.unwrap();
    running.until("draining", |runners| runners[0].is_draining()).await;
    let began = Instant::now();
    let mut events = running.registry.events();
    let end = tokio::time::timeout(Duration::from_secs(100), events.next()).await.unwrap().unwrap();
    assert_eq!(end, left(&a, LeaveReason::Disconnected));
    assert_eq!(began.elapsed().as_secs(), 40);
    closed(&a).await;
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_nobody_who_drains() {
    let (tell, runners) = told();
    let running = run(runners);
    tell.send(Found(pinned("a"))).await.unwrap();
    let a = running.until_there("a").await;
    let _hangs = a.try_reserve().unwrap();
    tell.send(Gone(id("a"))).await.unwrap();
    running.until("draining", |runners| runners[0].is_draining()).await;
    let (began, mut events) = (Instant::now(), running.registry.events());
    running.stopped().await;
    assert_eq!(events.next().await, Some(left(&a, LeaveReason::Shutdown)));
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_bad_entry_touches_no_other_and_keeps_what_was_there() {
    let (tell, runners) = told();
    let running = run(runners);
    tell.send(All(vec![pinned("bad").api_key("x\ny"), pinned("a"), pinned("a").slots(9)])).await.unwrap();
    let a = running.until_there("a").await;
    assert_eq!(a.spec().slots, None, "the first of its id counts");
    let spoilt = || pinned("a").models([""]);
    tell.send(Found(spoilt())).await.unwrap();
    tell.send(All(vec![spoilt(), pinned("b")])).await.unwrap();
    running.until_there("b").await;
    assert_eq!(running.of("a").key(), a.key());
    assert!(!a.is_draining());
    assert_eq!(ids(&running), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn there_are_no_more_than_may_be() {
    let (tell, runners) = told();
    let running = run(runners.max_runners(2));
    tell.send(All(vec![pinned("a"), pinned("b"), pinned("c")])).await.unwrap();
    running.until_there("b").await;
    tell.send(Found(pinned("d"))).await.unwrap();
    // One that is there may change though there is no room, and who goes makes room.
    tell.send(All(vec![pinned("b").slots(1), pinned("e"), pinned("f")])).await.unwrap();
    running.until_there("e").await;
    running.until("settling", |runners| runners.len() == 2).await;
    assert_eq!(ids(&running), ["b", "e"]);
    running.until("the change", |runners| runners[0].spec().slots.is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn when_the_inventory_has_nothing_more_to_say_all_stays() {
    let (tell, runners) = told();
    let running = run(runners);
    tell.send(Found(pinned("a"))).await.unwrap();
    running.until_there("a").await;
    drop(tell);
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(ids(&running), ["a"]);
    assert!(!running.task.is_finished());
    let registry = running.stopped().await;
    assert!(registry.fleet().runners().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_inventory_that_panics_takes_nobody_with_it() {
    struct Broken(bool);
    #[async_trait::async_trait]
    impl Inventory for Broken {
        type Entry = HttpRunner;
        async fn next(&mut self) -> Option<InventoryChange<HttpRunner>> {
            assert!(!self.0, "as the test says");
            self.0 = true;
            Some(Found(pinned("a")))
        }
    }
    let running = run(HttpRunners::from_inventory(Broken(false)));
    running.until_there("a").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(ids(&running), ["a"]);
    running.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn a_list_is_changed_through_its_handle() {
    let (handle, runners) = HttpRunners::handle();
    handle.set(vec![pinned("never seen")]);
    handle.set(vec![pinned("a"), pinned("b")]);
    let running = run(runners);
    let a = running.until_there("a").await;
    handle.clone().set(vec![pinned("a"), pinned("c")]);
    running.until_there("c").await;
    running.until("b's leaving", |runners| runners.len() == 2).await;
    assert_eq!(ids(&running), ["a", "c"]);
    assert_eq!(running.of("a").key(), a.key());
    drop(handle);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(ids(&running), ["a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn all_that_was_said_can_be_replaced_through_the_handle() {
    let (handle, runners) = HttpRunners::handle();
    handle.replace(HttpRunners::list([pinned("a"), pinned("b"), pinned("c")]).slots(4).label("zone", "eu"));
    let running = run(runners);
    let c = running.until_there("c").await;
    let (a, b) = (running.of("a"), running.of("b"));
    assert_eq!((a.load().slots.unwrap().get(), a.spec().labels["zone"].as_str()), (4, "eu"));

    // Another inventory: nothing happens until it tells of its runners.
    let (tell, told) = told();
    handle.replace(told.label("zone", "eu").slots(8).drain_timeout(Duration::from_secs(5)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(running.of("a").key(), a.key());
    let _hangs = c.try_reserve().unwrap();
    tell.send(All(vec![pinned("a").slots(4), pinned("b")])).await.unwrap();
    running.until("c's draining", |_| c.is_draining()).await;
    assert_eq!(running.of("a").key(), a.key(), "one that comes out the same is not disturbed");
    assert!(b.has_left() && running.of("b").load().slots.unwrap().get() == 8, "it has other slots now");
    let began = Instant::now();
    running.until("the end of the new time to drain", |runners| runners.len() == 2).await;
    assert_eq!(began.elapsed().as_secs(), 5);

    // A list goes by what was said for all; the inventory is not heard any more.
    handle.set(vec![pinned("d")]);
    running.until_there("d").await;
    running.until("the others' leaving", |runners| runners.len() == 1).await;
    assert_eq!(running.of("d").load().slots.unwrap().get(), 8);
    assert!(tell.send(Found(pinned("a"))).await.is_err());
    // Both before anybody looks: the list, by the terms of the other.
    handle.replace(HttpRunners::fixed::<&str>([]).slots(2));
    handle.set(vec![pinned("d"), pinned("e")]);
    running.until_there("e").await;
    assert!(running.registry.fleet().runners().iter().all(|runner| runner.load().slots.unwrap().get() == 2));
    // None at all.
    handle.replace(HttpRunners::fixed::<&str>([]));
    running.until("the end", <[_]>::is_empty).await;
}

#[derive(Debug, Clone)]
enum Step {
    Found(u8, u32),
    Gone(u8),
    All(Vec<(u8, u32)>),
    /// A request begins on that runner, and stays until the end.
    Hold(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let entry = || (0..4u8, 1..4u32);
    prop_oneof![
        entry().prop_map(|(id, slots)| Step::Found(id, slots)),
        (0..4u8).prop_map(Step::Gone),
        proptest::collection::vec(entry(), 0..4).prop_map(Step::All),
        (0..4u8).prop_map(Step::Hold),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Whatever is told, and whoever is busy: in the end those take requests that were told last.
    #[test]
    fn who_serves_in_the_end_is_what_was_told_last(steps in proptest::collection::vec(step(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let (tell, runners) = told();
            let running = run(runners);
            let mut expected = std::collections::BTreeMap::new();
            let mut held = Vec::new();
            let entry = |(id, slots): (u8, u32)| pinned(&format!("r{id}")).slots(slots);
            for step in steps {
                match step {
                    Step::Found(id, slots) => {
                        expected.insert(format!("r{id}"), slots);
                        tell.send(Found(entry((id, slots)))).await.unwrap();
                    }
                    Step::Gone(number) => {
                        expected.remove(&format!("r{number}"));
                        tell.send(Gone(id(&format!("r{number}")))).await.unwrap();
                    }
                    Step::All(entries) => {
                        expected.clear();
                        for (id, slots) in &entries {
                            // The first of an id counts.
                            expected.entry(format!("r{id}")).or_insert(*slots);
                        }
                        tell.send(All(entries.into_iter().map(entry).collect())).await.unwrap();
                    }
                    Step::Hold(id) => {
                        tokio::task::yield_now().await;
                        let fleet = running.registry.fleet();
                        held.extend(fleet.runner(&format!("r{id}")).and_then(Runner::try_reserve));
                    }
                }
            }
            running.until("settling", |runners| {
                let serving = runners.iter().filter(|runner| !runner.is_draining());
                let serving = serving.map(|runner| (runner.id().to_string(), runner.spec().slots.unwrap().get()));
                serving.eq(expected.clone())
            }).await;
            drop(held);
            running.until("draining", |runners| runners.len() == expected.len()).await;
            let registry = running.stopped().await;
            assert!(registry.fleet().runners().is_empty());
        });
    }
}
