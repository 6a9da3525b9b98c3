//! The request log in a file: what is in it, what is not, and what becomes of it when it is full, locked, old or
//! somebody else's. Time is real here, since a thread of its own writes; nothing waits for it but by `flush`.
#![cfg(feature = "sqlite")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use common::*;
use gateway_core::{LinkError, Tenant};
use gateway_http::{
    BearerTokens, Gateway, Identity, RequestSink, SqliteLog, SqliteLogBuilder, SqliteLogError,
};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;
use tracing::{Level, Subscriber};
use tracing_subscriber::layer::{self, Layer, SubscriberExt};

/// A file for a log, in a folder of its own that goes with it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("requests.db")
    }

    fn builder(&self) -> SqliteLogBuilder {
        SqliteLog::builder(self.path())
    }

    fn open(&self) -> Arc<SqliteLog> {
        Arc::new(self.builder().open().unwrap())
    }

    /// A connection like that of an operator's shell.
    fn reader(&self) -> Connection {
        Connection::open_with_flags(self.path(), OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap()
    }

    fn number(&self, sql: &str) -> i64 {
        self.reader().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    fn count(&self) -> i64 {
        self.number("SELECT count(*) FROM requests")
    }

    /// What is in all files of the folder.
    fn bytes(&self) -> Vec<u8> {
        let files = std::fs::read_dir(self.0.path()).unwrap();
        files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }
}

/// Has so many requests recorded.
async fn requests(gateway: &Gateway, count: usize) {
    for _ in 0..count {
        whole(gateway, get("/health")).await;
    }
}

fn logged(log: &Arc<SqliteLog>) -> Gateway {
    builder().request_sink(log.clone()).build().unwrap()
}

/// The last row's columns.
fn last(place: &Place, columns: &str) -> Vec<Value> {
    let sql = format!("SELECT {columns} FROM requests ORDER BY id DESC LIMIT 1");
    let read = |row: &rusqlite::Row<'_>| (0..row.as_ref().column_count()).map(|at| row.get(at)).collect();
    place.reader().query_row(&sql, [], read).unwrap()
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

const USAGE: &str =
    r#"{"choices":[{"text":"the answer's words"}],"usage":{"prompt_tokens":12,"completion_tokens":3}}"#;

#[tokio::test]
async fn every_way_to_end_is_a_row_and_no_secret_is_in_the_file() {
    let place = Place::new();
    let log = place.open();
    let identity = Identity::named("key-7").of_tenant(Tenant::new("team-a").unwrap());
    let gateway = Gateway::builder()
        .client_authenticator(BearerTokens::new([""; 0]).unwrap().with_identity(identity, "tOkEn-1").unwrap())
        .request_sink(log.clone())
        .build()
        .unwrap();
    join(&gateway, "r1", &["m"], &Mock::new(|_| async { Ok(json(200, USAGE)) }));
    join(&gateway, "r2", &["bad"], &Mock::new(|_| async { Err(LinkError::lost("reset by peer")) }));
    let (stream, sender) = Mock::stream("text/event-stream");
    join(&gateway, "r3", &["stream"], &stream);
    let ask = |model: &str, id: &'static str, key: &str| {
        let body = format!(r#"{{"model":"{model}","prompt":"the prompt's words"}}"#);
        let mut request = with_key(post("/v1/chat/completions?api_key=qUeRy", body), key);
        request.headers_mut().insert("x-request-id", id.parse().unwrap());
        request
    };

    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    whole(&gateway, ask("m", "served", "tOkEn-1")).await;
    log.flush().get().await;
    let columns = "request_id, route, method, path, model_asked, model_used, tenant, runner, tries, hedged, \
                   status, outcome, bytes_in, bytes_out, prompt_tokens, completion_tokens";
    assert_eq!(
        last(&place, columns),
        [
            text("served"),
            text("/v1/chat/completions"),
            text("POST"),
            text("/v1/chat/completions"),
            text("m"),
            text("m"),
            text("team-a"),
            text("r1"),
            Value::Integer(1),
            Value::Integer(0),
            Value::Integer(200),
            text("success"),
            Value::Integer(43),
            Value::Integer(USAGE.len() as i64),
            Value::Integer(12),
            Value::Integer(3),
        ]
    );
    let [time, queue, first, duration] = last(&place, "time_ms, queue_us, first_byte_us, duration_us")[..]
        .iter()
        .map(|value| if let Value::Integer(number) = value { *number } else { panic!("{value:?}") })
        .collect::<Vec<_>>()[..]
    else {
        panic!("four numbers")
    };
    assert!((before..before + 60_000).contains(&time), "{time}");
    assert!(queue >= 0 && first >= queue && duration >= first, "{queue} {first} {duration}");

    whole(&gateway, ask("bad", "failed", "tOkEn-1")).await;
    log.flush().get().await;
    let columns =
        "request_id, status, outcome, runner, tries, model_used, queue_us, first_byte_us, prompt_tokens";
    let null = || Value::Null;
    let [status, tries] = [502, 1].map(Value::Integer);
    let failed =
        [text("failed"), status, text("runner_failed"), text("r2"), tries, null(), null(), null(), null()];
    assert_eq!(last(&place, columns), failed);

    whole(&gateway, ask("m", "stranger", "wRoNg-2")).await;
    log.flush().get().await;
    let columns = "request_id, status, outcome, tenant, model_asked, runner, bytes_in";
    let refused =
        [text("stranger"), Value::Integer(401), text("unauthorized"), null(), null(), null(), null()];
    assert_eq!(last(&place, columns), refused);

    sender.try_send(Ok(Bytes::from_static(b"data: streamed words\n\n"))).unwrap();
    let mut response = send(&gateway, ask("stream", "left", "tOkEn-1")).await;
    next_chunk(response.body_mut()).await.unwrap();
    drop(response);
    log.flush().get().await;
    let left = [text("left"), Value::Integer(200), text("cancelled"), text("r3"), Value::Integer(22)];
    assert_eq!(last(&place, "request_id, status, outcome, runner, bytes_out"), left);

    let bytes = place.bytes();
    let has = |words: &str| memchr::memmem::find(&bytes, words.as_bytes()).is_some();
    assert!(has("team-a") && has("stranger"), "the bytes are those of the log");
    for secret in
        ["tOkEn-1", "wRoNg-2", "qUeRy", "api_key", "prompt's words", "answer's words", "streamed words"]
    {
        assert!(!has(secret), "{secret} is in the file");
    }
}

#[tokio::test]
async fn a_shutdown_writes_what_is_queued_and_the_end_of_the_log_what_came_after() {
    let place = Place::new();
    let log = place.open();
    let gateway = logged(&log);
    requests(&gateway, 20).await;
    assert!(gateway.shutdown(Duration::ZERO).await.is_clean());
    assert_eq!(place.count(), 20);
    // Those that are cut by the shutdown are told of later.
    requests(&gateway, 3).await;
    assert!(gateway.shutdown(Duration::ZERO).await.is_clean());
    assert_eq!(place.count(), 23);

    requests(&gateway, 4).await;
    drop((gateway, log));
    assert_eq!(place.count(), 27);
    assert!(!place.path().with_extension("db-wal").exists(), "the writer closed the file");
}

#[tokio::test]
async fn while_somebody_else_holds_the_file_records_wait_and_then_are_dropped_and_counted() {
    const QUEUE: usize = 40;
    let place = Place::new();
    let log = Arc::new(place.builder().queue(QUEUE).open().unwrap());
    let gateway = logged(&log);
    let locked = place.reader();
    locked.execute_batch("BEGIN IMMEDIATE").unwrap();
    requests(&gateway, 500).await;
    let dropped = log.dropped();
    // So many wait, and at most as many are in the writer's hands.
    assert!((500 - 2 * QUEUE as u64..=500 - QUEUE as u64).contains(&dropped), "{dropped}");
    let text = gateway.metrics_text();
    assert!(text.contains(&format!("gateway_request_log_dropped_total {dropped}\n")), "{text}");

    locked.execute_batch("COMMIT").unwrap();
    log.flush().get().await;
    assert_eq!(place.count() as u64, 500 - dropped);
    requests(&gateway, 5).await;
    log.flush().get().await;
    assert_eq!(place.count() as u64, 505 - dropped);
    assert_eq!(log.dropped(), dropped);
}

/// Passes on the levels of events.
struct Levels(std::sync::mpsc::Sender<Level>);

impl<S: Subscriber> Layer<S> for Levels {
    fn on_event(&self, event: &tracing::Event<'_>, _: layer::Context<'_, S>) {
        if event.metadata().target().starts_with("gateway_http::request_log") {
            self.0.send(*event.metadata().level()).unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_written_holds_up_neither_shutdown_nor_end() {
    let (levels, told) = std::sync::mpsc::channel();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(Levels(levels)));
    let place = Place::new();
    let log = place.open();
    let gateway = logged(&log);
    let locked = place.reader();
    locked.execute_batch("BEGIN IMMEDIATE").unwrap();
    requests(&gateway, 2).await;
    let drained = gateway.shutdown(Duration::ZERO).await;
    assert_eq!((drained.sinks_left, drained.is_clean()), (1, false));
    let started = std::time::Instant::now();
    drop((gateway, log));
    assert!(started.elapsed() < SqliteLog::LAST_WORDS + Duration::from_secs(2));
    assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(Level::ERROR));
    assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(Level::WARN), "what was lost is told");
    locked.execute_batch("COMMIT").unwrap();
}

#[tokio::test]
async fn trouble_is_told_once_and_so_is_its_end() {
    let (levels, told) = std::sync::mpsc::channel();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(Levels(levels)));
    let place = Place::new();
    let log = place.open();
    let gateway = logged(&log);
    let schema: String = {
        let reader = place.reader();
        let schema =
            reader.query_row("SELECT sql FROM sqlite_schema WHERE name = 'requests'", [], |row| row.get(0));
        reader.execute_batch("DROP TABLE requests").unwrap();
        schema.unwrap()
    };
    requests(&gateway, 1).await;
    assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(Level::ERROR));
    // Each of these has the writer try again.
    for _ in 0..3 {
        requests(&gateway, 1).await;
        drop(log.flush());
    }
    place.reader().execute_batch(&schema).unwrap();
    requests(&gateway, 1).await;
    log.flush().get().await;
    assert_eq!((place.count(), log.dropped()), (5, 0), "nothing was lost meanwhile");
    assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(Level::INFO));
    drop((gateway, log));
    assert!(told.try_recv().is_err(), "and nothing else was said");
}

