//! What a client asks of the demo's engine, and the shape of the answer.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::{Value, json};

/// Tokens after which an answer ends with its sentence, if the client sets no limit.
const USUAL_LENGTH: usize = 48;
/// The most tokens of one answer: two minutes at the demo's pace.
pub(crate) const MOST: usize = 4096;

/// Which of the two text APIs is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Text,
}

/// Why a request cannot be answered.
#[derive(Debug)]
pub(crate) struct BadRequest(pub(crate) String);

#[derive(Deserialize)]
struct Wire {
    model: String,
    #[serde(default)]
    messages: Option<Vec<Message>>,
    #[serde(default)]
    prompt: Option<Value>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    seed: Option<i64>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Value,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// One request, read.
#[derive(Debug)]
pub(crate) struct Ask {
    kind: Kind,
    pub(crate) model: String,
    pub(crate) prompt: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) seed: u64,
    limit: Option<usize>,
    id: String,
    created: u64,
}

impl Ask {
    /// Reads a request's body. Fields that are not known are ignored, as engines do.
    pub(crate) fn read(kind: Kind, body: &[u8]) -> Result<Self, BadRequest> {
        let wire: Wire = serde_json::from_slice(body).map_err(|error| BadRequest(error.to_string()))?;
        let prompt = match kind {
            Kind::Chat => {
                let messages = wire.messages.filter(|messages| !messages.is_empty());
                let messages =
                    messages.ok_or_else(|| BadRequest("`messages` must not be empty".to_owned()))?;
                let texts: Vec<String> = messages.iter().map(|message| text(&message.content)).collect();
                texts.join("\n")
            }
            Kind::Text => {
                let prompt = wire.prompt.ok_or_else(|| BadRequest("`prompt` is missing".to_owned()))?;
                text(&prompt)
            }
        };
        let limit = wire.max_completion_tokens.or(wire.max_tokens);
        if limit == Some(0) {
            return Err(BadRequest("`max_tokens` must be at least 1".to_owned()));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let prefix = if kind == Kind::Chat { "chatcmpl" } else { "cmpl" };
        Ok(Self {
            kind,
            model: wire.model,
            prompt,
            stream: wire.stream,
            include_usage: wire.stream_options.is_some_and(|options| options.include_usage),
            seed: wire.seed.unwrap_or(0).cast_unsigned(),
            limit: limit.map(|limit| limit.min(MOST)),
            id: format!("{prefix}-demo-{:x}", now.as_nanos()),
            created: now.as_secs(),
        })
    }

    /// Why the answer ends after so many tokens, if it does.
    pub(crate) fn finish(&self, written: usize, sentence_ends: bool) -> Option<&'static str> {
        match self.limit {
            Some(limit) => (written >= limit).then_some("length"),
            None if written >= MOST => Some("length"),
            None => (sentence_ends && written >= USUAL_LENGTH).then_some("stop"),
        }
    }

    /// The answer in one piece.
    pub(crate) fn whole(&self, text: &str, finish: &str, usage: Value) -> Value {
        let choice = match self.kind {
            Kind::Chat => json!({"index": 0, "message": {"role": "assistant", "content": text},
                                 "logprobs": null, "finish_reason": finish}),
            Kind::Text => json!({"index": 0, "text": text, "logprobs": null, "finish_reason": finish}),
        };
        let object = if self.kind == Kind::Chat { "chat.completion" } else { "text_completion" };
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model,
               "choices": [choice], "usage": usage})
    }

    /// One piece of a streamed answer.
    pub(crate) fn chunk(&self, text: &str, first: bool) -> Value {
        let delta =
            if first { json!({"role": "assistant", "content": text}) } else { json!({"content": text}) };
        self.wrap(json!([self.choice(text, delta, Value::Null)]), Value::Null)
    }

    /// The piece that says why the answer ends.
    pub(crate) fn last_chunk(&self, finish: &str) -> Value {
        self.wrap(json!([self.choice("", json!({}), json!(finish))]), Value::Null)
    }

    /// The piece that has the usage and no text, for `stream_options.include_usage`.
    pub(crate) fn usage_chunk(&self, usage: Value) -> Value {
        self.wrap(json!([]), usage)
    }

    fn choice(&self, text: &str, delta: Value, finish: Value) -> Value {
        match self.kind {
            Kind::Chat => json!({"index": 0, "delta": delta, "finish_reason": finish}),
            Kind::Text => json!({"index": 0, "text": text, "finish_reason": finish}),
        }
    }

    fn wrap(&self, choices: Value, usage: Value) -> Value {
        let object = if self.kind == Kind::Chat { "chat.completion.chunk" } else { "text_completion" };
        let mut chunk = json!({"id": self.id, "object": object, "created": self.created,
                               "model": self.model, "choices": choices});
        if self.include_usage {
            chunk["usage"] = usage;
        }
        chunk
    }
}

/// The text of a message or prompt, which may come as a string or in parts.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts
                .iter()
                .filter_map(|part| part.as_str().or_else(|| part.get("text")?.as_str()))
                .collect();
            texts.join("\n")
        }
        _ => String::new(),
    }
}
