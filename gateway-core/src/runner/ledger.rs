//! What of a runner's resources is promised to requests that are under way.

mod past;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::resources::{ResourceReport, Resources};
use past::Past;

/// Resources in thousandths: cores, accelerators, gigabytes of memory.
pub(super) type Amounts = [u64; 3];

/// A report says what was free of a machine at some moment that nobody knows, some of our requests included
/// and some not. Here it is worked out how much is free for certain. What a request is given counts at once.
///
/// Whoever asks reads three words. Whoever takes and gives back holds a lock for a few steps in memory.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// What can be promised now; `UNKNOWN` if the runner does not say. Written under the lock.
    free: [AtomicU64; 3],
    born: Instant,
    /// Of a runner of which nothing was ever said: none. Most are.
    books: Mutex<Option<Box<Books>>>,
}

const UNKNOWN: u64 = u64::MAX;

/// When resources were promised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(super) u32);

/// Two things are known of what is free, and the better of them counts.
///
/// - *By what there is*: what would be free if none of ours were there, less what ours hold. The former is known
///   to be at least `base`, for as long as others take no more.
/// - *By what was seen*: what a report saw free, less what is held by those of ours that it may not have seen. Of
///   the others it does not matter whether it saw them at work or was late and saw them done.
#[derive(Debug, Default)]
struct Books {
    /// `None`: nobody ever said what is free.
    base: Option<Amounts>,
    /// Nobody but the operator.
    assumed: bool,
    /// As last reported.
    total: Option<Amounts>,
    /// Whether the last report said what is free.
    known: bool,
    seen: Amounts,
    /// Who was promised something from here on may have been overlooked by the last report.
    young_from: Moment,
    /// What of `held` is theirs.
    young: Amounts,
    /// What is promised, `cut_off` included.
    held: Amounts,
    /// Promised to requests that were broken off. The runner may be at them for a while yet. No more than
    /// fits into the machine.
    cut_off: Vec<CutOff>,
    past: Past,
}

#[derive(Debug, Clone, Copy)]
struct CutOff {
    promised: Moment,
    broken_off: Moment,
    amounts: Amounts,
}

impl Ledger {
    /// Within this time a request that is sent is on the books of its runner, and one that is broken off is noticed.
    /// A lost packet of a handshake is sent again after 1 s (RFC 6298).
    pub(crate) const SETTLES: Duration = Duration::from_secs(1);
    /// A request that was broken off is taken to be over after this time if no report was clear about it, because
    /// others came and went all the while. 15 reports of the usual pace.
    pub(crate) const LINGERS: Duration = Duration::from_secs(30);

    pub(crate) fn new(born: Instant) -> Self {
        Self { free: std::array::from_fn(|_| AtomicU64::new(UNKNOWN)), born, books: Mutex::default() }
    }

    /// Goes by the operator's word until the runner says what is free.
    pub(crate) fn assume(&self, resources: &Resources) {
        let mut books = self.books();
        let books = books.get_or_insert_default();
        if books.base.is_none() || books.assumed {
            books.base = Some(thousandths(resources));
            books.total = books.base;
            books.assumed = true;
            self.show(books);
        }
    }

    /// Takes a report in. Whether more is free than before.
    pub(crate) fn report(&self, report: &ResourceReport, now: Instant) -> bool {
        let mut books = self.books();
        let says_nothing = report.available.is_none() && report.total.is_none();
        if books.as_ref().map_or(says_nothing, |books| books.assumed && report.available.is_none()) {
            return false;
        }
        let books = books.get_or_insert_default();
        let before = books.free().unwrap_or_default();
        books.report(report, self.when(now), self.when_asked(report, now), self.when_settled(report, now));
        self.show(books);
        let after = books.free().unwrap_or_default();
        (0..3).any(|at| after[at] > before[at])
    }

    /// What is free now, or `None` if the runner does not say.
    pub(crate) fn available(&self) -> Option<Resources> {
        Some(whole(self.free()?))
    }

    /// Whether so much is free now.
    pub(crate) fn covers(&self, need: &Resources) -> bool {
        self.free().is_some_and(|free| fits(&thousandths(need), &free))
    }

    /// All that there is, as far as is known.
    pub(crate) fn total(&self) -> Option<Resources> {
        self.books().as_ref()?.there_is().map(whole)
    }

