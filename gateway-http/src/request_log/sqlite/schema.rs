//! What the file looks like, and how an older one is brought up to date.

use rusqlite::{Connection, TransactionBehavior};

/// From one version to the next; the file's `user_version` says how many it has behind it. Never changed once
/// released: a new version is a new step.
pub(super) const STEPS: &[&str] = &[
    "CREATE TABLE requests (
        id INTEGER PRIMARY KEY,
        time_ms INTEGER NOT NULL,
        request_id TEXT NOT NULL,
        route TEXT NOT NULL,
        method TEXT NOT NULL,
        path TEXT NOT NULL,
        model_asked TEXT,
        model_used TEXT,
        tenant TEXT,
        runner TEXT,
        tries INTEGER NOT NULL,
        hedged INTEGER NOT NULL,
        status INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        queue_us INTEGER,
        first_byte_us INTEGER,
        duration_us INTEGER NOT NULL,
        bytes_in INTEGER,
        bytes_out INTEGER NOT NULL,
        prompt_tokens INTEGER,
        completion_tokens INTEGER
    ) STRICT",
    "CREATE INDEX requests_time ON requests (time_ms);
     CREATE INDEX requests_request_id ON requests (request_id)",
];

pub(super) const INSERT: &str = "INSERT INTO requests (
        time_ms, request_id, route, method, path, model_asked, model_used, tenant, runner, tries, hedged, status,
        outcome, queue_us, first_byte_us, duration_us, bytes_in, bytes_out, prompt_tokens, completion_tokens
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// `GwRL`, by which a file is known for a request log, by `file`, too.
const APPLICATION: i64 = 0x4777_524C;

/// Whose file it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A request log, or nothing yet.
    Ours,
    Foreign,
    /// A request log of a version that is not known here.
    Newer(i64),
}

/// Looks without touching.
pub(super) fn kind(connection: &Connection, steps: &[&str]) -> rusqlite::Result<Kind> {
    let version = version(connection)?;
    let application: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if application == APPLICATION {
        let known = usize::try_from(version).is_ok_and(|version| version <= steps.len());
        return Ok(if known { Kind::Ours } else { Kind::Newer(version) });
    }
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(if (application, version, tables) == (0, 0, 0) { Kind::Ours } else { Kind::Foreign })
}

/// Takes the steps that the file has not behind it, all or none. Fails also if the file cannot be written.
pub(super) fn migrate(connection: &mut Connection, steps: &[&str]) -> rusqlite::Result<()> {
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let behind = usize::try_from(version(&change)?).unwrap_or(usize::MAX);
    let ahead = steps.get(behind..).unwrap_or_default();
    if !ahead.is_empty() {
        ahead.iter().try_for_each(|step| change.execute_batch(step))?;
        change.pragma_update(None, "application_id", APPLICATION)?;
        change.pragma_update(None, "user_version", i64::try_from(steps.len()).unwrap_or(i64::MAX))?;
    }
    change.commit()
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}
