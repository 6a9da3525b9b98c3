//! Unloads what nobody has asked for in a while.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Inner;
use super::order::{Busy, unload};
use super::policy::IdleUnload;
use super::room::Survey;
use super::state::{Act, State};
use crate::names::ModelId;
use crate::runner::{Model, ModelState, Runner};

/// Between two looks at a model that cannot be unloaded although its time is up.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Between two looks in any case: keep-alive times may be longer than clocks can count.
const LOOK_AT_LAST: Duration = Duration::from_secs(3600);

pub(super) async fn tend(inner: &Arc<Inner>, stop: &CancellationToken) {
    let policy = inner.rules().policy.clone();
    let Some(shortest) = policy.shortest_keep_alive().filter(|_| policy.enabled) else {
        return stop.cancelled().await;
    };
    let mut under_way: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    let mut stopped = std::pin::pin!(stop.cancelled());
    loop {
        let now = Instant::now();
        // What is loaded from now on lives for longer than this.
        let mut next = now + shortest.clamp(LOOK_AGAIN, LOOK_AT_LAST);
        let (expired, soonest) = expired(inner, now);
        next = soonest.map_or(next, |soonest| next.min(soonest.max(now + LOOK_AGAIN)));
        for Expired { runner, model, busy } in expired {
            let inner = inner.clone();
            let work = async move {
                // Here, so that it is given back after everything else.
                let _busy = busy;
                unload(&inner, &runner, &model, "idle").await;
            };
            under_way.push(work.boxed());
        }
        let step = async {
            // With nothing under way there is only the time to wait for.
            let done = async {
                if under_way.next().await.is_none() {
                    std::future::pending::<()>().await;
                }
            };
            select(std::pin::pin!(done), std::pin::pin!(sleep_until(next))).await;
        };
        if let Either::Left(_) = select(stopped.as_mut(), std::pin::pin!(step)).await {
            return;
        }
    }
}

/// A model whose time is up.
struct Expired {
    runner: Arc<Runner>,
    model: ModelId,
    busy: Busy,
}

/// Models whose time is up, at most one for each runner, which is then busy; and when the next one's is.
fn expired(inner: &Arc<Inner>, now: Instant) -> (Vec<Expired>, Option<Instant>) {
    let mut state = inner.state();
    let fleet = inner.registry.fleet();
    let mut expired = Vec::new();
    let mut soonest: Option<Instant> = None;
    for runner in fleet.runners().iter().filter(|runner| runner.is_available()) {
        for model in &runner.status().models {
            let Some(at) = expiry(inner, &state, runner, model, now) else { continue };
            if at > now {
                soonest = Some(soonest.map_or(at, |soonest| soonest.min(at)));
                continue;
            }
            if state.busy.insert(runner.key().clone()) {
                let busy = Busy { inner: inner.clone(), runner: runner.key().clone() };
                expired.push(Expired { runner: runner.clone(), model: model.id.clone(), busy });
            } else {
                soonest = Some(now);
            }
        }
    }
    (expired, soonest)
}

/// When a model is to be unloaded, if nothing uses it until then. In the past if it is time.
fn expiry(inner: &Inner, state: &State, runner: &Runner, model: &Model, now: Instant) -> Option<Instant> {
    let policy = &inner.rules().policy;
    let keep_alive = policy.keep_alive_for(&model.id)?;
    let record = state.record(runner.key());
    let is_ours = record.is_some_and(|record| record.ours.contains(&model.id));
    if model.state != ModelState::Loaded
        || record.is_some_and(|record| record.cannot_unload)
        || (policy.idle_unload == IdleUnload::LoadedHere && !is_ours)
    {
        return None;
    }
    let survey = Survey { policy, state, wanted: &inner.wanted, now };
    if let Some(until) = survey.spared_until(runner, model, Act::Unload) {
        return Some(until);
    }
    if let Some(since) = survey.idle_since(runner, model) {
        return since.checked_add(keep_alive);
    }
    // Its time starts anew when the last request of ours ends. Nothing tells when others' do.
    let is_used = runner.model_usage(model.id.as_str()).is_some_and(|(in_flight, _)| in_flight > 0);
    now.checked_add(if is_used { keep_alive } else { LOOK_AGAIN })
}
