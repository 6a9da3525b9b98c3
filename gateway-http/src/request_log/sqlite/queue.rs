//! Between the ways of requests and the writer's thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::SqliteLog;
use super::batch::Batch;
use crate::request_log::record::RequestRecord;

/// Records that wait, with a bound. A mutex, because what is done under it takes a fraction of a microsecond
/// and the writer takes all at once; the writer is woken once per batch, since waking a thread costs more than
/// what it is told.
pub(super) struct Queue {
    capacity: usize,
    state: Mutex<State>,
    bell: Condvar,
    dropped: AtomicU64,
    /// How many of the accepted records are written or given up.
    settled: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    waiting: Batch,
    /// Ever.
    accepted: u64,
    /// Somebody waits until so many are settled.
    flush_to: u64,
    over: bool,
    ended: bool,
}

/// What the writer was given.
pub(super) struct Taken {
    /// How many are settled once these are.
    pub(super) up_to: u64,
    /// There will be no more.
    pub(super) over: bool,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            state: Mutex::default(),
            bell: Condvar::new(),
            dropped: AtomicU64::new(0),
            settled: watch::Sender::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, longest: Duration, idle: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let waited = self.bell.wait_timeout_while(self.lock(), longest, |state| idle(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    pub(super) fn push(&self, record: &RequestRecord<'_>) {
        let mut state = self.lock();
        if state.waiting.len() >= self.capacity {
            drop(state);
            return self.drop_records(1);
        }
        state.waiting.push(record);
        state.accepted += 1;
        let len = state.waiting.len();
        drop(state);
        if len == 1 || len == self.enough() {
            self.bell.notify_one();
        }
    }

    /// So many, and the writer does not wait for more.
    fn enough(&self) -> usize {
        SqliteLog::BATCH.min(self.capacity)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn drop_records(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn settled(&self) -> watch::Receiver<u64> {
        self.settled.subscribe()
    }

    pub(super) fn settle(&self, up_to: u64) {
        self.settled.send_replace(up_to);
    }

    fn is_hurried(&self, state: &State) -> bool {
        state.flush_to > *self.settled.borrow()
    }

    /// Has the writer write what waits at once, and tells how many will be settled then.
    pub(super) fn hurry(&self) -> u64 {
        let target = {
            let mut state = self.lock();
            state.flush_to = state.accepted;
            state.flush_to
        };
        self.bell.notify_all();
        target
    }

    /// For the writer: what waits, when there is enough of it or the time for gathering is up; nothing if
    /// `longest` passes before.
    pub(super) fn take(&self, into: &mut Batch, longest: Duration) -> Taken {
        let is_pressed = |state: &State| state.over || self.is_hurried(state);
        drop(self.wait_while(longest, |state| state.waiting.is_empty() && !is_pressed(state)));
        let mut state = self.wait_while(SqliteLog::GATHER, |state| {
            !state.waiting.is_empty() && state.waiting.len() < self.enough() && !is_pressed(state)
        });
        std::mem::swap(&mut state.waiting, into);
        Taken { up_to: state.accepted, over: state.over }
    }

    /// For the writer: waits so long, less if somebody asks for a flush, and tells whether it is over.
    pub(super) fn pause(&self, shortest: Duration, longest: Duration) -> bool {
        let (flush_to, hurried) = {
            let state = self.lock();
            (state.flush_to, self.is_hurried(&state))
        };
        let longest = if hurried { shortest } else { longest };
        self.wait_while(longest, |state| !state.over && state.flush_to == flush_to).over
    }

    /// There will be no more records. Waits for the writer, but no longer than that.
    pub(super) fn end(&self, longest: Duration) {
        self.lock().over = true;
        self.bell.notify_all();
        drop(self.wait_while(longest, |state| !state.ended));
    }

    /// The writer has ended.
    pub(super) fn ended(&self) {
        self.lock().ended = true;
        self.bell.notify_all();
    }
}
