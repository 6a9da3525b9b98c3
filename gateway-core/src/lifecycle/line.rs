//! Who waits for room: in which order, and who of them is to look when there may be some.
//!
//! Of those who want the same, only the first looks, and when it has found something it calls the next. What
//! has become free on one runner is looked at on that runner. So it costs the same however many wait and
//! however large the fleet is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::state::Ask;
use crate::names::{ModelId, RunnerKey};
use crate::runner::Runner;

/// Bounded by the requests that wait.
#[derive(Debug, Default)]
pub(super) struct Line {
    models: HashMap<ModelId, Asks>,
}

/// Those who wait for one model, by number.
#[derive(Debug, Default)]
struct Asks {
    /// Who want nothing but the model: what one cannot have, no other can.
    plain: BTreeMap<u64, Place>,
    special: BTreeMap<u64, Place>,
    /// When a plain one last looked.
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Place {
    ask: Arc<Ask>,
    news: News,
}

/// Where there may be room since somebody last looked.
#[derive(Debug, Default)]
pub(super) enum News {
    #[default]
    None,
    On(Vec<RunnerKey>),
    Anywhere,
}

impl News {
    /// So many runners are named; with more, all are looked at.
    const NAMED: usize = 16;

    fn add(&mut self, on: Option<&RunnerKey>) {
        let named = match (std::mem::take(self), on) {
            (Self::Anywhere, _) | (_, None) => return *self = Self::Anywhere,
            (Self::None, Some(key)) => vec![key.clone()],
            (Self::On(mut named), Some(key)) => {
                if !named.contains(key) {
                    named.push(key.clone());
                }
                named
            }
        };
        *self = if named.len() > Self::NAMED { Self::Anywhere } else { Self::On(named) };
    }
}

/// Who is to be woken, without the lock: waking runs the executor's code.
#[must_use = "somebody is to be woken"]
#[derive(Default)]
pub(super) struct Calls(Vec<Arc<Ask>>);

impl Calls {
    pub(super) fn make(self) {
        self.0.iter().for_each(|ask| ask.call.notify_one());
    }
}

impl Asks {
    fn kind(&mut self, ask: &Ask) -> &mut BTreeMap<u64, Place> {
        if ask.is_plain { &mut self.plain } else { &mut self.special }
    }

    /// The first of each kind.
    fn heads(&mut self) -> impl Iterator<Item = &mut Place> {
        [&mut self.plain, &mut self.special].into_iter().filter_map(|kind| kind.values_mut().next())
    }

    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.special.is_empty()
    }
}

impl Line {
    /// Takes a place, or keeps the one it has, and notes that it looks. What becomes free from now on calls
    /// it, or the one before it. Whether it had one.
    pub(super) fn enter(&mut self, ask: &Arc<Ask>, now: Instant) -> bool {
        let asks = self.models.entry(ask.model.clone()).or_default();
        if ask.is_plain {
            asks.looked = Some(now);
        }
        let kind = asks.kind(ask);
        let was_there = kind.contains_key(&ask.number);
        if !was_there {
            kind.insert(ask.number, Place { ask: ask.clone(), news: News::None });
        }
        was_there
    }

    /// Gives up a place without a word.
    pub(super) fn remove(&mut self, ask: &Ask) {
        if let Some(asks) = self.models.get_mut(&ask.model) {
            asks.kind(ask).remove(&ask.number);
            if asks.is_empty() {
                self.models.remove(&ask.model);
            }
        }
    }

    /// Gives up a place. Who comes after it is told: those who want the same, or, if it was the last of
    /// these, whoever let it go first.
    pub(super) fn leave(&mut self, ask: &Ask) -> Calls {
        let Some(asks) = self.models.get_mut(&ask.model) else { return Calls::default() };
        let kind = asks.kind(ask);
        let was_head = kind.keys().next() == Some(&ask.number);
        if kind.remove(&ask.number).is_none() {
            return Calls::default();
        }
        let next = kind.values_mut().next().filter(|_| was_head && ask.is_plain);
        if let Some(next) = next {
            next.news.add(None);
            return Calls(vec![next.ask.clone()]);
        }
        let is_last = !ask.is_plain || kind.is_empty();
        if asks.is_empty() {
            self.models.remove(&ask.model);
        }
        if is_last { self.call(None, |_| true) } else { Calls::default() }
    }

    /// Has those look who are first in line for a model that this runner knows.
    pub(super) fn call_for(&mut self, runner: &Runner) -> Calls {
        self.call(Some(runner.key()), |model| runner.model(model.as_str()).is_some())
    }

    /// Has those look who are first in line for these models.
    pub(super) fn call(&mut self, on: Option<&RunnerKey>, is_meant: impl Fn(&ModelId) -> bool) -> Calls {
        let meant = self.models.iter_mut().filter(|(model, _)| is_meant(model));
        let heads = meant.flat_map(|(_, asks)| asks.heads());
        Calls(
            heads
                .map(|head| {
                    head.news.add(on);
                    head.ask.clone()
                })
                .collect(),
        )
    }

    /// Where there may be room since it last looked.
    pub(super) fn news(&mut self, ask: &Ask) -> News {
        let place = self.models.get_mut(&ask.model).and_then(|asks| asks.kind(ask).get_mut(&ask.number));
        place.map_or(News::Anywhere, |place| std::mem::take(&mut place.news))
    }

    /// Whether it is to look by itself. Special ones all do: what one finds says nothing to another.
    pub(super) fn is_first(&self, ask: &Ask) -> bool {
        let first = || self.models.get(&ask.model)?.plain.keys().next().copied();
        !ask.is_plain || first() == Some(ask.number)
    }

    /// Whether the first in line has not looked for so long: it may be held and not waited for.
    pub(super) fn is_overdue(&self, ask: &Ask, now: Instant, after: Duration) -> bool {
        let looked = self.models.get(&ask.model).and_then(|asks| asks.looked);
        looked.is_none_or(|looked| now.saturating_duration_since(looked) >= after)
    }

    /// Of each other model the one who waits for longest, if for longer than this one.
    pub(super) fn older(&self, ask: &Ask) -> Vec<Arc<Ask>> {
        let others = self.models.iter().filter(|(model, _)| **model != ask.model);
        let first = others.filter_map(|(_, asks)| {
            let firsts = [&asks.plain, &asks.special].into_iter().filter_map(|kind| kind.values().next());
            firsts.map(|place| &place.ask).min_by_key(|ask| ask.number)
        });
        first.filter(|other| other.number < ask.number).cloned().collect()
    }
}
