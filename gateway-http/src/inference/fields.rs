//! The fields of a request's body that routing needs, found in one pass. Nothing is kept or changed.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use gateway_core::Features;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::features;
use crate::error::ApiError;

/// What a request's body says, as far as routing cares. Only `model` has to be there and right; whether the
/// rest is as it should be is for the runner to say, and what cannot be read counts as not there.
#[derive(Debug)]
pub(crate) struct Fields<'b> {
    pub(crate) model: NamedModel<'b>,
    /// `max_completion_tokens`, else `max_tokens`.
    pub(crate) max_tokens: Option<u32>,
    /// How many answers are asked for.
    pub(crate) n: Option<u32>,
    /// Whether the answer is to be an event stream.
    pub(crate) stream: bool,
    /// `prompt_cache_key`, else `user`, as it stands in the body.
    pub(crate) session: Option<&'b str>,
    /// `service_tier`, quotes included.
    pub(crate) tier: Option<&'b str>,
    pub(crate) prompt: Prompt<'b>,
    /// As if it were for all APIs at once.
    pub(super) features: Features,
}

/// The model that a request names, and where in the body the name stands, quotes included.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NamedModel<'b> {
    pub(crate) name: Cow<'b, str>,
    pub(crate) at: Range<usize>,
}

/// What the model has to read, as JSON, in the order in which chat templates put it: `tools`, `system`,
/// `input`, `prompt`, `messages`. There is rarely more than one of the last three.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Prompt<'b>([Option<&'b RawValue>; 5]);

impl<'b> Prompt<'b> {
    pub(super) fn parts(&self) -> impl DoubleEndedIterator<Item = &'b str> {
        self.0.into_iter().flatten().map(RawValue::get).filter(|json| *json != "null")
    }

    /// The last part, which a conversation lets grow, apart from the others.
    pub(super) fn before_and_last(&self) -> (impl Iterator<Item = &'b str>, &'b str) {
        let mut parts = self.parts();
        let last = parts.next_back().unwrap_or_default();
        (parts, last)
    }

    /// In bytes.
    pub(super) fn len(&self) -> usize {
        self.parts().map(str::len).sum()
    }
}

const MISSING: &str = "You must name a model: `model` must be a string that is not empty.";

impl<'b> Fields<'b> {
    /// Reads the body once.
    pub(crate) fn read(body: &'b [u8]) -> Result<Self, Box<ApiError>> {
        let found: Found<'b> = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
        let tokens = found.number(Field::MaxCompletionTokens).or(found.number(Field::MaxTokens));
        let some = |key| found.get(key).filter(|json| *json != "null");
        let prompt = [Field::Tools, Field::System, Field::Input, Field::Prompt, Field::Messages];
        Ok(Self {
            model: NamedModel::read(body, found.get(Field::Model))?,
            max_tokens: tokens,
            n: found.number(Field::N),
            stream: found.get(Field::Stream) == Some("true"),
            session: some(Field::PromptCacheKey).or(some(Field::User)),
            tier: some(Field::ServiceTier),
            features: features::found(&found),
            prompt: Prompt(prompt.map(|key| found.0[key as usize])),
        })
    }
}

impl<'b> NamedModel<'b> {
    fn read(body: &[u8], raw: Option<&'b str>) -> Result<Self, Box<ApiError>> {
        let missing = || ApiError::bad_param("model", MISSING);
        let raw = raw.filter(|raw| raw.starts_with('"')).ok_or_else(missing)?;
        let name = match raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) {
            Some(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
            _ => Cow::Owned(serde_json::from_str(raw).map_err(|_| missing())?),
        };
        if name.trim().is_empty() {
            return Err(missing());
        }
        // The raw value is a part of the body, so its address tells where.
        let start = raw.as_ptr() as usize - body.as_ptr() as usize;
        Ok(Self { name, at: start..start + raw.len() })
    }
}

fn unreadable(error: &serde_json::Error) -> Box<ApiError> {
    let told = error.to_string();
    if told.starts_with(TWICE) || told.starts_with(MISSPELT) {
        return ApiError::bad_param("model", format!("The request's body is ambiguous: {told}."));
    }
    // Of JSON that is no object the library's message would quote the whole; of what is no JSON it says only
    // what is wrong and where.
    let why = if error.is_data() { "it is not an object" } else { &told };
    ApiError::bad_request(format!("The request's body is no JSON object that can be read: {why}."))
}

/// The values of the fields that have a name here.
pub(super) struct Found<'b>([Option<&'b RawValue>; Field::Other as usize]);

impl<'b> Found<'b> {
    pub(super) fn get(&self, key: Field) -> Option<&'b str> {
        self.0.get(key as usize).copied().flatten().map(RawValue::get)
    }

    pub(super) fn number(&self, key: Field) -> Option<u32> {
        self.get(key)?.parse().ok()
    }
}

const TWICE: &str = "the field `model` is there twice";
const MISSPELT: &str =
    "the field `model` is written in small letters, and some engines take others for the same";

