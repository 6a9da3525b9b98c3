//! The one field of a request's body that routing needs: `model`.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::ApiError;

/// The model that a request names, and where in the body the name stands, quotes included.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NamedModel<'b> {
    pub(crate) name: Cow<'b, str>,
    pub(crate) at: Range<usize>,
}

const MISSING: &str = "You must name a model: `model` must be a string that is not empty.";

/// Finds the model's name. The body is read once; nothing of it is kept or changed.
pub(crate) fn named_model(body: &[u8]) -> Result<NamedModel<'_>, Box<ApiError>> {
    let Fields { model } = serde_json::from_slice(body).map_err(|error| {
        let told = error.to_string();
        if told.starts_with(TWICE) {
            return ApiError::bad_param("model", format!("The request's body is ambiguous: {told}."));
        }
        // Of JSON that is no object the library's message would quote the whole; of what is no JSON it says
        // only what is wrong and where.
        let why = if error.is_data() { "it is not an object" } else { &told };
        ApiError::bad_request(format!("The request's body is no JSON object that can be read: {why}."))
    })?;
    let raw = model.map(RawValue::get).filter(|raw| raw.starts_with('"'));
    let raw = raw.ok_or_else(|| ApiError::bad_param("model", MISSING))?;
    let name = match raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) {
        Some(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
        _ => Cow::Owned(serde_json::from_str(raw).map_err(|_| ApiError::bad_param("model", MISSING))?),
    };
    if name.trim().is_empty() {
        return Err(ApiError::bad_param("model", MISSING));
    }
    // The raw value is a part of the body, so its address tells where.
    let start = raw.as_ptr() as usize - body.as_ptr() as usize;
    Ok(NamedModel { name, at: start..start + raw.len() })
}

struct Fields<'b> {
    model: Option<&'b RawValue>,
}

const TWICE: &str = "the field `model` is there twice";

impl<'de: 'b, 'b> Deserialize<'de> for Fields<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fill;
        impl<'de> Visitor<'de> for Fill {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut model = None;
                while let Some(key) = map.next_key()? {
                    match key {
                        // Routing by the one while the engine reads the other would get round every rule
                        // that is tied to a model.
                        Key::Model if model.is_some() => return Err(A::Error::custom(TWICE)),
                        Key::Model => model = Some(map.next_value()?),
                        Key::Other => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(Fields { model })
            }
        }
        // Not as a struct: that would take an array, too.
        deserializer.deserialize_map(Fill)
    }
}

enum Key {
    Model,
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
                Ok(if name == "model" { Key::Model } else { Key::Other })
            }
        }
        deserializer.deserialize_str(Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;

    fn found(body: &str) -> (String, String) {
        let model = named_model(body.as_bytes()).unwrap();
        (model.name.into_owned(), body[model.at].to_owned())
    }

    #[test]
    fn the_name_is_found_wherever_it_stands() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(found(r#"{"model":"a"}"#), pair("a", r#""a""#));
        assert_eq!(found(r#" {"x":{"model":"no"},"model" :  "a b" , "y":[1]} "#), pair("a b", r#""a b""#));
        assert_eq!(found(r#"{"mod\u0065l":"\u0061\/b"}"#), pair("a/b", r#""\u0061\/b""#));
        assert_eq!(found(r#"{"m":"ü","model":"ö"}"#), pair("ö", r#""ö""#));
    }

    #[test]
    fn anything_else_is_a_client_s_mistake() {
        for body in [
            "",
            "{",
            "[]",
            r#"["a"]"#,
            "null",
            r#""model""#,
            "{}",
            r#"{"model":null}"#,
            r#"{"model":1}"#,
            r#"{"model":""}"#,
            r#"{"model":"  "}"#,
            r#"{"model":["a"]}"#,
            r#"{"model":"a"} x"#,
            r#"{"model":"a","model":"b"}"#,
            r#"{"model":"\ud800"}"#,
            "{\"model\":\"a\nb\"}",
        ] {
            let error = named_model(body.as_bytes()).expect_err(body);
            assert_eq!(error.reason, Reason::BadRequest, "{body}");
        }
        assert!(named_model(b"{\"model\":\"\xff\"}").is_err());
        let long = format!("\"{}\"", "é".repeat(250));
        let error = named_model(long.as_bytes()).expect_err("a string is no object");
        assert!(!format!("{error:?}").contains('é'), "a body is not echoed");
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!(r#"{{"x":{}{},"model":"a"}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(found(&deep).0, "a");
    }
}