    /// Whether so much could be free, if not now. A runner that says what is free but not what there is might.
    pub(crate) fn might_cover(&self, need: &Resources) -> bool {
        let need = thousandths(need);
        // Without the lock, as it is asked of many for one choice.
        if self.free().is_some_and(|free| fits(&need, &free)) {
            return true;
        }
        let books = self.books();
        let Some(books) = books.as_ref().filter(|books| books.is_known()) else { return false };
        books.total.is_none() || books.there_is().is_some_and(|there_is| fits(&need, &there_is))
    }

    /// Takes all of `need` and what `and_with` takes, or nothing: nobody ever sees the one taken without the
    /// other, and goes to sleep over it.
    pub(crate) fn take_with<T>(
        &self,
        need: &Resources,
        now: Instant,
        and_with: impl FnOnce() -> Option<T>,
    ) -> Option<(Moment, T)> {
        let need = thousandths(need);
        let mut books = self.books();
        let books = books.as_mut()?;
        if !fits(&need, &books.free()?) {
            return None;
        }
        let taken = and_with()?;
        let moment = self.when(now);
        books.take(need, moment);
        self.show(books);
        Some((moment, taken))
    }

    /// Gives back what was promised at that moment. `cut_off`: the request was broken off, so that what it had
    /// counts as free only when a later report says so.
    pub(crate) fn give_back(&self, held: &Resources, promised: Moment, cut_off: bool, now: Instant) {
        let mut books = self.books();
        let Some(books) = books.as_mut() else { return };
        books.give_back(thousandths(held), promised, cut_off, self.when(now));
        self.show(books);
    }

    fn free(&self) -> Option<Amounts> {
        let free: Amounts = std::array::from_fn(|at| self.free[at].load(Ordering::Acquire));
        (!free.contains(&UNKNOWN)).then_some(free)
    }

    fn show(&self, books: &Books) {
        let free = books.free().unwrap_or([UNKNOWN; 3]);
        for (shown, free) in self.free.iter().zip(free) {
            shown.store(free, Ordering::Release);
        }
    }

    fn when(&self, at: Instant) -> Moment {
        past::moment(at, self.born)
    }

    /// From when on a report may be.
    fn when_asked(&self, report: &ResourceReport, now: Instant) -> Moment {
        let age = report.max_age.unwrap_or(ResourceReport::MAX_AGE);
        self.when(now.checked_sub(age).unwrap_or(self.born))
    }

    /// What had happened by then is in the report.
    fn when_settled(&self, report: &ResourceReport, now: Instant) -> Moment {
        let age = report.max_age.unwrap_or(ResourceReport::MAX_AGE).saturating_add(Self::SETTLES);
        self.when(now.checked_sub(age).unwrap_or(self.born))
    }

    fn books(&self) -> MutexGuard<'_, Option<Box<Books>>> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

impl Books {
    fn is_known(&self) -> bool {
        self.known || self.assumed
    }

    fn free(&self) -> Option<Amounts> {
        let base = self.base.filter(|_| self.is_known())?;
        Some(std::array::from_fn(|at| {
            let by_what_there_is = base[at].saturating_sub(self.held[at]);
            by_what_there_is.max(self.seen[at].saturating_sub(self.young[at]))
        }))
    }

    fn there_is(&self) -> Option<Amounts> {
        match (self.total, self.base) {
            (Some(total), Some(base)) => Some(std::array::from_fn(|at| total[at].max(base[at]))),
            (total, base) => total.or(base),
        }
    }

