//! What the model is to read.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Refusal;
use super::fields::Fields;
use super::prompt::{Role, Turn};
use super::unescape::unescape;

/// As it stands in a body.
#[derive(Deserialize)]
pub(super) struct Message<'a> {
    role: String,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow)]
    function_call: Option<&'a RawValue>,
    #[serde(borrow)]
    audio: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

/// The messages of a chat. At least one.
pub(super) fn turns<'a>(fields: &mut Fields<'a>) -> Result<Vec<Turn<'a>>, Refusal> {
    let messages = fields.take_messages()?;
    if messages.is_empty() {
        return Err(Refusal::invalid("messages", "The field `messages` is missing or empty."));
    }
    messages.iter().enumerate().map(|(at, message)| turn(at, message)).collect()
}

fn turn<'a>(at: usize, message: &Message<'a>) -> Result<Turn<'a>, Refusal> {
    for (name, value, what) in [
        ("tool_calls", message.tool_calls, "calls of tools"),
        ("function_call", message.function_call, "calls of functions"),
        ("audio", message.audio, "audio"),
    ] {
        if value.is_some_and(|value| !matches!(value.get(), "null" | "[]")) {
            return Err(Refusal::unsupported(format!("messages[{at}].{name}"), what));
        }
    }
    let role = match message.role.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" | "function" => {
            return Err(Refusal::unsupported(format!("messages[{at}].role"), "the results of tools"));
        }
        _ => {
            let param = format!("messages[{at}].role");
            return Err(Refusal::invalid(
                param,
                "A message's role must be `system`, `developer`, `user` or `assistant`.",
            ));
        }
    };
    Ok(Turn { role, content: Content { at, json: message.content.map_or("null", RawValue::get) } })
}

/// What a message says: a string, or parts of which all are text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content<'a> {
    /// Which message's.
    at: usize,
    json: &'a str,
}

impl Content<'_> {
    /// How long its text may be at most, in bytes.
    pub(super) fn room(&self) -> usize {
        self.json.len()
    }

    /// Appends its text.
    pub(super) fn put(&self, into: &mut String) -> Result<(), Refusal> {
        let param = || format!("messages[{}].content", self.at);
        let unreadable = |error: serde_json::Error| {
            Refusal::invalid(param(), format!("A message's content cannot be read: {error}."))
        };
        match self.json.as_bytes().first() {
            Some(b'"') => unescape(self.json, into).map_err(unreadable),
            Some(b'[') => {
                let parts: Vec<Part<'_>> = serde_json::from_str(self.json).map_err(unreadable)?;
                for (number, part) in parts.into_iter().enumerate() {
                    if part.kind != "text" {
                        let what = format!("parts of type `{}`", part.kind);
                        return Err(Refusal::unsupported(format!("{}[{number}]", param()), &what));
                    }
                    if number > 0 {
                        into.push('\n');
                    }
                    if let Some(text) = part.text {
                        unescape(text.get(), into).map_err(unreadable)?;
                    }
                }
                Ok(())
            }
            _ => {
                let message = "A message's content must be a string or an array of parts.";
                Err(Refusal::invalid(param(), message))
            }
        }
    }
}

/// The prompt of a completion: it is never put into a template.
pub(super) fn prompt(fields: &Fields<'_>) -> Result<String, Refusal> {
    let Some(json) = fields.raw("prompt") else {
        return Err(Refusal::invalid("prompt", "The field `prompt` is missing."));
    };
    if json.starts_with('"') {
        let mut prompt = String::new();
        return match unescape(json, &mut prompt) {
            Ok(()) => Ok(prompt),
            // Which says why.
            Err(_) => fields.text("prompt"),
        };
    }
    match serde_json::from_str::<Vec<String>>(json) {
        Ok(mut one) if one.len() == 1 => Ok(one.remove(0)),
        Ok(none) if none.is_empty() => Err(Refusal::invalid("prompt", "The field `prompt` is empty.")),
        Ok(_) => Err(Refusal::unsupported("prompt", "several prompts in one request")),
        Err(_) => Err(Refusal::unsupported("prompt", "prompts that are no text")),
    }
}
