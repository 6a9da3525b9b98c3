//! Looks after all runners together whether they are still heard.
//!
//! A timer for each would wake the process for each of them, time and again and mostly to find that the runner has
//! been heard since. Here one task looks at all of them, when the first of them may have been silent for too long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slab::Slab;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::Settings;

/// The longest time between two looks while somebody is due: that much later than it should be a runner may be asked
/// or taken out. In fleets of thousands one is due at almost any moment.
const STEP: Duration = Duration::from_secs(1);

/// Where times are short, steps are this fraction of them.
const STEPS: u32 = 32;

/// What is known of the silence of every runner that is in.
pub(super) struct Watch {
    born: Instant,
    ping_interval: Duration,
    heartbeat_timeout: Duration,
    pulses: Mutex<Slab<Arc<Pulse>>>,
    /// Somebody has come, and nobody was in.
    first: Notify,
}

/// One runner's signs of life. Times are nanoseconds since the watch began.
struct Pulse {
    heard: AtomicU64,
    /// When it was last told to ask.
    asked: AtomicU64,
    alarm: Notify,
}

/// A runner that is watched, until this is dropped.
pub(super) struct Watched {
    watch: Arc<Watch>,
    pulse: Arc<Pulse>,
    key: usize,
}

/// What a silence calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// The runner is to be asked whether it is there.
    Ask,
    /// It counts as gone.
    Gone,
}

impl Watch {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            born: Instant::now(),
            ping_interval: settings.ping_interval,
            heartbeat_timeout: settings.heartbeat_timeout,
            pulses: Mutex::default(),
            first: Notify::new(),
        }
    }

    /// Watches a runner that has just been heard.
    pub(super) fn enter(self: &Arc<Self>) -> Watched {
        let now = self.now();
        let pulse =
            Arc::new(Pulse { heard: AtomicU64::new(now), asked: AtomicU64::new(now), alarm: Notify::new() });
        let mut pulses = self.pulses();
        if pulses.is_empty() {
            self.first.notify_one();
        }
        let key = pulses.insert(pulse.clone());
        Watched { watch: self.clone(), pulse, key }
    }

    /// Tells those who are due. Never returns; its owner drops it.
    pub(super) async fn run(&self) {
        let step = STEP.min(self.ping_interval.min(self.heartbeat_timeout) / STEPS);
        loop {
            let looked = Instant::now();
            match self.look() {
                // Whoever comes later is due later.
                Some(due) => sleep_until((self.born + Duration::from_nanos(due)).max(looked + step)).await,
                None => self.first.notified().await,
            }
        }
    }

    /// Tells those who are due, and says when the next one is.
    fn look(&self) -> Option<u64> {
        let now = self.now();
        let due = |(_, pulse): (usize, &Arc<Pulse>)| {
            if self.due(pulse) <= now {
                pulse.asked.store(now, Ordering::Relaxed);
                pulse.alarm.notify_one();
            }
            self.due(pulse)
        };
        self.pulses().iter().map(due).min()
    }

    fn due(&self, pulse: &Pulse) -> u64 {
        let heard = pulse.heard.load(Ordering::Relaxed);
        let ask = heard.max(pulse.asked.load(Ordering::Relaxed)).saturating_add(nanos(self.ping_interval));
        ask.min(heard.saturating_add(nanos(self.heartbeat_timeout)))
    }

    fn now(&self) -> u64 {
        nanos(self.born.elapsed())
    }

    fn pulses(&self) -> MutexGuard<'_, Slab<Arc<Pulse>>> {
        self.pulses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// Something was heard of it.
    pub(super) fn heard(&self) {
        self.pulse.heard.store(self.watch.now(), Ordering::Relaxed);
    }

    /// Waits until it has been silent for so long that something is to be done. Cancel safe.
    pub(super) async fn silence(&self) -> Silence {
        loop {
            self.pulse.alarm.notified().await;
            let silent = self.watch.now().saturating_sub(self.pulse.heard.load(Ordering::Relaxed));
            if silent >= nanos(self.watch.heartbeat_timeout) {
                return Silence::Gone;
            }
            // Else it was heard in this moment.
            if silent >= nanos(self.watch.ping_interval) {
                return Silence::Ask;
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.pulses().try_remove(self.key);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::task::JoinSet;
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A watch with the usual times, looking.
    fn watch() -> (Arc<Watch>, JoinSet<()>) {
        let watch = Arc::new(Watch::new(&Settings::default()));
        let mut looking = JoinSet::new();
        let runs = watch.clone();
        looking.spawn(async move { runs.run().await });
        (watch, looking)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_runner_is_asked_twice_and_then_it_is_gone() {
        let (watch, _looking) = watch();
        advance(5 * SECOND).await;
        let watched = watch.enter();
        let began = Instant::now();
        for (silence, at) in [(Silence::Ask, 40), (Silence::Ask, 80), (Silence::Gone, 90)] {
            assert_eq!(watched.silence().await, silence);
            assert_eq!(began.elapsed().as_secs(), at);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_heard_is_left_alone() {
        let (watch, _looking) = watch();
        let watched = watch.enter();
        for _ in 0..20 {
            tokio::time::sleep(30 * SECOND).await;
            watched.heard();
            assert!(watched.silence().now_or_never().is_none());
        }
        let heard = Instant::now();
        assert_eq!(watched.silence().await, Silence::Ask);
        assert_eq!(heard.elapsed().as_secs(), 40);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_heard_when_it_was_due_is_left_alone() {
        let (watch, _looking) = watch();
        let watched = watch.enter();
        // The watch has found it silent, and its task has not run yet.
        advance(40 * SECOND).await;
        assert!(watch.look().is_some());
        watched.heard();
        assert!(watched.silence().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_are_due_together_are_told_together() {
        const RUNNERS: u32 = 1000;
        let (watch, _looking) = watch();
        let mut waiting = JoinSet::new();
        for _ in 0..RUNNERS {
            let watched = watch.enter();
            waiting.spawn(async move {
                let began = Instant::now();
                assert_eq!(watched.silence().await, Silence::Ask);
                (Instant::now(), began.elapsed())
            });
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let told = waiting.join_all().await;
        assert!(told.iter().all(|(_, after)| (40 * SECOND..=41 * SECOND + STEP / 100).contains(after)));
        let mut moments: Vec<_> = told.iter().map(|(at, _)| *at).collect();
        moments.sort();
        moments.dedup();
        assert!(moments.len() <= 11, "10 s of runners were told at {} moments", moments.len());
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_is_forgotten() {
        let (watch, _looking) = watch();
        let many: Vec<_> = (0..10).map(|_| watch.enter()).collect();
        assert_eq!(watch.pulses().len(), 10);
        drop(many);
        assert!(watch.pulses().is_empty());
        // And the next one is looked after.
        tokio::time::sleep(100 * SECOND).await;
        let watched = watch.enter();
        let began = Instant::now();
        assert_eq!(watched.silence().await, Silence::Ask);
        assert_eq!(began.elapsed().as_secs(), 40);
    }
}
