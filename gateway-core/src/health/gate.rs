//! The word on which a breaker turns: its phase, and how many probes are out. Every step is one
//! compare-and-swap on it, so no two threads ever act on different halves of a state.
//!
//! Knows no clock and no runtime: `tests/breaker_interleavings.rs` includes this file and runs it under
//! loom, through every interleaving.

use super::sync::{AtomicU64, Ordering};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Everybody may pass.
    Closed,
    /// Nobody may.
    Open,
    /// So many as there are places may: their requests are the probes.
    HalfOpen,
}

/// What the word says. Times are in ms on a clock of the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct View {
    pub(super) phase: Phase,
    /// Probes that hold a place, in whatever phase: a probe that outlives its episode still counts.
    pub(super) out: u8,
    /// The most that may.
    pub(super) places: u8,
    /// Probes of this episode that passed.
    pub(super) passed: u8,
    /// How often it has opened in a row.
    pub(super) opened: u8,
    /// Closed: since when. Open: until when. Half-open: until when it was open, which names the episode.
    pub(super) at: u64,
}

impl View {
    /// The most probes that can be out at once, and the most that can be asked to pass.
    pub(super) const MOST: u8 = 63;
    /// The count of openings stays there.
    const MOST_OPENED: u8 = 31;
    /// 2^39 ms are 17 years.
    const LATEST: u64 = (1 << 39) - 1;

    pub(super) fn unpack(word: u64) -> Self {
        let six = |shift: u32| (word >> shift & 63) as u8;
        let phase = match word & 3 {
            0 => Phase::Closed,
            1 => Phase::Open,
            _ => Phase::HalfOpen,
        };
        let opened = (word >> 20 & 31) as u8;
        Self { phase, out: six(2), places: six(8), passed: six(14), opened, at: word >> 25 }
    }

    pub(super) fn pack(self) -> u64 {
        let phase = match self.phase {
            Phase::Closed => 0,
            Phase::Open => 1,
            Phase::HalfOpen => 2,
        };
        phase
            | u64::from(self.out.min(Self::MOST)) << 2
            | u64::from(self.places.min(Self::MOST)) << 8
            | u64::from(self.passed.min(Self::MOST)) << 14
            | u64::from(self.opened.min(Self::MOST_OPENED)) << 20
            | self.at.min(Self::LATEST) << 25
    }

    /// The phase as a request would find it: open for long enough is half-open.
    pub(super) fn phase_at(self, now: u64) -> Phase {
        if self.phase == Phase::Open && now >= self.at { Phase::HalfOpen } else { self.phase }
    }

    /// Opened once more, until then. The places that probes still hold stay theirs.
    fn open(self, places: u8, until: impl Fn(u8) -> u64) -> Self {
        let opened = self.opened.saturating_add(1).min(Self::MOST_OPENED);
        let places = places.clamp(1, Self::MOST);
        Self { phase: Phase::Open, places, passed: 0, opened, at: until(opened), ..self }
    }

    /// After one more request has been let in, and what that request is.
    fn entered(self, now: u64) -> Option<(Self, Entry)> {
        let half_open = match self.phase {
            Phase::Closed => return Some((self, Entry::Free)),
            Phase::Open if now < self.at => return None,
            Phase::Open => Self { phase: Phase::HalfOpen, passed: 0, ..self },
            Phase::HalfOpen => self,
        };
        let probe = Probe { episode: half_open.at, holds_place: true };
        let next = Self { out: half_open.out + 1, ..half_open };
        (half_open.out < half_open.places).then_some((next, Entry::Probe(probe)))
    }
}

/// How a request was let in.
#[derive(Debug)]
pub(super) enum Entry {
    /// Like any other.
    Free,
    /// As a probe.
    Probe(Probe),
}

/// A request whose end decides. Holds one of the counted places until its verdict is given.
#[derive(Debug)]
pub(crate) struct Probe {
    episode: u64,
    holds_place: bool,
}

/// What became of a probe.
pub(super) enum Verdict<F: Fn(u8) -> u64> {
    /// It passed; so many must.
    Passed { enough: u8, now: u64 },
    /// It failed; open again with so many places, until then, by the number of openings in a row.
    Failed { places: u8, until: F },
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Opened,
    Closed,
}

#[derive(Debug)]
pub(super) struct Gate(AtomicU64);

impl Gate {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// One load: what the way of a healthy runner costs.
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.0.load(Ordering::Acquire) & 3 == 0
    }

    pub(super) fn look(&self) -> View {
        View::unpack(self.0.load(Ordering::Acquire))
    }

    /// Whether [`enter`](Gate::enter) would let one in now.
    pub(super) fn would_admit(&self, now: u64) -> bool {
        self.look().entered(now).is_some()
    }

    /// Lets a request in, or not. A [`Probe`] must be given to [`settle`](Gate::settle) or
    /// [`give_back`](Gate::give_back).
    pub(super) fn enter(&self, now: u64) -> Option<Entry> {
        let mut word = self.0.load(Ordering::Acquire);
        loop {
            let (next, entry) = View::unpack(word).entered(now)?;
            if matches!(entry, Entry::Free) {
                return Some(entry);
            }
            match self.0.compare_exchange_weak(word, next.pack(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(entry),
                Err(other) => word = other,
            }
        }
    }

    /// Opens it, if it is closed. One that was closed for at least `calm` forgets its earlier openings.
    pub(super) fn trip(&self, now: u64, calm: u64, places: u8, until: impl Fn(u8) -> u64) -> Option<Turn> {
        let next = |word| {
            let mut view = View::unpack(word);
            if view.phase != Phase::Closed {
                return None;
            }
            if now.saturating_sub(view.at) >= calm {
                view.opened = 0;
            }
            Some(view.open(places, &until).pack())
        };
        let done = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        done.ok().map(|_| Turn::Opened)
    }

    /// Takes a probe's verdict, and its place back. A verdict on an episode that is over changes nothing
    /// more; one that failed after it had passed still counts.
    pub(super) fn settle<F: Fn(u8) -> u64>(&self, probe: &mut Probe, verdict: Verdict<F>) -> Option<Turn> {
        let held = std::mem::take(&mut probe.holds_place);
        let mut turn = None;
        let next = |word| {
            let before = View::unpack(word);
            let mut view = View { out: before.out - u8::from(held), ..before };
            turn = None;
            if view.phase == Phase::HalfOpen && view.at == probe.episode {
                match &verdict {
                    Verdict::Passed { enough, now } if held => {
                        view.passed += 1;
                        if view.passed >= (*enough).clamp(1, View::MOST) {
                            view = View { phase: Phase::Closed, passed: 0, at: *now, ..view };
                            turn = Some(Turn::Closed);
                        }
                    }
                    // It has passed already.
                    Verdict::Passed { .. } => {}
                    Verdict::Failed { places, until } => {
                        view = view.open(*places, until);
                        turn = Some(Turn::Opened);
                    }
                }
            }
            (view != before).then(|| view.pack())
        };
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        turn
    }

    /// Takes a probe's place back without a verdict.
    pub(super) fn give_back(&self, probe: &mut Probe) {
        if std::mem::take(&mut probe.holds_place) {
            let next = |word| {
                let view = View::unpack(word);
                Some(View { out: view.out - 1, ..view }.pack())
            };
            let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        }
    }
}
