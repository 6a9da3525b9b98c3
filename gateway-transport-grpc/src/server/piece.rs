//! What an event of a streamed completion says, as far as the contract has room for it.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tonic::Status;

use crate::status::to_grpc::Failure;

/// One event.
#[derive(Debug, PartialEq)]
pub(crate) enum Piece {
    /// Some text, which may be none.
    Text(Text),
    /// The end mark.
    Done,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Text {
    pub(crate) text: String,
    /// Whether the runner said why it has ended, which only whole answers do.
    pub(crate) is_last: bool,
    /// What the whole answer came to, in tokens.
    pub(crate) tokens: Option<u64>,
}

impl Piece {
    /// Reads an event's data. Of all that stands there only the text is kept.
    ///
    /// # Errors
    /// It says that the runner failed, or it is not what it should be.
    pub(crate) fn read(data: &[u8]) -> Result<Self, Status> {
        if data.trim_ascii() == b"[DONE]" {
            return Ok(Self::Done);
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else {
            return Err(Status::internal(
                "The runner's answer has an event that is no chunk of a completion.",
            ));
        };
        if chunk.error.is_some() {
            return Err(Failure::of_event(data).into_status());
        }
        let First { text, is_last } = chunk.choices;
        let tokens = chunk.usage.and_then(|usage| usage.completion_tokens);
        Ok(Self::Text(Text { text, is_last, tokens }))
    }
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(default)]
    choices: First,
    usage: Option<Usage>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Usage {
    completion_tokens: Option<u64>,
}

/// The first of several answers: more than one are never asked for.
#[derive(Debug, Default)]
struct First {
    text: String,
    is_last: bool,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u32,
    text: Option<String>,
    delta: Option<Delta>,
    finish_reason: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
}

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choices;
        impl<'de> Visitor<'de> for Choices {
            type Value = First;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of choices")
            }

            fn visit_unit<E>(self) -> Result<First, E> {
                Ok(First::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut choices: A) -> Result<First, A::Error> {
                let mut first = First::default();
                while let Some(choice) = choices.next_element::<Choice>()? {
                    if choice.index == 0 {
                        let text = choice.text.or(choice.delta.and_then(|delta| delta.content));
                        first.text = text.unwrap_or_default();
                        first.is_last = choice.finish_reason.is_some();
                    }
                }
                Ok(first)
            }
        }
        deserializer.deserialize_any(Choices)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tonic::Code;

    use super::*;

    fn text(data: &str) -> Text {
        match Piece::read(data.as_bytes()) {
            Ok(Piece::Text(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_apis_are_understood() {
        let completion = text(
            r#"{"id":"1","choices":[{"text":"a\n\"é","index":0,"logprobs":null,"finish_reason":null}]}"#,
        );
        assert_eq!(completion, Text { text: "a\n\"é".into(), ..Text::default() });
        let chat = text(
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"b"},"finish_reason":null}]}"#,
        );
        assert_eq!(chat.text, "b");
        let last = text(r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":null}"#);
        assert_eq!(last, Text { is_last: true, ..Text::default() });
        let usage =
            text(r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":7,"total_tokens":10}}"#);
        assert_eq!(usage.tokens, Some(7));
        assert_eq!(text(r#"{"choices":null}"#), Text::default());
        let two =
            text(r#"{"choices":[{"index":1,"text":"no"},{"index":0,"text":"yes"},{"index":2,"text":"no"}]}"#);
        assert_eq!(two.text, "yes");
        assert_eq!(Piece::read(b" [DONE] ").unwrap(), Piece::Done);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let code = |data: &str| Piece::read(data.as_bytes()).expect_err(data).code();
        assert_eq!(code(r#"{"error":{"message":"gone","type":"upstream_error"}}"#), Code::Unavailable);
        for wrong in ["", "{", "null", "1", r#"{"choices":1}"#, r#"{"choices":[{"text":1}]}"#] {
            assert_eq!(code(wrong), Code::Internal, "{wrong}");
        }
        assert_eq!(text(r#"{"error":null,"choices":[]}"#), Text::default());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn any_bytes_are_read_or_refused(data in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = Piece::read(&data);
        }
    }
}
