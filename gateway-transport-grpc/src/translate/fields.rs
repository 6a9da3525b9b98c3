//! The fields of a request, read one by one, so that an error can name the one that is wrong.

use std::collections::HashMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Refusal;
use super::messages::Message;

pub(super) struct Fields<'a> {
    each: HashMap<String, &'a RawValue>,
    /// Read with the rest, because they are most of a body and nothing of it need be looked at twice; `None` if they are
    /// not there or cannot be read: then they are in `each`, and who asks for them learns why.
    messages: Option<Vec<Message<'a>>>,
}

impl<'a> Fields<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, Refusal> {
        if let Ok(fields) = serde_json::from_slice(body) {
            return Ok(fields);
        }
        let each = serde_json::from_slice(body).map_err(|error| {
            Refusal::invalid("", format!("The request's body is not a JSON object: {error}."))
        })?;
        Ok(Self { each, messages: None })
    }

    /// A field's JSON; `None` if it is absent or null, which mean the same to OpenAI. Not for `messages`.
    pub(super) fn raw(&self, name: &str) -> Option<&'a str> {
        self.each.get(name).map(|raw| raw.get().trim()).filter(|raw| *raw != "null")
    }

    /// Not for `messages`.
    pub(super) fn get<T: Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        serde_json::from_str(raw)
            .map(Some)
            .map_err(|error| Refusal::invalid(name, format!("The field `{name}` cannot be read: {error}.")))
    }

    pub(super) fn text(&self, name: &str) -> Result<String, Refusal> {
        Ok(self.get::<String>(name)?.unwrap_or_default())
    }

    /// The messages of a chat; empty if there are none. To be asked for once.
    pub(super) fn take_messages(&mut self) -> Result<Vec<Message<'a>>, Refusal> {
        match self.messages.take() {
            Some(messages) => Ok(messages),
            None => Ok(self.get("messages")?.unwrap_or_default()),
        }
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Object)
    }
}

struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields { each: HashMap::new(), messages: None };
        while let Some(name) = map.next_key::<String>()? {
            if name == "messages" {
                fields.messages = map.next_value()?;
            } else {
                fields.each.insert(name, map.next_value()?);
            }
        }
        Ok(fields)
    }
}
