//! What a request asks of the API beyond a model and a prompt, so that it goes to runners that can do it.

use std::sync::LazyLock;

use gateway_core::{Feature, Features};
use memchr::memmem::Finder;
use serde_json::value::RawValue;

use super::fields::{Field, Fields, Found};
use crate::route::Inference;

/// Fields that ask for something as soon as they say anything at all.
const SAID: [(Field, Feature); 15] = [
    (Field::Tools, Feature::Tools),
    (Field::Functions, Feature::Functions),
    (Field::Audio, Feature::Audio),
    (Field::Logprobs, Feature::Logprobs),
    (Field::GuidedJson, Feature::GuidedJson),
    (Field::GuidedRegex, Feature::GuidedRegex),
    (Field::GuidedChoice, Feature::GuidedChoice),
    (Field::GuidedGrammar, Feature::GuidedGrammar),
    (Field::StructuredOutputs, Feature::StructuredOutputs),
    (Field::Grammar, Feature::Grammar),
    (Field::Stop, Feature::Stop),
    (Field::LogitBias, Feature::LogitBias),
    (Field::Echo, Feature::Echo),
    (Field::Suffix, Feature::Suffix),
    (Field::ResponseFormat, Feature::ResponseFormat),
];

/// Found while the body is read. What is odd is left to the runner, as with other fields.
pub(super) fn found(found: &Found<'_>) -> Features {
    let said = SAID.into_iter().filter(|(field, _)| found.get(*field).is_some_and(says_something));
    let mut features: Features = said.map(|(_, feature)| feature).collect();
    if features.has(Feature::ResponseFormat) && found.get(Field::ResponseFormat).is_some_and(is_plain) {
        features = features.without(Feature::ResponseFormat);
    }
    for (field, feature) in [(Field::N, Feature::ManyAnswers), (Field::BestOf, Feature::BestOf)] {
        if found.number(field).is_some_and(|many| many > 1) {
            features = features.with(feature);
        }
    }
    if found.get(Field::Messages).is_some_and(has_media) {
        features = features.with(Feature::Media);
    }
    if found.get(Field::Prompt).is_some_and(is_list) {
        features = features.with(Feature::PromptList);
    }
    features
}

/// What the request asks of this API. What it says in fields of another means nothing.
pub(super) fn of(fields: &Fields<'_>, api: Inference) -> Features {
    match api {
        Inference::Chat => fields.features.without(Feature::PromptList),
        Inference::Completion => fields.features.without(Feature::Media),
        Inference::Embedding => Feature::Embeddings.into(),
    }
}

/// Libraries send fields that are empty, or say no.
fn says_something(json: &str) -> bool {
    let is_empty = |open, close| {
        let inner = json.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
        inner.is_some_and(|inner: &str| inner.trim_ascii().is_empty())
    };
    !matches!(json, "null" | "false" | r#""""#) && !is_empty('[', ']') && !is_empty('{', '}')
}

/// Whether a form of answers is what they have without.
fn is_plain(json: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Form<'f> {
        #[serde(borrow)]
        r#type: &'f RawValue,
    }
    let named = |form: Form<'_>| form.r#type.get().starts_with('"') && form.r#type.get() != r#""text""#;
    !serde_json::from_str(json).is_ok_and(named)
}

/// Whether there is more to a prompt than one text.
fn is_list(json: &str) -> bool {
    let only =
        || serde_json::from_str::<[&RawValue; 1]>(json).is_ok_and(|[only]| only.get().starts_with('"'));
    json.starts_with('[') && !only()
}

/// The types of parts that are no text: OpenAI's of both its APIs, and those that vLLM and llama.cpp add.
const MEDIA: [&str; 12] = [
    "image_url",
    "input_image",
    "image",
    "image_file",
    "input_audio",
    "audio",
    "audio_url",
    "input_video",
    "video_url",
    "video",
    "file",
    "input_file",
];

