//! The fields of a request's body that routing needs, found in one pass. Nothing is kept or changed.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use gateway_core::Features;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{features, plain};
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
pub(crate) struct Prompt<'b>([Option<&'b str>; 5]);

impl<'b> Prompt<'b> {
    pub(super) fn parts(&self) -> impl DoubleEndedIterator<Item = &'b str> {
        self.0.into_iter().flatten().filter(|json| *json != "null")
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
        let found = Found::read(body).map_err(|error| unreadable(&error))?;
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
            prompt: Prompt(prompt.map(|key| found.get(key))),
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
        // What was found is a part of the body, so its address tells where.
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

/// The values of the fields that have a name here, as they stand in the body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found<'b>([Option<&'b str>; Field::Other as usize]);

impl<'b> Found<'b> {
    const NOTHING: Self = Self([None; Field::Other as usize]);

    fn read(body: &'b [u8]) -> Result<Self, serde_json::Error> {
        let mut found = Self::NOTHING;
        let put = |name: &str, value| {
            if let Some(place) = found.place(Field::named(name).ok()?).ok()? {
                *place = Some(value);
            }
            Some(())
        };
        match plain::fields(body, put) {
            Some(()) => Ok(found),
            None => serde_json::from_slice(body),
        }
    }

    /// Where its value goes, if it has a name here. Routing by one model while the engine reads the other would get round
    /// every rule that is tied to a model. With other fields there is nothing to get round.
    fn place(&mut self, key: Field) -> Result<Option<&mut Option<&'b str>>, &'static str> {
        match self.0.get_mut(key as usize) {
            Some(Some(_)) if key == Field::Model => Err(TWICE),
            place => Ok(place),
        }
    }

    pub(super) fn get(&self, key: Field) -> Option<&'b str> {
        self.0.get(key as usize).copied().flatten()
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
                let mut found = Found::NOTHING;
                while let Some(key) = map.next_key::<Field>()? {
                    match found.place(key).map_err(A::Error::custom)? {
                        Some(place) => *place = Some(map.next_value::<&RawValue>()?.get()),
                        None => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(found)
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

impl Field {
    fn named(name: &str) -> Result<Self, &'static str> {
        Ok(match name {
            "model" => Self::Model,
            "max_tokens" => Self::MaxTokens,
            "max_completion_tokens" => Self::MaxCompletionTokens,
            "n" => Self::N,
            "stream" => Self::Stream,
            "user" => Self::User,
            "prompt_cache_key" => Self::PromptCacheKey,
            "service_tier" => Self::ServiceTier,
            "tools" => Self::Tools,
            "system" => Self::System,
            "input" => Self::Input,
            "prompt" => Self::Prompt,
            "messages" => Self::Messages,
            "functions" => Self::Functions,
            "audio" => Self::Audio,
            "best_of" => Self::BestOf,
            "logprobs" => Self::Logprobs,
            "response_format" => Self::ResponseFormat,
            "guided_json" => Self::GuidedJson,
            "guided_regex" => Self::GuidedRegex,
            "guided_choice" => Self::GuidedChoice,
            "guided_grammar" => Self::GuidedGrammar,
            "structured_outputs" => Self::StructuredOutputs,
            "grammar" => Self::Grammar,
            "stop" => Self::Stop,
            "logit_bias" => Self::LogitBias,
            "echo" => Self::Echo,
            "suffix" => Self::Suffix,
            // Engines written in Go, as Ollama is, would take it for the model, and whichever is last.
            _ if name.eq_ignore_ascii_case("model") => return Err(MISSPELT),
            _ => Self::Other,
        })
    }
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
                Field::named(name).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

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

    fn name() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "max_tokens",
            "max_completion_tokens",
            "n",
            "stream",
            "user",
            "prompt_cache_key",
            "service_tier",
            "tools",
            "system",
            "input",
            "prompt",
            "messages",
            "x",
            "modèle",
            "a\"b",
        ])
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-2_i64..9).prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f32>().prop_map(Value::from),
            "(\\PC|[\"\\\\\n]){0,9}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| prop::collection::vec(inner, 0..4).prop_map(Value::from))
    }

    proptest! {
        /// Whether it is written plainly or not.
        #[test]
        fn it_finds_what_a_tree_holds(
            before in prop::collection::vec((name(), value()), 0..6), model in "[a-zü\"/]{1,9}",
            after in prop::collection::vec((name(), value()), 0..6), pause in prop::sample::select(vec!["", " ", "\n\t"]),
        ) {
            let named = [("model", Value::from(model.as_str()))];
            let all: Vec<_> = before.into_iter().chain(named).chain(after).collect();
            let written: Vec<_> = all.iter().map(|(name, value)| format!("{}{pause}:{value}", Value::from(*name))).collect();
            let body = format!("{{{}}}{pause}", written.join(&format!(",{pause}")));
            let fields = read(&body);
            let tree: Value = serde_json::from_str(&body).unwrap();

            let number = |name| tree[name].as_u64().and_then(|number| u32::try_from(number).ok());
            let said = |name| Some(&tree[name]).filter(|value| !value.is_null()).cloned();
            let parsed = |json: &str| serde_json::from_str::<Value>(json).unwrap();
            prop_assert_eq!(&*fields.model.name, &*model);
            prop_assert_eq!(parsed(&body[fields.model.at.clone()]), &*model);
            prop_assert_eq!(fields.max_tokens, number("max_completion_tokens").or(number("max_tokens")));
            prop_assert_eq!(fields.n, number("n"));
            prop_assert_eq!(fields.stream, tree["stream"] == true);
            prop_assert_eq!(fields.session.map(parsed), said("prompt_cache_key").or(said("user")));
            prop_assert_eq!(fields.tier.map(parsed), said("service_tier"));
            let parts = ["tools", "system", "input", "prompt", "messages"].into_iter().filter_map(said);
            prop_assert_eq!(fields.prompt.parts().map(parsed).collect::<Vec<_>>(), parts.collect::<Vec<_>>());
        }
    }
}