impl<'de: 'b, 'b> Deserialize<'de> for Found<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fill;
        impl<'de> Visitor<'de> for Fill {
            type Value = Found<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found<'de>, A::Error> {
                let mut found = [None; Field::Other as usize];
                while let Some(key) = map.next_key::<Field>()? {
                    match found.get_mut(key as usize) {
                        // Routing by the one while the engine reads the other would get round every rule
                        // that is tied to a model. With other fields there is nothing to get round.
                        Some(Some(_)) if key == Field::Model => return Err(A::Error::custom(TWICE)),
                        Some(place) => *place = Some(map.next_value()?),
                        None => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(Found(found))
            }
        }
        // Not as a struct: that would take an array, too.
        deserializer.deserialize_map(Fill)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Model,
    MaxTokens,
    MaxCompletionTokens,
    N,
    Stream,
    User,
    PromptCacheKey,
    ServiceTier,
    Tools,
    System,
    Input,
    Prompt,
    Messages,
    Functions,
    Audio,
    BestOf,
    Logprobs,
    ResponseFormat,
    GuidedJson,
    GuidedRegex,
    GuidedChoice,
    GuidedGrammar,
    StructuredOutputs,
    Grammar,
    Stop,
    LogitBias,
    Echo,
    Suffix,
    /// The last one.
    Other,
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Field;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Field, E> {
                Ok(match name {
                    "model" => Field::Model,
                    "max_tokens" => Field::MaxTokens,
                    "max_completion_tokens" => Field::MaxCompletionTokens,
                    "n" => Field::N,
                    "stream" => Field::Stream,
                    "user" => Field::User,
                    "prompt_cache_key" => Field::PromptCacheKey,
                    "service_tier" => Field::ServiceTier,
                    "tools" => Field::Tools,
                    "system" => Field::System,
                    "input" => Field::Input,
                    "prompt" => Field::Prompt,
                    "messages" => Field::Messages,
                    "functions" => Field::Functions,
                    "audio" => Field::Audio,
                    "best_of" => Field::BestOf,
                    "logprobs" => Field::Logprobs,
                    "response_format" => Field::ResponseFormat,
                    "guided_json" => Field::GuidedJson,
                    "guided_regex" => Field::GuidedRegex,
                    "guided_choice" => Field::GuidedChoice,
                    "guided_grammar" => Field::GuidedGrammar,
                    "structured_outputs" => Field::StructuredOutputs,
                    "grammar" => Field::Grammar,
                    "stop" => Field::Stop,
                    "logit_bias" => Field::LogitBias,
                    "echo" => Field::Echo,
                    "suffix" => Field::Suffix,
                    // Engines written in Go, as Ollama is, would take it for the model, and whichever is last.
                    _ if name.eq_ignore_ascii_case("model") => return Err(E::custom(MISSPELT)),
                    _ => Field::Other,
                })
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
        let model = Fields::read(body.as_bytes()).unwrap().model;
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
            r#"{"model":"a","Model":"b"}"#,
            r#"{"MOD\u0045L":"b","model":"a"}"#,
            r#"{"model":"\ud800"}"#,
            "{\"model\":\"a\nb\"}",
        ] {
            let error = Fields::read(body.as_bytes()).expect_err(body);
            assert_eq!(error.reason, Reason::BadRequest, "{body}");
        }
        assert!(Fields::read(b"{\"model\":\"\xff\"}").is_err());
        let long = format!("\"{}\"", "é".repeat(250));
        let error = Fields::read(long.as_bytes()).expect_err("a string is no object");
        assert!(!format!("{error:?}").contains('é'), "a body is not echoed");
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!(r#"{{"x":{}{},"model":"a"}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(found(&deep).0, "a");
        assert_eq!(found(&deep.replacen('x', "messages", 1)).0, "a");
    }

    fn read(body: &str) -> Fields<'_> {
        Fields::read(body.as_bytes()).unwrap()
    }

    #[test]
    fn what_else_routing_wants_is_found() {
        let fields = read(
            r#"{"messages":[{"role":"user"}] ,"model":"m","max_tokens":7,"n":2,"stream":true,"x":{"n":9},
                "user":"u\"1","service_tier":"flex","tools":[{}]}"#,
        );
        assert_eq!((fields.max_tokens, fields.n, fields.stream), (Some(7), Some(2), true));
        assert_eq!((fields.session, fields.tier), (Some(r#""u\"1""#), Some(r#""flex""#)));
        let (before, last) = fields.prompt.before_and_last();
        assert_eq!((before.collect::<Vec<_>>(), last), (vec!["[{}]"], r#"[{"role":"user"}]"#));

        let fields = read(r#"{"model":"m","max_completion_tokens":8,"max_tokens":7,"prompt":"p"}"#);
        assert_eq!((fields.max_tokens, fields.stream), (Some(8), false));
        assert_eq!(fields.prompt.parts().collect::<Vec<_>>(), [r#""p""#]);
        let fields = read(r#"{"model":"m","user":"u","prompt_cache_key":"k"}"#);
        assert_eq!(fields.session, Some(r#""k""#));
    }

    #[test]
    fn what_is_odd_counts_as_not_there_and_is_left_to_the_runner() {
        let fields = read(
            r#"{"model":"m","max_tokens":-1,"max_completion_tokens":null,"n":"2","stream":"true","user":null,
                "service_tier":null,"messages":null,"stream":1}"#,
        );
        assert_eq!((fields.max_tokens, fields.n, fields.stream), (None, None, false));
        assert_eq!((fields.session, fields.tier), (None, None));
        assert_eq!((fields.prompt.parts().count(), fields.prompt.len()), (0, 0));
        assert_eq!(read(r#"{"model":"m","max_tokens":1e3}"#).max_tokens, None);
        assert_eq!(read(r#"{"model":"m","max_tokens":99999999999}"#).max_tokens, None);
        // As parsers do: the last one counts.
        assert_eq!(read(r#"{"model":"m","n":1,"n":3}"#).n, Some(3));
    }
}
