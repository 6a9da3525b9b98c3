//! The file: opening, writing, making room.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::batch::Batch;
use super::error::SqliteLogError;
use super::schema::{self, Kind, STEPS};

/// What may be kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_age: Option<Duration>,
    pub(super) max_bytes: u64,
}

pub(super) struct Database {
    path: PathBuf,
    limits: Limits,
    /// `None` after a failure: whatever it was, a new connection knows better.
    connection: Option<Connection>,
}

/// How long a lock of somebody else is waited for. Readers do not lock a writer out, so it is another writer.
const BUSY: Duration = Duration::from_secs(1);
/// What `-wal` is cut back to after a burst: four times what SQLite writes into it between two checkpoints.
const JOURNAL_BYTES: u32 = 16 << 20;
/// Rows that are deleted at once, so that records never wait long behind it.
const STEP: u32 = 5_000;

impl Database {
    /// Opens the file or makes it.
    pub(super) fn open(path: PathBuf, limits: Limits) -> Result<Self, SqliteLogError> {
        let connection = connect(&path, STEPS)?;
        Ok(Self { path, limits, connection: Some(connection) })
    }

    /// Puts everything in the one file, if nobody else has it open. What comes after opens it again.
    pub(super) fn close(&mut self) {
        self.connection = None;
    }

    fn with<T>(
        &mut self,
        work: impl FnOnce(&mut Connection, Limits) -> rusqlite::Result<T>,
    ) -> Result<T, SqliteLogError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.path, STEPS)?,
        };
        let done = work(&mut connection, self.limits).map_err(|error| unusable(&self.path, error))?;
        self.connection = Some(connection);
        Ok(done)
    }

    /// Writes all records or none.
    pub(super) fn write(&mut self, batch: &Batch) -> Result<(), SqliteLogError> {
        self.with(|connection, _| {
            let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            batch.insert(&mut change.prepare(schema::INSERT)?)?;
            change.commit()
        })
    }

    /// Deletes what is too old or too much, in a small step; tells whether there is more to delete.
    pub(super) fn tidy(&mut self, now: SystemTime) -> Result<bool, SqliteLogError> {
        // Else a file that was moved away or deleted would be written to, where nobody finds it.
        if !self.path.exists() {
            self.connection = None;
        }
        self.with(|connection, limits| {
            let too_old = match limits.max_age.and_then(|age| now.checked_sub(age)) {
                Some(oldest) => delete_before(connection, oldest)?,
                None => 0,
            };
            let too_many = shrink(connection, limits.max_bytes)?;
            if too_old + too_many > 0 {
                give_back(connection)?;
            }
            Ok(too_old >= STEP as usize || too_many > 0)
        })
    }
}

fn unusable(path: &Path, error: rusqlite::Error) -> SqliteLogError {
    SqliteLogError::Unusable { path: path.to_owned(), source: error.into() }
}

fn connect(path: &Path, steps: &[&str]) -> Result<Connection, SqliteLogError> {
    let failed = |error| unusable(path, error);
    // Not as a URI, which the usual flags would take a path for that begins with `file:`.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    match schema::kind(&connection, steps).map_err(failed)? {
        Kind::Ours => {}
        Kind::Foreign => return Err(SqliteLogError::Foreign { path: path.to_owned() }),
        Kind::Newer(found) => {
            let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
            return Err(SqliteLogError::Newer { path: path.to_owned(), found, known });
        }
    }
    set_up(&mut connection, steps).map_err(failed)?;
    Ok(connection)
}

fn set_up(connection: &mut Connection, steps: &[&str]) -> rusqlite::Result<()> {
    // Before anything is written, or it has no effect.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    // Readers and the writer do not wait for each other, and a commit does not wait for the disk. A power
    // failure may take the last moments with it and never damages the file.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.query_row(&format!("PRAGMA journal_size_limit = {JOURNAL_BYTES}"), [], |_| Ok(()))?;
    schema::migrate(connection, steps)
}

/// Makes the file smaller by the pages that are free.
fn give_back(connection: &Connection) -> rusqlite::Result<()> {
    let mut vacuum = connection.prepare("PRAGMA incremental_vacuum")?;
    // A page per row.
    let mut pages = vacuum.query([])?;
    while pages.next()?.is_some() {}
    Ok(())
}

fn delete_before(connection: &Connection, oldest: SystemTime) -> rusqlite::Result<usize> {
    let oldest = oldest.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let oldest = i64::try_from(oldest).unwrap_or(i64::MAX);
    let sql = "DELETE FROM requests
               WHERE id IN (SELECT id FROM requests WHERE time_ms < ?1 ORDER BY time_ms LIMIT ?2)";
    connection.execute(sql, rusqlite::params![oldest, STEP])
}

/// Two looks at an end of the table each. In one `SELECT` it would be a pass over all of it.
const ROWS: &str = "SELECT coalesce((SELECT max(id) FROM requests) - (SELECT min(id) FROM requests) + 1, 0)";