#[tokio::test]
async fn rows_that_are_too_old_are_deleted() {
    let place = Place::new();
    drop(place.open());
    let day = 24 * 3600 * 1000;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let old = place.reader();
    let insert =
        "INSERT INTO requests (time_ms, request_id, route, method, path, tries, hedged, status, outcome,
                  duration_us, bytes_out) VALUES (?, ?, 'r', 'GET', '/', 0, 0, 200, 'success', 1, 1)";
    for days in 0..60 {
        old.execute(insert, (now - days * day - 1000, format!("{days} days old"))).unwrap();
    }
    let left = |builder: SqliteLogBuilder| {
        let place = &place;
        async move {
            let log = Arc::new(builder.open().unwrap());
            let gateway = logged(&log);
            requests(&gateway, 1).await;
            log.flush().get().await;
            place.number("SELECT count(*) FROM requests WHERE request_id LIKE '%old'")
        }
    };
    assert_eq!(left(place.builder().max_age(None)).await, 60);
    assert_eq!(left(place.builder()).await, 30, "as many as there are days in the default");
    assert_eq!(left(place.builder().max_age(Some(Duration::from_secs(10 * 24 * 3600)))).await, 10);
    assert_eq!(place.number("SELECT count(*) FROM requests WHERE request_id = '9 days old'"), 1);
}

