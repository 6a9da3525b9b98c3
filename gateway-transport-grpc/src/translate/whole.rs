//! An answer in one piece.

use serde::Serialize;

use super::told::Usage;
use super::{Api, Finish, Label, Sink, Told};

/// Gathers an answer.
pub(crate) struct Whole {
    text: String,
}

impl Whole {
    pub(crate) fn new() -> Self {
        Self { text: String::new() }
    }

    /// Bytes of text so far.
    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }

    /// The answer's JSON.
    pub(crate) fn finish(self, label: &Label, told: Told) -> Vec<u8> {
        let (id, text) = (label.full_id(), &self.text);
        let choice = match label.api {
            Api::Chat => Choice {
                index: 0,
                message: Some(Message { role: "assistant", content: text }),
                text: None,
                finish_reason: told.finish,
            },
            Api::Completion => {
                Choice { index: 0, message: None, text: Some(text), finish_reason: told.finish }
            }
        };
        let answer = Answer {
            id: &id,
            object: match label.api {
                Api::Chat => "chat.completion",
                Api::Completion => "text_completion",
            },
            created: label.created,
            model: &label.model,
            choices: [choice],
            usage: told.usage,
        };
        // Plain data: there is nothing that could fail.
        serde_json::to_vec(&answer).unwrap_or_default()
    }
}

impl Sink for Whole {
    fn text(&mut self, text: &str) {
        self.text.push_str(text);
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: [Choice<'a>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    finish_reason: Finish,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}