/// Deletes the oldest rows if the file is too large: the share of them that is too much, and a little more.
fn shrink(connection: &Connection, max_bytes: u64) -> rusqlite::Result<usize> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
    let bytes = u64::try_from(pages * number("PRAGMA page_size")?).unwrap_or(0);
    if bytes <= max_bytes {
        return Ok(0);
    }
    // Numbers are given out in order and taken back in order, so this is about the count.
    let rows = number(ROWS)?;
    let too_much = (bytes - max_bytes) as f64 / bytes as f64 + 0.02;
    let count = ((rows as f64 * too_much).ceil() as i64).clamp(1, i64::from(STEP));
    connection
        .execute("DELETE FROM requests WHERE id IN (SELECT id FROM requests ORDER BY id LIMIT ?1)", [count])
}

#[cfg(test)]
mod tests {
    use gateway_core::RequestId;
    use http::Method;
    use tempfile::TempDir;

    use super::*;
    use crate::request_log::record::RequestRecord;

    fn batch(rows: usize) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..rows {
            batch.push(&RequestRecord {
                time: SystemTime::now(),
                request_id: &RequestId::random(),
                route: "other",
                method: &Method::GET,
                path: "/ä".repeat(2_000).as_str(),
                model_asked: None,
                model_used: None,
                tenant: None,
                runner: None,
                tries: 0,
                hedged: false,
                status: 404,
                outcome: "not_found",
                queue_time: None,
                first_byte: None,
                duration: Duration::MAX,
                bytes_in: None,
                bytes_out: u64::MAX,
                prompt_tokens: None,
                completion_tokens: None,
            });
        }
        batch
    }

    fn database(folder: &TempDir) -> Database {
        let limits = Limits { max_age: None, max_bytes: 1 << 30 };
        Database::open(folder.path().join("log.db"), limits).unwrap()
    }

    fn count(database: &mut Database) -> i64 {
        let sql = "SELECT count(*) FROM requests";
        database.with(|connection, _| connection.query_row(sql, [], |row| row.get(0))).unwrap()
    }

    #[test]
    fn texts_and_numbers_are_cut_to_what_fits() {
        let folder = tempfile::tempdir().unwrap();
        let mut database = database(&folder);
        database.write(&batch(1)).unwrap();
        let sql = "SELECT octet_length(path), path NOT LIKE '%/', duration_us, bytes_out FROM requests";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        let row: (i64, bool, i64, i64) = database.with(|it, _| it.query_row(sql, [], read)).unwrap();
        assert_eq!(row, (1024, false, i64::MAX, i64::MAX));
    }

    #[test]
    fn a_full_disk_takes_nothing_of_a_batch_and_all_of_it_later() {
        let folder = tempfile::tempdir().unwrap();
        let mut database = database(&folder);
        database.write(&batch(1)).unwrap();
        let full = |connection: &mut Connection, _: Limits| {
            let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
            connection.query_row(&format!("PRAGMA max_page_count = {}", pages + 3), [], |_| Ok(()))
        };
        database.with(full).unwrap();
        let batch = batch(50);
        let error = database.write(&batch).unwrap_err().to_string();
        assert!(error.contains("full") && error.contains("log.db"), "{error}");
        // The limit went with the connection, as if there was room again.
        assert_eq!(count(&mut database), 1);
        database.write(&batch).unwrap();
        assert_eq!(count(&mut database), 51);
    }

    #[test]
    fn a_damaged_file_is_an_error_until_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut database = database(&folder);
        database.close();
        let path = folder.path().join("log.db");
        std::fs::write(&path, vec![7; 100_000]).unwrap();
        assert!(database.write(&batch(1)).is_err());
        assert!(database.write(&batch(1)).is_err());
        assert!(database.tidy(SystemTime::now()).is_err());
        std::fs::remove_file(&path).unwrap();
        database.write(&batch(2)).unwrap();
        assert_eq!(count(&mut database), 2);
    }

    #[test]
    fn a_new_version_is_a_new_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        for known in 1..=STEPS.len() {
            drop(connect(&path, &STEPS[..known]).unwrap());
        }
        let next: Vec<_> =
            STEPS.iter().copied().chain(["ALTER TABLE requests ADD COLUMN more TEXT"]).collect();
        let mut database = database(&folder);
        database.write(&batch(3)).unwrap();
        database.close();
        let connection = connect(&path, &next).unwrap();
        let filled: i64 =
            connection.query_row("SELECT count(more) FROM requests", [], |row| row.get(0)).unwrap();
        assert_eq!(filled, 0);
        drop(connection);
        assert!(matches!(database.write(&batch(1)), Err(SqliteLogError::Newer { .. })));
        // A step that fails leaves no half of itself.
        let wrong: Vec<_> = next.iter().copied().chain(["CREATE TABLE half (a); nonsense"]).collect();
        assert!(connect(&path, &wrong).is_err());
        drop(connect(&path, &next).unwrap());
    }
}