#[tokio::test]
async fn a_file_that_is_too_large_loses_its_oldest_rows_and_shrinks() {
    let place = Place::new();
    let log = Arc::new(place.builder().max_bytes(SqliteLog::LEAST_BYTES).open().unwrap());
    let gateway = logged(&log);
    let path = format!("/{}", "long/".repeat(60));
    let mut largest = 0;
    for round in 0..20 {
        for _ in 0..500 {
            whole(&gateway, get(&path)).await;
        }
        log.flush().get().await;
        place.reader().execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
        let size = std::fs::metadata(place.path()).unwrap().len();
        largest = size.max(largest);
        assert!(size < 3 * SqliteLog::LEAST_BYTES, "{size} bytes in round {round}");
    }
    assert!(largest > SqliteLog::LEAST_BYTES, "there was something to delete");
    assert_eq!(place.number("SELECT max(id) FROM requests"), 10_000, "the newest is there");
    assert!(place.number("SELECT min(id) FROM requests") > 5_000, "and the oldest is not");
    assert_eq!(log.dropped(), 0);
    drop((gateway, log));
    let log = Arc::new(place.builder().max_bytes(SqliteLog::LEAST_BYTES).open().unwrap());
    let gateway = logged(&log);
    // A step of it with each.
    for _ in 0..20 {
        requests(&gateway, 1).await;
        log.flush().get().await;
    }
    drop((gateway, log));
    let size = std::fs::metadata(place.path()).unwrap().len();
    assert!(size <= SqliteLog::LEAST_BYTES, "{size} bytes");
}

