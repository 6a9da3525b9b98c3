//! What became of each request, in the exact time of the model.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::engine::{Cached, Event, Nanos};

/// One request.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Record {
    pub(crate) arrival: Nanos,
    pub(crate) first_token: Option<Nanos>,
    pub(crate) end: Option<Nanos>,
    pub(crate) cached: Option<Cached>,
    /// Who gave the answer.
    pub(crate) runner: usize,
    pub(crate) tries: u32,
    pub(crate) failed: Option<&'static str>,
}

/// All of them, by their place in the trace.
#[derive(Debug)]
pub(crate) struct Log(Mutex<Vec<Record>>);

impl Log {
    pub(crate) fn new(requests: usize) -> Self {
        Self(Mutex::new(vec![Record::default(); requests]))
    }

    pub(crate) fn event(&self, runner: usize, event: &Event) {
        let record = &mut self.records()[event.job];
        if let Some(cached) = event.first {
            // A request that is sent twice, hedged or after a fault, counts by whoever begins first.
            if record.first_token.is_none() {
                (record.first_token, record.cached, record.runner) = (Some(event.at), Some(cached), runner);
            }
        }
        if event.done {
            record.end = Some(event.at);
        }
    }

    pub(crate) fn arrived(&self, request: usize, at: Nanos) {
        self.records()[request].arrival = at;
    }

    pub(crate) fn answered(&self, request: usize, tries: u32) {
        self.records()[request].tries = tries;
    }

    pub(crate) fn failed(&self, request: usize, why: &'static str) {
        self.records()[request].failed = Some(why);
    }

    pub(crate) fn take(&self) -> Vec<Record> {
        std::mem::take(&mut self.records())
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
