//! What the model is to read.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Refusal;
use super::fields::Fields;
use super::prompt::{Role, Turn};

#[derive(Deserialize)]
struct Message<'a> {
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
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

/// The messages of a chat. At least one.
pub(super) fn turns(fields: &Fields<'_>) -> Result<Vec<Turn>, Refusal> {
    let messages: Vec<Message<'_>> = fields.get("messages")?.unwrap_or_default();
    if messages.is_empty() {
        return Err(Refusal::invalid("messages", "The field `messages` is missing or empty."));
    }
    messages.iter().enumerate().map(|(at, message)| turn(at, message)).collect()
}

fn turn(at: usize, message: &Message<'_>) -> Result<Turn, Refusal> {
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
    let text = content(at, message.content.map_or("null", RawValue::get))?;
    Ok(Turn { role, text })
}

/// A string, or parts of which all are text.
fn content(at: usize, json: &str) -> Result<String, Refusal> {
    let param = format!("messages[{at}].content");
    let unreadable = |error: serde_json::Error| {
        Refusal::invalid(param.clone(), format!("A message's content cannot be read: {error}."))
    };
    match json.as_bytes().first() {
        Some(b'"') => serde_json::from_str(json).map_err(unreadable),
        Some(b'[') => {
            let parts: Vec<Part> = serde_json::from_str(json).map_err(unreadable)?;
            let mut all = String::new();
            for (number, part) in parts.into_iter().enumerate() {
                if part.kind != "text" {
                    let what = format!("parts of type `{}`", part.kind);
                    return Err(Refusal::unsupported(format!("{param}[{number}]"), &what));
                }
                if number > 0 {
                    all.push('\n');
                }
                all.push_str(&part.text.unwrap_or_default());
            }
            Ok(all)
        }
        _ => Err(Refusal::invalid(param, "A message's content must be a string or an array of parts.")),
    }
}

/// The prompt of a completion: it is never put into a template.
pub(super) fn prompt(fields: &Fields<'_>) -> Result<String, Refusal> {
    let Some(json) = fields.raw("prompt") else {
        return Err(Refusal::invalid("prompt", "The field `prompt` is missing."));
    };
    if json.starts_with('"') {
        return fields.text("prompt");
    }
    match serde_json::from_str::<Vec<String>>(json) {
        Ok(mut one) if one.len() == 1 => Ok(one.remove(0)),
        Ok(none) if none.is_empty() => Err(Refusal::invalid("prompt", "The field `prompt` is empty.")),
        Ok(_) => Err(Refusal::unsupported("prompt", "several prompts in one request")),
        Err(_) => Err(Refusal::unsupported("prompt", "prompts that are no text")),
    }
}