    /// A report that was made after `asked`, and of which `settled` says what is in it for certain.
    fn report(&mut self, report: &ResourceReport, now: Moment, asked: Moment, settled: Moment) {
        self.past.go_on_to(now, self.held);
        let total = report.total.as_ref().map(thousandths);
        self.total = total.or(self.total.filter(|_| !self.assumed));
        // The operator's word was for as long as nothing better was known.
        self.base = self.base.filter(|_| !self.assumed);
        (self.assumed, self.known) = (false, report.available.is_some());
        self.young_from = Moment(0);
        let Some(seen) = report.available.as_ref().map(thousandths) else {
            (self.seen, self.young) = ([0; 3], self.held);
            return;
        };
        self.forget(|cut| cut.broken_off < now.before(Ledger::LINGERS));
        let most_held = self.past.most_held(asked).filter(|_| self.past.remembers(settled));
        let Some(mut most_held) = most_held else {
            // Too old to tell what of ours is in it, but so much there was.
            (self.base, self.seen, self.young) = (Some(seen), [0; 3], self.held);
            return;
        };
        // Of what was broken off that long ago some may still be there, and some not.
        let is_old = |cut: &CutOff| cut.broken_off < settled;
        let mut lingering = [0; 3];
        for cut in self.cut_off.iter().filter(|cut| is_old(cut)) {
            add(&mut lingering, &cut.amounts);
        }
        take_away(&mut most_held, &lingering);
        let mut base = self.base.unwrap_or(seen);
        for at in 0..3 {
            // What it saw of ours was held at that moment, and so it was no more than was ever held since.
            let at_most =
                seen[at].saturating_add(most_held[at]).min(total.map_or(u64::MAX, |total| total[at]));
            // This is free for certain if none of ours were there but those that linger.
            let certain = base[at].saturating_sub(lingering[at]).max(seen[at]).min(at_most.max(seen[at]));
            base[at] = base[at].min(at_most.saturating_add(lingering[at])).max(certain);
            lingering[at] = base[at] - certain;
        }
        self.base = Some(base);
        self.keep_of_old(is_old, lingering);
        (self.seen, self.young, self.young_from) = (seen, self.past.promised_from(settled), settled);
        for cut in self.cut_off.iter().filter(|cut| cut.promised >= settled) {
            add(&mut self.young, &cut.amounts);
        }
    }

    /// These are the runner's own affair from now on.
    fn forget(&mut self, which: impl Fn(&CutOff) -> bool) {
        for CutOff { broken_off, amounts, .. } in self.cut_off.extract_if(.., |cut| which(cut)) {
            take_away(&mut self.held, &amounts);
            self.past.forget(broken_off, &amounts);
        }
    }

    /// Of the old ones no more is held than this, by the last of them: they linger longest.
    fn keep_of_old(&mut self, is_old: impl Fn(&CutOff) -> bool, mut most: Amounts) {
        for cut in self.cut_off.iter_mut().rev().filter(|cut| is_old(cut)) {
            let kept: Amounts = std::array::from_fn(|at| cut.amounts[at].min(most[at]));
            let mut gone = cut.amounts;
            take_away(&mut gone, &kept);
            take_away(&mut most, &kept);
            take_away(&mut self.held, &gone);
            self.past.forget(cut.broken_off, &gone);
            cut.amounts = kept;
        }
        self.cut_off.retain(|cut| cut.amounts != [0; 3]);
    }

    fn take(&mut self, need: Amounts, now: Moment) {
        self.past.go_on_to(now, self.held);
        add(&mut self.held, &need);
        add(&mut self.young, &need);
        self.past.promised(now, &need, &self.held);
    }

    fn give_back(&mut self, held: Amounts, promised: Moment, cut_off: bool, now: Moment) {
        self.past.go_on_to(now, self.held);
        self.past.no_longer(promised, &held);
        // While all is assumed there will be no report that says so.
        if cut_off && !self.assumed {
            let alike = |cut: &&mut CutOff| (cut.promised, cut.broken_off) == (promised, now);
            match self.cut_off.iter_mut().find(alike) {
                Some(cut) => add(&mut cut.amounts, &held),
                None => self.cut_off.push(CutOff { promised, broken_off: now, amounts: held }),
            }
            return;
        }
        take_away(&mut self.held, &held);
        if promised >= self.young_from {
            take_away(&mut self.young, &held);
        }
    }
}

fn add(to: &mut Amounts, more: &Amounts) {
    (0..3).for_each(|at| to[at] = to[at].saturating_add(more[at]));
}

fn take_away(from: &mut Amounts, less: &Amounts) {
    (0..3).for_each(|at| from[at] = from[at].saturating_sub(less[at]));
}

fn fits(need: &Amounts, free: &Amounts) -> bool {
    (0..3).all(|at| need[at] <= free[at])
}

fn thousandths(resources: &Resources) -> Amounts {
    // A cast from a float saturates and takes what is no number for 0.
    let whole = |amount: f64| ((amount * 1000.0).round() as u64).min(UNKNOWN / 4);
    [whole(resources.cpus), whole(resources.gpus), whole(resources.memory_gb)]
}

fn whole(amounts: Amounts) -> Resources {
    let [cpus, gpus, memory_gb] = amounts.map(|thousandths| thousandths as f64 / 1000.0);
    Resources { cpus, gpus, memory_gb }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
