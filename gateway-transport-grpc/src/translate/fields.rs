//! The fields of a request, read one by one, so that an error can name the one that is wrong.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Refusal;

pub(super) struct Fields<'a>(HashMap<String, &'a RawValue>);

impl<'a> Fields<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, Refusal> {
        serde_json::from_slice(body).map(Self).map_err(|error| {
            Refusal::invalid("", format!("The request's body is not a JSON object: {error}."))
        })
    }

    /// A field's JSON; `None` if it is absent or null, which mean the same to OpenAI.
    pub(super) fn raw(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(|raw| raw.get().trim()).filter(|raw| *raw != "null")
    }

    pub(super) fn get<T: Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        serde_json::from_str(raw)
            .map(Some)
            .map_err(|error| Refusal::invalid(name, format!("The field `{name}` cannot be read: {error}.")))
    }

    pub(super) fn text(&self, name: &str) -> Result<String, Refusal> {
        Ok(self.get::<String>(name)?.unwrap_or_default())
    }
}
