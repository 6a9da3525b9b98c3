//! How many tokens an answer took, as its engine says.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;

/// Finds `usage` in an answer while its chunks pass, whether it is an event stream or one JSON object.
///
/// It looks at every byte instead of keeping the end of the answer: llama.cpp puts the usage of embeddings
/// before the vectors, where an end of any length misses it, and a search is cheaper than a copy. Only what
/// a chunk's end cuts is kept, at most [`Scanner::HELD`] bytes, so most answers copy nothing.
///
/// The text of an answer cannot be taken for it: inside a JSON string the quotes of `"usage"` would be
/// escaped, and a string that is this word and nothing else is followed by no colon and object.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// The beginning of what may become a usage, if the last chunk ended within it.
    held: Vec<u8>,
    found: Usage,
}

/// What an engine says of an answer's tokens. Streams may say it with every chunk; the last one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub(super) struct Usage {
    pub(super) prompt_tokens: Option<u64>,
    pub(super) completion_tokens: Option<u64>,
}

const KEY: &[u8] = br#""usage""#;
static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(KEY));

/// What stands behind the key.
enum Value {
    /// With the number of bytes up to its end.
    Usage(Usage, usize),
    /// `null`, or nothing that is meant here.
    Other,
    /// Its end is not here yet.
    Cut,
}

impl Scanner {
    /// 2 KiB. Engines write 60 to 400 bytes, with every detail there is.
    const HELD: usize = 2 << 10;

    /// Looks at the next chunk.
    pub(super) fn push(&mut self, mut data: &[u8]) {
        while !self.held.is_empty() && !data.is_empty() {
            let before = self.held.len();
            let (part, rest) = data.split_at(data.len().min(Self::HELD - before));
            self.held.extend_from_slice(part);
            let held = std::mem::take(&mut self.held);
            let from = self.scan(&held);
            if from >= before {
                // All that was kept is settled; what is left stands in the chunk itself.
                data = &data[from - before..];
                break;
            }
            self.held = held;
            self.held.drain(..from);
            data = rest;
        }
        if self.held.is_empty() {
            let from = self.scan(data);
            self.held.extend_from_slice(&data[from..]);
        }
    }

    /// What the answer said, so far.
    pub(super) fn usage(&self) -> Usage {
        self.found
    }

    /// Takes note of every usage, and tells from where on the bytes are needed again: fewer than
    /// [`Scanner::HELD`].
    fn scan(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(key) = FINDER.find(&bytes[at..]) {
            let key = at + key;
            at = key + KEY.len();
            match value(&bytes[at..]) {
                Value::Usage(usage, len) => {
                    at += len;
                    // An object of another kind says nothing, and takes nothing back.
                    if usage != Usage::default() {
                        self.found = usage;
                    }
                }
                Value::Cut if bytes.len() - key < Self::HELD => return key,
                Value::Cut | Value::Other => {}
            }
        }
        // The key itself may be cut.
        let rest = &bytes[at..];
        let cut = (1..KEY.len()).rev().find(|len| rest.ends_with(&KEY[..*len]));
        bytes.len() - cut.unwrap_or(0)
    }
}

