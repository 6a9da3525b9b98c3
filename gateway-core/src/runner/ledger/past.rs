//! What of a runner's resources was promised when, as far back as a report may look.

use std::time::Duration;

use tokio::time::Instant;

use super::{Amounts, Moment, add, take_away};

/// How exactly moments are told apart.
const TICK: Duration = Duration::from_millis(250);
/// How many of them are remembered, 16 s: the 5 s that a probe may take, the 2 s that its answer may be old, the
/// second that a request needs to settle, and as much again.
const TICKS: usize = 64;

/// The last [`TICKS`] of them, in a ring.
#[derive(Debug)]
pub(super) struct Past {
    now: Moment,
    ticks: [Tick; TICKS],
}

#[derive(Debug, Default, Clone, Copy)]
struct Tick {
    /// Promised then and still held.
    promised: Amounts,
    /// The most that was held at once.
    most_held: Amounts,
}

impl Default for Past {
    fn default() -> Self {
        Self { now: Moment(0), ticks: [Tick::default(); TICKS] }
    }
}

pub(super) fn moment(at: Instant, born: Instant) -> Moment {
    let ticks = at.saturating_duration_since(born).as_millis() / TICK.as_millis();
    Moment(u32::try_from(ticks).unwrap_or(u32::MAX))
}

impl Moment {
    pub(super) fn before(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(u32::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX)))
    }
}

impl Past {
    /// Since the last call so much was held, and nothing changed.
    pub(super) fn go_on_to(&mut self, now: Moment, held: Amounts) {
        let from = self.now.0.saturating_add(1).max(now.0.saturating_sub(TICKS as u32 - 1));
        for tick in from..=now.0 {
            self.ticks[place(tick)] = Tick { promised: [0; 3], most_held: held };
        }
        // A clock that is read by two threads may seem to go back.
        self.now = self.now.max(now);
    }

    /// So much was promised in the present moment, and with it so much is held.
    pub(super) fn promised(&mut self, at: Moment, need: &Amounts, held: &Amounts) {
        if let Some(tick) = self.tick(at) {
            add(&mut tick.promised, need);
        }
        let now = &mut self.ticks[place(self.now.0)];
        now.most_held = std::array::from_fn(|at| now.most_held[at].max(held[at]));
    }

    /// It is held no more, or broken off.
    pub(super) fn no_longer(&mut self, promised: Moment, held: &Amounts) {
        if let Some(tick) = self.tick(promised) {
            take_away(&mut tick.promised, held);
        }
    }

    /// What was broken off then, and held until now, counts no more.
    pub(super) fn forget(&mut self, broken_off: Moment, amounts: &Amounts) {
        let first = (broken_off.0 + 1).max((self.now.0 + 1).saturating_sub(TICKS as u32));
        for tick in first..=self.now.0 {
            take_away(&mut self.ticks[place(tick)].most_held, amounts);
        }
    }

    /// The most that was held at once since then; `None` if that is not remembered.
    pub(super) fn most_held(&self, since: Moment) -> Option<Amounts> {
        let mut most = [0; 3];
        for tick in self.remembered(since)? {
            let held = self.ticks[place(tick)].most_held;
            most = std::array::from_fn(|at| most[at].max(held[at]));
        }
        Some(most)
    }

    /// What was promised since then and is still held.
    pub(super) fn promised_from(&self, since: Moment) -> Amounts {
        let mut sum = [0; 3];
        for tick in self.remembered(since).into_iter().flatten() {
            add(&mut sum, &self.ticks[place(tick)].promised);
        }
        sum
    }

    pub(super) fn remembers(&self, since: Moment) -> bool {
        self.remembered(since).is_some()
    }

    fn remembered(&self, since: Moment) -> Option<std::ops::RangeInclusive<u32>> {
        (since.0 + TICKS as u32 > self.now.0).then_some(since.0..=self.now.0)
    }

    fn tick(&mut self, at: Moment) -> Option<&mut Tick> {
        self.remembered(at)?;
        Some(&mut self.ticks[place(at.0)])
    }
}

fn place(tick: u32) -> usize {
    tick as usize % TICKS
}
