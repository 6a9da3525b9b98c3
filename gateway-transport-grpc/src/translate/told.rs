//! What a worker tells about a finished answer, beside its text.

use http::HeaderMap;
use serde::Serialize;

/// Why an answer ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Finish {
    /// It is complete, or its stop sequence was reached.
    #[default]
    Stop,
    /// It has as many tokens as were asked for.
    Length,
}

/// How many tokens there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

/// What stands in the trailers. The contract has no fields for it; a worker that wants it known says
/// `finish-reason` (`stop` or `length`), `prompt-tokens` and `completion-tokens`, with `-` or `_`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) finish: Finish,
    /// `None`: nobody has counted, and nothing is made up.
    pub(crate) usage: Option<Usage>,
}

impl Told {
    pub(crate) fn read(trailers: &HeaderMap) -> Self {
        let word = |names: [&str; 2]| names.iter().find_map(|name| trailers.get(*name))?.to_str().ok();
        let count = |names| word(names)?.trim().parse::<u32>().ok().map(u64::from);
        let finish = match word(["finish-reason", "finish_reason"]) {
            Some("length") => Finish::Length,
            _ => Finish::Stop,
        };
        let prompt = count(["prompt-tokens", "prompt_tokens"]);
        let completion = count(["completion-tokens", "completion_tokens"]);
        let usage = prompt.zip(completion).map(|(prompt_tokens, completion_tokens)| Usage {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
        });
        Self { finish, usage }
    }
}
