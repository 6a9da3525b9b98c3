//! The thread that writes.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::SqliteLog;
use super::batch::Batch;
use super::database::Database;
use super::error::SqliteLogError;
use super::queue::Queue;

/// Rows after which it is looked whether the file is too large; and the longest between two looks.
const TIDY_ROWS: usize = 2_000;
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// The pause after the first failure; doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// At most so often the log speaks of the same trouble.
const TELL_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Writer {
    queue: Arc<Queue>,
    database: Database,
    tidy_at: Instant,
    /// Since the last look.
    rows: usize,
    failures: Said,
    losses: Said,
    /// Records whose loss has been told.
    lost: u64,
}

/// When something was last said.
#[derive(Default)]
struct Said(Option<Instant>);

impl Said {
    fn may_speak(&mut self) -> bool {
        let may = self.0.is_none_or(|at| at.elapsed() >= TELL_EVERY);
        if may {
            self.0 = Some(Instant::now());
        }
        may
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // First, so that who waits for the end finds everything in the one file.
        self.database.close();
        self.queue.ended();
    }
}

impl Writer {
    pub(super) fn new(queue: Arc<Queue>, database: Database) -> Self {
        let (failures, losses) = Default::default();
        Self { queue, database, tidy_at: Instant::now(), rows: 0, failures, losses, lost: 0 }
    }

    /// Until the log is dropped.
    pub(super) fn run(mut self) {
        let mut batch = Batch::default();
        loop {
            let longest = self.tidy_at.saturating_duration_since(Instant::now());
            let taken = self.queue.take(&mut batch, longest);
            if !batch.is_empty() {
                self.write(&batch);
                batch.clear();
            }
            self.tell_losses(taken.over);
            if taken.over {
                return;
            }
            if self.rows >= TIDY_ROWS || self.tidy_at <= Instant::now() {
                self.tidy();
            }
            self.queue.settle(taken.up_to);
        }
    }

    /// Tries for as long as it takes, or until the log's end.
    fn write(&mut self, batch: &Batch) {
        let mut pause = FIRST_PAUSE;
        while let Err(error) = self.database.write(batch) {
            self.tell_failure(&error);
            if self.queue.pause(FIRST_PAUSE, pause) {
                self.queue.drop_records(batch.len() as u64);
                return;
            }
            self.tell_losses(false);
            pause = (pause * 2).min(SqliteLog::LONGEST_PAUSE);
        }
        if self.failures.0.take().is_some() {
            tracing::info!("the request log is written again");
        }
        self.rows += batch.len();
    }

    fn tidy(&mut self) {
        let more = self.database.tidy(SystemTime::now()).unwrap_or_else(|error| {
            self.tell_failure(&error);
            false
        });
        self.rows = 0;
        // Whatever has come meanwhile is written first.
        self.tidy_at = if more { Instant::now() } else { Instant::now() + TIDY_EVERY };
    }

    fn tell_failure(&mut self, error: &SqliteLogError) {
        if self.failures.may_speak() {
            tracing::error!(%error, "the request log cannot be written; it is tried again and again");
        }
    }

    fn tell_losses(&mut self, at_last: bool) {
        let lost = self.queue.dropped();
        if lost > self.lost && (self.losses.may_speak() || at_last) {
            tracing::warn!(
                records = lost - self.lost,
                "records of requests were dropped: the request log is behind"
            );
            self.lost = lost;
        }
    }
}