/// Whether some part is no text. The JSON is known to be sound, and quotes inside of texts are escaped: what looks like
/// a type is one. So no depth need be counted, and an image is not read to its end.
fn has_media(messages: &str) -> bool {
    const KEY: &str = r#""type""#;
    // Made once: that takes longer than to look through a short prompt.
    static FINDER: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(KEY));
    FINDER.find_iter(messages.as_bytes()).any(|at| {
        let value = messages[at + KEY.len()..].trim_ascii_start().strip_prefix(':');
        let word = value.and_then(|value| value.trim_ascii_start().strip_prefix('"')?.split('"').next());
        word.is_some_and(|word| MEDIA.contains(&word))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(api: Inference, rest: &str) -> Vec<Feature> {
        let body = format!(r#"{{"model":"m",{rest}}}"#);
        let fields = Fields::read(body.as_bytes()).expect(&body);
        of(&fields, api).iter().collect()
    }

    fn of_chat(rest: &str) -> Vec<Feature> {
        asked(Inference::Chat, rest)
    }

    #[test]
    fn each_field_asks_for_its_own() {
        for (rest, feature) in [
            (r#""tools":[{"type":"function"}]"#, Feature::Tools),
            (r#""functions":[{"name":"f"}]"#, Feature::Functions),
            (r#""audio":{"voice":"a"}"#, Feature::Audio),
            (r#""n":2"#, Feature::ManyAnswers),
            (r#""best_of":3"#, Feature::BestOf),
            (r#""logprobs":true"#, Feature::Logprobs),
            (r#""logprobs":0"#, Feature::Logprobs),
            (r#""response_format":{"type":"json_object"}"#, Feature::ResponseFormat),
            (r#""response_format":{"json_schema":{},"type":"json_schema"}"#, Feature::ResponseFormat),
            (r#""guided_json":"{}""#, Feature::GuidedJson),
            (r#""guided_regex":"a+""#, Feature::GuidedRegex),
            (r#""guided_choice":["a"]"#, Feature::GuidedChoice),
            (r#""guided_grammar":"root ::= a""#, Feature::GuidedGrammar),
            (r#""structured_outputs":{"json":{}}"#, Feature::StructuredOutputs),
            (r#""grammar":"root ::= a""#, Feature::Grammar),
            (r#""stop":"x""#, Feature::Stop),
            (r#""logit_bias":{"1":2}"#, Feature::LogitBias),
            (r#""echo":true"#, Feature::Echo),
            (r#""suffix":" end""#, Feature::Suffix),
            (r#""messages":[{"content":[{"type":"image_url","image_url":{}}]}]"#, Feature::Media),
        ] {
            assert_eq!(of_chat(rest), [feature], "{rest}");
            let name = feature.field();
            assert!(rest.contains(&format!(r#""{name}":"#)), "{rest} is told of as {name}");
        }
        assert_eq!(of_chat(r#""stop":["a"],"n":4"#), [Feature::ManyAnswers, Feature::Stop]);
    }

    #[test]
    fn what_says_nothing_asks_for_nothing() {
        for rest in [
            r#""messages":[{"role":"user","content":"Hello"}],"temperature":0.5,"seed":7,"stream":true"#,
            r#""tools":null,"functions":[],"audio":null,"n":1,"best_of":1,"logprobs":false,"stop":[ ]"#,
            r#""response_format":{"type":"text"},"guided_json":null,"logit_bias":{},"echo":false,"suffix":"""#,
            r#""tool_choice":"auto","user":"tools","metadata":{"tools":[1],"n":2}"#,
            // Left to the runner.
            r#""n":"2","best_of":[2],"response_format":"json","response_format":{"type":null}"#,
        ] {
            assert_eq!(of_chat(rest), [], "{rest}");
        }
    }

    #[test]
    fn parts_are_looked_for_where_they_can_be() {
        let parts = |parts: &str| format!(r#""messages":[{{"role":"user","content":[{parts}]}}]"#);
        for part in [
            r#"{"type":"text","text":"a"},{ "type" : "input_audio" }"#,
            r#"{"image_url":{"url":"data:"},"type":"image_url"}"#,
            "{\"type\"\n:\t\"file\"}",
        ] {
            assert_eq!(of_chat(&parts(part)), [Feature::Media], "{part}");
        }
        for part in [
            r#"{"type":"text","text":"send {\"type\":\"image_url\"}"}"#,
            r#"{"type":"text","text":"\"type\":","x":"image_url"}"#,
            r#"{"type":"refusal","refusal":"image_url"}"#,
            r#"{"type":"text","text":"a \"type"},{"image_url":"type"}"#,
        ] {
            assert_eq!(of_chat(&parts(part)), [], "{part}");
        }
        assert_eq!(of_chat(r#""messages":[{"tool_calls":[{"type":"function"}],"content":null}]"#), []);
        assert_eq!(of_chat(r#""x":[{"type":"image_url"}]"#), []);
    }

    #[test]
    fn each_api_reads_its_own_fields() {
        let completion = |rest| asked(Inference::Completion, rest);
        assert_eq!(completion(r#""prompt":["a","b"]"#), [Feature::PromptList]);
        assert_eq!(completion(r#""prompt":[1,2]"#), [Feature::PromptList]);
        assert_eq!(completion(r#""prompt":[7]"#), [Feature::PromptList]);
        assert_eq!(completion(r#""prompt":[]"#), [Feature::PromptList]);
        assert_eq!(completion(r#""prompt":[ "a" ],"messages":[{"type":"file"}]"#), []);
        assert_eq!(of_chat(r#""prompt":["a","b"]"#), []);
        assert_eq!(asked(Inference::Embedding, r#""input":"a","n":2"#), [Feature::Embeddings]);
    }

    proptest! {
        /// Whatever is said in texts asks for nothing, and a part that is no text is found among any others.
        #[test]
        fn texts_are_never_taken_for_parts(texts in prop::collection::vec("(\\PC|[\"\\\\:]|\"type\":|\"image_url\"){0,40}", 1..6), at: prop::sample::Index) {
            let part = |text: &String| serde_json::json!({"type": "text", "text": text});
            let mut parts: Vec<_> = texts.iter().map(part).collect();
            let body = |parts: &[serde_json::Value]| {
                format!(r#""messages":{}"#, serde_json::json!([{"role": "user", "content": parts}]))
            };
            prop_assert_eq!(of_chat(&body(&parts)), []);
            parts.insert(at.index(parts.len() + 1), serde_json::json!({"type": "image_url", "image_url": {"url": "u"}}));
            prop_assert_eq!(of_chat(&body(&parts)), [Feature::Media]);
        }
    }
}