fn value(bytes: &[u8]) -> Value {
    let after_colon = match bytes.trim_ascii_start() {
        [] => return Value::Cut,
        [b':', rest @ ..] => rest.trim_ascii_start(),
        _ => return Value::Other,
    };
    match after_colon {
        [] => Value::Cut,
        [b'{', ..] => {
            let mut values = serde_json::Deserializer::from_slice(after_colon).into_iter();
            match values.next() {
                Some(Ok(usage)) => {
                    Value::Usage(usage, bytes.len() - after_colon.len() + values.byte_offset())
                }
                Some(Err(error)) if error.is_eof() => Value::Cut,
                _ => Value::Other,
            }
        }
        _ => Value::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn usage(prompt_tokens: u64, completion_tokens: u64) -> Usage {
        Usage { prompt_tokens: Some(prompt_tokens), completion_tokens: Some(completion_tokens) }
    }

    /// Answers as engines write them, with what they say.
    const ANSWERS: [(&str, &str, Usage); 12] = [
        (
            "OpenAI, whole",
            r#"{"id":"chatcmpl-1","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":
            "assistant","content":"The \"usage\": {\"prompt_tokens\": 9}"},"finish_reason":"stop"}],"usage":{
            "prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":
            {"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,
            "audio_tokens":0}},"service_tier":"default","system_fingerprint":null}"#,
            usage(19, 10),
        ),
        (
            "OpenAI, streamed with include_usage",
            "data: {\"id\":\"1\",\"choices\":[{\"delta\":{\"content\":\"usage\"}}],\"usage\":null}\n\n\
             data: {\"id\":\"1\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,\
             \"total_tokens\":10}}\n\ndata: [DONE]\n\n",
            usage(7, 3),
        ),
        (
            "OpenAI, streamed without",
            "data: {\"id\":\"1\",\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\":{\"}}],\"usage\":null}\n\n\
             data: [DONE]\n\n",
            Usage { prompt_tokens: None, completion_tokens: None },
        ),
        (
            "vLLM, streamed with continuous usage",
            "data: {\"choices\":[{\"delta\":{}}],\"usage\":{\"prompt_tokens\":5,\"total_tokens\":6,\
             \"completion_tokens\":1}}\r\n\r\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\
             \"total_tokens\":9,\"completion_tokens\":4}}\r\n\r\ndata: [DONE]\r\n\r\n",
            usage(5, 4),
        ),
        (
            "vLLM, whole",
            r#"{"id":"c","choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":11,"total_tokens":15,
            "completion_tokens":4,"prompt_tokens_details":null},"prompt_logprobs":null}"#,
            usage(11, 4),
        ),
        (
            "vLLM, embeddings",
            r#"{"object":"list","data":[{"embedding":[0.1,0.2]}],"model":"m","usage":{"prompt_tokens":8,
            "total_tokens":8,"completion_tokens":0,"prompt_tokens_details":null}}"#,
            usage(8, 0),
        ),
        (
            "llama.cpp, whole",
            r#"{"choices":[{"finish_reason":"stop","index":0,"message":{"role":"assistant","content":"hi"}}],
            "created":1,"model":"m","object":"chat.completion","usage":{"completion_tokens":2,"prompt_tokens":
            31,"total_tokens":33},"id":"x","timings":{"prompt_n":31,"predicted_n":2}}"#,
            usage(31, 2),
        ),
        (
            "llama.cpp, streamed",
            "data: {\"choices\":[],\"created\":1,\"usage\":{\"completion_tokens\":6,\"prompt_tokens\":12,\
             \"total_tokens\":18},\"timings\":{\"prompt_n\":1,\"predicted_n\":6}}\n\ndata: [DONE]\n\n",
            usage(12, 6),
        ),
        (
            "llama.cpp, embeddings, where it comes first",
            r#"{"model":"m","object":"list","usage":{"prompt_tokens":4,"total_tokens":4},"data":[{"embedding":
            [0.11,0.12,0.13],"index":0,"object":"embedding"}]}"#,
            Usage { prompt_tokens: Some(4), completion_tokens: None },
        ),
        (
            "tokens that are called usage",
            r#"{"choices":[{"logprobs":{"tokens":["usage"],"top_logprobs":[{"usage":-0.1}]},"text":"\"usage"}],
            "usage" : {"prompt_tokens" : 1, "completion_tokens" : 2}}"#,
            usage(1, 2),
        ),
        (
            "numbers that are none",
            r#"{"usage":{"prompt_tokens":"many","completion_tokens":-1}}"#,
            Usage { prompt_tokens: None, completion_tokens: None },
        ),
        (
            "an answer that was cut",
            r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2"#,
            Usage { prompt_tokens: None, completion_tokens: None },
        ),
    ];

    fn scanned<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Usage {
        let mut scanner = Scanner::default();
        for chunk in chunks {
            scanner.push(chunk);
            assert!(scanner.held.len() < Scanner::HELD);
        }
        scanner.usage()
    }

    #[test]
    fn every_engine_is_understood_wherever_a_chunk_ends() {
        for (name, answer, told) in ANSWERS {
            let bytes = answer.as_bytes();
            assert_eq!(scanned([bytes]), told, "{name}");
            assert_eq!(scanned(bytes.chunks(1)), told, "{name}, byte by byte");
            for cut in 0..=bytes.len() {
                let (a, b) = bytes.split_at(cut);
                assert_eq!(scanned([a, b]), told, "{name}, cut at {cut}");
            }
        }
    }

    #[test]
    fn what_never_ends_is_given_up() {
        let endless = format!(r#"{{"usage":{{"a":"{}"}}}}"#, "x".repeat(Scanner::HELD));
        let honest = r#"{"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
        let text = format!("{endless}{honest}");
        for size in [1, 7, 100, text.len()] {
            assert_eq!(scanned(text.as_bytes().chunks(size)), usage(1, 2), "chunks of {size}");
        }
        // The object that is given up may hold the beginning of another one.
        let nested = format!(r#"{{"usage":{{"a":"{}","usage":{{"prompt_tokens":3}}}}}}"#, "x".repeat(2000));
        let told = scanned(nested.as_bytes().chunks(9));
        assert_eq!(told.prompt_tokens, None, "as a whole it says nothing of tokens");
    }

    proptest! {
        #[test]
        fn chunks_make_no_difference(
            picked in prop::collection::vec(0..ANSWERS.len(), 1..4),
            filler in 0..5_000_usize,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut text = "x".repeat(filler);
            picked.iter().for_each(|at| text.push_str(ANSWERS[*at].1));
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len())).collect();
            cuts.sort_unstable();
            let mut from = 0;
            let mut chunks = Vec::new();
            for cut in cuts.into_iter().chain([text.len()]) {
                chunks.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            prop_assert_eq!(scanned(chunks), scanned([text.as_bytes()]));
        }
    }
}
