//! Requests to replay, from the formats of published traces.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct TraceRequest {
    /// Seconds since the first request.
    pub(crate) arrival: f64,
    pub(crate) prompt_tokens: u32,
    pub(crate) answer_tokens: u32,
    /// One hash per block of the prompt, each standing for its block and all before it.
    pub(crate) blocks: Arc<[u64]>,
    /// What names the conversation.
    pub(crate) session: Option<u64>,
    pub(crate) tenant: Option<Arc<str>>,
}

/// Requests in order of arrival.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    pub(crate) requests: Vec<TraceRequest>,
    pub(crate) block_tokens: u32,
}

/// A line of the Mooncake project's traces. `session` and `tenant` are additions of our own synthetic ones.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Milliseconds since the start.
    pub(crate) timestamp: u64,
    pub(crate) input_length: u32,
    pub(crate) output_length: u32,
    /// One id per block of 512 tokens, the last of which may be partly filled.
    pub(crate) hash_ids: Vec<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tenant: Option<String>,
}

/// Why a trace could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TraceError {
    #[error("cannot read the trace {path}: {source}; --trace takes a .jsonl or .csv file")]
    Read { path: String, source: std::io::Error },
    #[error("line {line} of the trace: {problem}")]
    Line { line: usize, problem: String },
    #[error("the trace holds fewer than two requests")]
    Empty,
}

/// Tokens of one block in Mooncake's traces.
pub(crate) const BLOCK_TOKENS: u32 = 512;

impl Trace {
    /// Reads a trace: `.csv` as Azure's, anything else as Mooncake's.
    pub(crate) fn read(path: &Path) -> Result<Self, TraceError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| TraceError::Read { path: path.display().to_string(), source })?;
        if path.extension().is_some_and(|extension| extension == "csv") {
            Self::azure(&text)
        } else {
            Self::mooncake(&text)
        }
    }

    /// JSON lines with ids of prompt blocks.
    pub(crate) fn mooncake(text: &str) -> Result<Self, TraceError> {
        let mut lines = Vec::new();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let line = serde_json::from_str::<Line>(line)
                .map_err(|error| TraceError::Line { line: at + 1, problem: error.to_string() })?;
            lines.push(line);
        }
        Self::from_lines(lines)
    }

    pub(crate) fn from_lines(lines: Vec<Line>) -> Result<Self, TraceError> {
        let request = |line: Line| {
            let blocks = cumulative(&line.hash_ids);
            TraceRequest {
                arrival: line.timestamp as f64 / 1e3,
                prompt_tokens: line.input_length.max(1),
                answer_tokens: line.output_length.max(1),
                // The first block is often a system prompt that many conversations share; the second tells them apart.
                session: line.session.or_else(|| blocks.get(1).or(blocks.first()).copied()),
                blocks: blocks.into(),
                tenant: line.tenant.map(Into::into),
            }
        };
        Self::ordered(lines.into_iter().map(request).collect())
    }

    /// Comma-separated `TIMESTAMP,ContextTokens,GeneratedTokens`. Nothing is known of common prefixes, so there are none.
    pub(crate) fn azure(text: &str) -> Result<Self, TraceError> {
        let mut requests = Vec::new();
        for (at, line) in text.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty()) {
            let bad = || TraceError::Line { line: at + 1, problem: format!("not three fields: {line}") };
            let mut fields = line.trim().split(',');
            let time = fields.next().and_then(seconds).ok_or_else(bad)?;
            let mut number = || fields.next()?.trim().parse::<u32>().ok();
            let (prompt, answer) = (number().ok_or_else(bad)?.max(1), number().ok_or_else(bad)?.max(1));
            let ids: Vec<u64> = (0..u64::from(prompt.div_ceil(BLOCK_TOKENS))).collect();
            requests.push(TraceRequest {
                arrival: time,
                prompt_tokens: prompt,
                answer_tokens: answer,
                blocks: cumulative_from(mix(at as u64), &ids).into(),
                session: None,
                tenant: None,
            });
        }
        Self::ordered(requests)
    }

    fn ordered(mut requests: Vec<TraceRequest>) -> Result<Self, TraceError> {
        requests.sort_by(|a, b| a.arrival.total_cmp(&b.arrival));
        let [first, _, ..] = &*requests else { return Err(TraceError::Empty) };
        let start = first.arrival;
        for request in &mut requests {
            request.arrival -= start;
        }
        Ok(Self { requests, block_tokens: BLOCK_TOKENS })
    }

    /// Seconds from the first to the last arrival.
    pub(crate) fn span(&self) -> f64 {
        self.requests.last().map_or(0.0, |last| last.arrival)
    }

    /// Lets time pass `factor` times as fast.
    pub(crate) fn speed_up(&mut self, factor: f64) {
        for request in &mut self.requests {
            request.arrival /= factor;
        }
    }

    /// Tokens of all prompts, and of all answers.
    pub(crate) fn tokens(&self) -> (u64, u64) {
        let sum = |of: fn(&TraceRequest) -> u32| self.requests.iter().map(|r| u64::from(of(r))).sum();
        (sum(|request| request.prompt_tokens), sum(|request| request.answer_tokens))
    }
}

/// Ids of blocks to hashes of prefixes.
fn cumulative(ids: &[u64]) -> Vec<u64> {
    cumulative_from(0, ids)
}

fn cumulative_from(seed: u64, ids: &[u64]) -> Vec<u64> {
    let next = |before: &mut u64, id: &u64| {
        *before = mix(*before ^ mix(*id));
        Some(*before)
    };
    ids.iter().scan(seed, next).collect()
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014): spreads neighbouring ids over all bits.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// `2023-11-16 18:15:46.6805900` in seconds since some midnight. Days by the proleptic calendar (Hinnant, "chrono-
/// Compatible Low-Level Date Algorithms").
fn seconds(text: &str) -> Option<f64> {
    let (date, time) = text.trim().split_once([' ', 'T'])?;
    let mut date = date.splitn(3, '-').map(|field| field.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.trim_end_matches('Z').splitn(3, ':').map(|field| field.parse::<f64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + day_of_year;
    Some(days as f64 * 86_400.0 + hour * 3_600.0 + minute * 60.0 + second)
}