#[tokio::test]
async fn a_file_that_is_moved_away_is_made_anew() {
    let place = Place::new();
    let gateway = {
        let log = place.open();
        let gateway = logged(&log);
        requests(&gateway, 1).await;
        log.flush().get().await;
        for file in ["requests.db", "requests.db-wal", "requests.db-shm"] {
            std::fs::rename(place.0.path().join(file), place.0.path().join(format!("{file}.old"))).unwrap();
        }
        // It looks after so many rows, or a minute.
        requests(&gateway, 2_000).await;
        log.flush().get().await;
        requests(&gateway, 7).await;
        log.flush().get().await;
        gateway
    };
    assert_eq!(place.count(), 7);
    drop(gateway);
}

#[tokio::test]
async fn an_older_version_is_brought_up_to_date_and_keeps_its_rows() {
    let place = Place::new();
    let log = place.open();
    requests(&logged(&log), 3).await;
    drop(log);
    // As the first version left it.
    let older = place.reader();
    let back = "DROP INDEX requests_time; DROP INDEX requests_request_id; PRAGMA user_version = 1";
    older.execute_batch(back).unwrap();
    drop(older);
    let log = place.open();
    requests(&logged(&log), 1).await;
    log.flush().get().await;
    assert_eq!((place.count(), place.number("PRAGMA user_version")), (4, 2));
    let plan: String = place
        .reader()
        .query_row("EXPLAIN QUERY PLAN SELECT * FROM requests WHERE request_id = 'x'", [], |row| row.get(3))
        .unwrap();
    assert!(plan.contains("requests_request_id"), "{plan}");
}

fn refused(builder: SqliteLogBuilder) -> SqliteLogError {
    builder.open().unwrap_err()
}

#[test]
fn what_is_newer_or_somebody_else_s_is_refused_and_left_alone() {
    let place = Place::new();
    drop(place.open());
    place.reader().execute_batch("PRAGMA user_version = 7").unwrap();
    let before = std::fs::read(place.path()).unwrap();
    let error = refused(place.builder());
    assert!(matches!(error, SqliteLogError::Newer { found: 7, known: 2, .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("requests.db") && message.contains("version 7"), "{message}");
    assert_eq!(std::fs::read(place.path()).unwrap(), before);

    let place = Place::new();
    Connection::open(place.path()).unwrap().execute_batch("CREATE TABLE bills (euros)").unwrap();
    let before = std::fs::read(place.path()).unwrap();
    let error = refused(place.builder());
    assert!(matches!(error, SqliteLogError::Foreign { .. }), "{error}");
    assert_eq!(std::fs::read(place.path()).unwrap(), before);

    let place = Place::new();
    std::fs::write(
        place.path(),
        "a letter to somebody, much longer than the head of a database would be".repeat(9),
    )
    .unwrap();
    let message = refused(place.builder()).to_string();
    assert!(message.contains("requests.db") && message.contains("not a database"), "{message}");
}

#[test]
fn what_cannot_be_used_says_so_at_once() {
    let place = Place::new();
    let nowhere = Path::new("/nowhere/at/all/requests.db");
    for path in [nowhere, place.0.path()] {
        let error = refused(SqliteLog::builder(path));
        assert!(matches!(error, SqliteLogError::Unusable { .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    let error = refused(place.builder().max_bytes(SqliteLog::LEAST_BYTES - 1));
    assert!(matches!(error, SqliteLogError::TooSmall { what: "max_bytes", .. }), "{error}");
    let error = refused(place.builder().queue(0));
    assert!(matches!(error, SqliteLogError::TooSmall { what: "queue", least: 1 }), "{error}");
    assert!(!place.path().exists(), "nothing was made");
    // A path is a path, and nothing that SQLite reads more into.
    let odd = place.0.path().join("file:odd?mode=memory");
    drop(SqliteLog::builder(&odd).open().unwrap());
    assert!(odd.exists());
}
