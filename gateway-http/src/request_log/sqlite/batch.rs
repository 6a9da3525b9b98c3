//! Records that wait, packed: their texts lie in one string, so that keeping one allocates nothing once the
//! queue has been as long before.

use std::time::{Duration, UNIX_EPOCH};

use gateway_core::{ModelId, RunnerId, Tenant};
use rusqlite::Statement;

use crate::request_log::record::RequestRecord;

#[derive(Default)]
pub(super) struct Batch {
    rows: Vec<Row>,
    texts: String,
}

struct Row {
    time_ms: i64,
    route: &'static str,
    outcome: &'static str,
    /// How long each of its texts is, in the order in which they lie.
    texts: [Option<u16>; TEXTS],
    tries: u32,
    hedged: bool,
    status: u16,
    queue_us: Option<i64>,
    first_byte_us: Option<i64>,
    duration_us: i64,
    bytes_in: Option<i64>,
    bytes_out: i64,
    prompt_tokens: Option<i64>,
    completion_tokens: Option<i64>,
}

const TEXTS: usize = 7;

/// The most that is kept of a text, in bytes: longer than every name that is valid, and more of a path than
/// anybody reads.
const LONGEST: usize = 1024;

/// A transaction's worth; what a burst took beyond it is given back.
const USUAL: usize = 2048;

impl Batch {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.rows.shrink_to(USUAL);
        self.texts.clear();
        self.texts.shrink_to(USUAL * 128);
    }

    pub(super) fn push(&mut self, record: &RequestRecord<'_>) {
        let texts = [
            Some(record.request_id.as_str()),
            Some(record.method.as_str()),
            Some(record.path),
            record.model_asked.map(ModelId::as_str),
            record.model_used.map(ModelId::as_str),
            record.tenant.map(Tenant::as_str),
            record.runner.map(RunnerId::as_str),
        ];
        let texts = texts.map(|text| {
            let text = cut(text?);
            self.texts.push_str(text);
            u16::try_from(text.len()).ok()
        });
        self.rows.push(Row {
            // A clock before 1970 is one that has not been set.
            time_ms: record.time.duration_since(UNIX_EPOCH).map_or(0, |since| whole(since.as_millis())),
            route: record.route,
            outcome: record.outcome,
            texts,
            tries: record.tries,
            hedged: record.hedged,
            status: record.status,
            queue_us: record.queue_time.map(micros),
            first_byte_us: record.first_byte.map(micros),
            duration_us: micros(record.duration),
            bytes_in: record.bytes_in.map(whole),
            bytes_out: whole(record.bytes_out),
            prompt_tokens: record.prompt_tokens.map(whole),
            completion_tokens: record.completion_tokens.map(whole),
        });
    }

    /// Runs the statement [`INSERT`](super::schema::INSERT) for every record.
    pub(super) fn insert(&self, statement: &mut Statement<'_>) -> rusqlite::Result<()> {
        let mut rest = self.texts.as_str();
        for row in &self.rows {
            let texts = row.texts.map(|len| {
                let (text, after) = rest.split_at_checked(usize::from(len?)).unwrap_or((rest, ""));
                rest = after;
                Some(text)
            });
            let [request_id, method, path, model_asked, model_used, tenant, runner] = texts;
            statement.execute(rusqlite::params![
                row.time_ms,
                request_id,
                row.route,
                method,
                path,
                model_asked,
                model_used,
                tenant,
                runner,
                row.tries,
                row.hedged,
                row.status,
                row.outcome,
                row.queue_us,
                row.first_byte_us,
                row.duration_us,
                row.bytes_in,
                row.bytes_out,
                row.prompt_tokens,
                row.completion_tokens,
            ])?;
        }
        Ok(())
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn micros(time: Duration) -> i64 {
    whole(time.as_micros())
}

/// SQLite's numbers have a sign.
fn whole<T: TryInto<i64>>(number: T) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
