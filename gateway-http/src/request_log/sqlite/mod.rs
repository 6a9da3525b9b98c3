//! The request log in an SQLite file.
//!
//! rusqlite and not sqlx, though the latter speaks PostgreSQL, too: SQLite has no asynchronous interface, so
//! both end in a thread per connection, which here is the writer itself. sqlx 0.9 needs Rust 1.94 where this
//! workspace asks for 1.90, and takes 100 more packages and two to three times the time to compile. The range of
//! versions in `Cargo.toml` lets a host that has sqlx's SQLite find one `libsqlite3-sys` for both.

mod batch;
mod database;
mod error;
mod queue;
mod schema;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use error::SqliteLogError;

use super::record::{RequestRecord, RequestSink};
use crate::decision::Decision;
use database::{Database, Limits};
use queue::Queue;
use writer::Writer;

/// Keeps a row of every finished request in an SQLite file: a [`RequestSink`].
///
/// ```
/// use std::sync::Arc;
/// use gateway_http::{Gateway, SqliteLog};
///
/// # let folder = std::env::temp_dir().join(format!("gateway-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// let log = Arc::new(SqliteLog::builder(folder.join("requests.db")).open()?);
/// let gateway = Gateway::builder().allow_anonymous_clients().request_sink(log).build()?;
/// # drop(gateway);
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// **Off the way of requests.** A record is copied into a queue in memory; a thread of the log's own writes
/// what has gathered in one transaction, every [`SqliteLog::GATHER`] or [`SqliteLog::BATCH`] records. Of a queue
/// that is full, records are dropped and counted, and the log says so at most once a minute. As many as wait may
/// be in the writer's hands besides.
///
/// **If it cannot be written** (locked, disk full, damaged, made read-only), the writer says so and tries again,
/// with pauses up to [`SqliteLog::LONGEST_PAUSE`], for as long as it takes; meanwhile the queue fills. A file that
/// was moved away is made anew within a minute.
///
/// **Rotation.** Rows older than [`max_age`](SqliteLogBuilder::max_age) are deleted, and the oldest ones when
/// the file is larger than [`max_bytes`](SqliteLogBuilder::max_bytes); the file then shrinks. It is one file and
/// not a row of them because a request is then found by its id in one place, and no file is renamed under a reader.
/// Beside it are SQLite's own `-wal` and `-shm`; the former has a few MiB, and more only while a reader keeps a
/// transaction open.
///
/// **The table** is `requests`, with one column for each field of [`RequestRecord`]: `time_ms` since 1970, times
/// in microseconds (`queue_us`, `first_byte_us`, `duration_us`), and NULL for what is not known. Others may read
/// it while it is written. Texts that clients choose are cut to 1,024 bytes.
///
/// **Its end.** [`Gateway::shutdown`](crate::Gateway::shutdown) has everything written that is queued. Dropping
/// the log ends its thread, and blocks up to [`SqliteLog::LAST_WORDS`] while that writes what is left.
pub struct SqliteLog {
    queue: Arc<Queue>,
    path: PathBuf,
}

impl SqliteLog {
    /// Records that may wait to be written: 8,192, which is what a second of heavy load leaves, and 2 to 3 MiB.
    pub const QUEUE: usize = 8192;
    /// How old rows may get: 30 days, a month's account.
    pub const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
    /// How large the file may get: 1 GiB, some four million requests.
    pub const MAX_BYTES: u64 = 1 << 30;
    /// The least that [`SqliteLogBuilder::max_bytes`] takes: 1 MiB. A smaller file would be deleted about as fast as
    /// it is written.
    pub const LEAST_BYTES: u64 = 1 << 20;
    /// How long records gather: a quarter of a second, so that somebody who looks sees what has just been.
    pub const GATHER: Duration = Duration::from_millis(250);
    /// So many records are written without waiting for more: a transaction costs about as much as a hundred rows.
    pub const BATCH: usize = 500;
    /// The longest between two tries to write: 30 s.
    pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);
    /// How long dropping the log waits for its thread: 2 s.
    pub const LAST_WORDS: Duration = Duration::from_secs(2);

    /// A log in that file, which is made if it is not there.
    pub fn builder(path: impl Into<PathBuf>) -> SqliteLogBuilder {
        SqliteLogBuilder {
            path: path.into(),
            limits: Limits { max_age: Some(Self::MAX_AGE), max_bytes: Self::MAX_BYTES },
            queue: Self::QUEUE,
        }
    }
}

impl RequestSink for SqliteLog {
    fn record(&self, record: &RequestRecord<'_>) {
        self.queue.push(record);
    }

    fn flush(&self) -> Decision<'_, ()> {
        let mut settled = self.queue.settled();
        let target = self.queue.hurry();
        Decision::later(async move {
            // Fails only if the writer is gone, and then there is nothing to wait for.
            let _ = settled.wait_for(|settled| *settled >= target).await;
        })
    }

    fn dropped(&self) -> u64 {
        self.queue.dropped()
    }
}

impl Drop for SqliteLog {
    fn drop(&mut self) {
        self.queue.end(Self::LAST_WORDS);
    }
}

impl fmt::Debug for SqliteLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteLog").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Settings of a [`SqliteLog`].
#[derive(Debug, Clone)]
#[must_use]
pub struct SqliteLogBuilder {
    path: PathBuf,
    limits: Limits,
    queue: usize,
}

impl SqliteLogBuilder {
    /// How old rows may get; [`SqliteLog::MAX_AGE`] unless set, `None` for any age.
    pub fn max_age(mut self, max_age: Option<Duration>) -> Self {
        self.limits.max_age = max_age;
        self
    }

    /// How large the file may get, in bytes; [`SqliteLog::MAX_BYTES`] unless set, at least
    /// [`SqliteLog::LEAST_BYTES`]. It may be exceeded by what is written within some 2,000 rows.
    pub fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.limits.max_bytes = max_bytes;
        self
    }

    /// How many records may wait to be written; [`SqliteLog::QUEUE`] unless set, at least 1.
    pub fn queue(mut self, queue: usize) -> Self {
        self.queue = queue;
        self
    }

    /// Opens the file, or makes it, and starts the writer. Blocks for some milliseconds.
    ///
    /// # Errors
    /// A setting is out of its range; the file cannot be opened and written, belongs to another program, or was
    /// written by a newer version. Each message names the file.
    pub fn open(self) -> Result<SqliteLog, SqliteLogError> {
        for (what, value, least) in [
            ("max_bytes", self.limits.max_bytes, SqliteLog::LEAST_BYTES),
            ("queue", u64::try_from(self.queue).unwrap_or(u64::MAX), 1),
        ] {
            if value < least {
                return Err(SqliteLogError::TooSmall { what, least });
            }
        }
        let Self { path, limits, queue } = self;
        let database = Database::open(path.clone(), limits)?;
        let queue = Arc::new(Queue::new(queue));
        let writer = Writer::new(queue.clone(), database);
        // Events of the thread go where those of whoever opened the log go.
        let events = tracing::dispatcher::get_default(Clone::clone);
        std::thread::Builder::new()
            .name("request-log".to_owned())
            .spawn(move || tracing::dispatcher::with_default(&events, || writer.run()))
            .map_err(|source| SqliteLogError::Unusable { path: path.clone(), source: source.into() })?;
        Ok(SqliteLog { queue, path })
    }
}
