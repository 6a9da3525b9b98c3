//! What can be told of a prompt without a tokenizer: about how long it is, and how it begins.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use gateway_core::PromptBlocks;
use memchr::memmem::Finder;

use super::fields::Prompt;
use super::hash::hash;

/// How prompts are cut into blocks for strategies that look for a runner with the beginning of a prompt in its
/// cache. Set with [`GatewayBuilder::prompt_hashing`](crate::GatewayBuilder::prompt_hashing); without such a
/// strategy no prompt is hashed.
///
/// Prompts are compared as the bytes that clients send: `tools`, `system`, then `messages`, `prompt` or
/// `input`, in the order in which chat templates put them. A conversation that is sent again with more at its
/// end has all whole blocks in common with what was sent before. Each hash stands for its block and everything
/// before it, model included. Hashes are the same in every gateway and every version.
///
/// # Tenants
/// Unless `separate_tenants` is set, two tenants with the same prompt count as having the same prefix: a
/// system prompt that is sold to many is then kept in as few caches as need be. It also means that whoever can
/// guess the beginning of another tenant's prompt, word for word, can learn from the time to first token that
/// it was asked lately, as with any cache that is shared. Engines have the same choice to make (vLLM's
/// `cache_salt`); this setting only chooses runners, it does not part what is in an engine's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptHashing {
    /// Bytes per block, at least [`PromptHashing::MIN_BLOCK_BYTES`].
    pub block_bytes: usize,
    /// Whether tenants never share a prefix.
    pub separate_tenants: bool,
}

impl PromptHashing {
    /// 512 bytes, about 128 tokens: eight blocks of vLLM's usual 16 tokens. Finer blocks find little more of
    /// a prefix and cost more memory in the index.
    pub const BLOCK_BYTES: usize = 512;
    /// Below 64 bytes a block is hardly more than its hash.
    pub const MIN_BLOCK_BYTES: usize = 64;
    /// The most blocks of one prompt: with the usual size, the first half megabyte, about 131,000 tokens.
    /// What comes after is not looked at.
    pub const MAX_BLOCKS: usize = 1024;
}

impl Default for PromptHashing {
    fn default() -> Self {
        Self { block_bytes: Self::BLOCK_BYTES, separate_tenants: false }
    }
}

/// OpenAI's rule of thumb for English. The JSON around the text stands for what a chat template adds.
const BYTES_PER_TOKEN: usize = 4;

/// What a picture in base64 is taken for, however many bytes it has: models scale it down first. A picture of
/// 1,024 pixels square costs 765 tokens in OpenAI's count and about 1,300 in Qwen2-VL's.
const TOKENS_PER_ATTACHMENT: usize = 1000;

/// Prompts without attachments are short; nothing is searched in those that could not hold one worth speaking of.
const ATTACHMENTS_FROM: usize = 8 * 1024;

/// About how many tokens the prompt has; `None` if there is none.
pub(super) fn tokens(prompt: &Prompt<'_>) -> Option<u32> {
    let (mut bytes, mut attachments) = (0, 0);
    for part in prompt.parts() {
        bytes += part.len();
        if part.len() >= ATTACHMENTS_FROM {
            let (count, length) = attached(part.as_bytes());
            bytes -= length;
            attachments += count;
        }
    }
    let tokens = bytes.div_ceil(BYTES_PER_TOKEN) + attachments * TOKENS_PER_ATTACHMENT;
    (bytes > 0).then(|| u32::try_from(tokens).unwrap_or(u32::MAX))
}

/// How many pictures and the like there are in base64, and the bytes of it.
fn attached(json: &[u8]) -> (usize, usize) {
    attachments(json).fold((0, 0), |(count, bytes), at| (count + 1, bytes + at.len()))
}

/// Shorter ones are text that speaks of base64, or no more than their hash.
const ATTACHMENT_BYTES: usize = 256;

/// Where pictures and the like are in base64.
fn attachments(json: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    const MARK: &[u8] = b";base64,";
    // A slash may be escaped in JSON.
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'\\');
    static FINDER: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(MARK));
    let starts = FINDER.find_iter(json).map(|at| at + MARK.len());
    let found = starts.map(move |start| {
        let rest = &json[start..];
        start..start + rest.iter().position(|byte| !is_base64(byte)).unwrap_or(rest.len())
    });
    found.filter(|at| at.len() >= ATTACHMENT_BYTES)
}

/// The text with the hash of each picture in its place: what a picture is in an engine's cache has nothing to do with
/// the bytes that it is sent with.
fn without_attachments(json: &[u8]) -> Cow<'_, [u8]> {
    let (mut text, mut end) = (Vec::new(), 0);
    for at in attachments(json) {
        text.extend_from_slice(&json[end..at.start]);
        text.extend_from_slice(&hash(0, &json[at.clone()]).to_le_bytes());
        end = at.end;
    }
    if end == 0 {
        return Cow::Borrowed(json);
    }
    text.extend_from_slice(&json[end..]);
    Cow::Owned(text)
}

/// The hashes of the prompt's whole blocks. `seed` stands for all that must be alike besides.
pub(super) fn blocks(prompt: &Prompt<'_>, hashing: PromptHashing, seed: u64) -> PromptBlocks {
    let size = hashing.block_bytes.max(1);
    let (before, last) = prompt.before_and_last();
    let mut state = seed;
    let mut hashes = Vec::with_capacity((prompt.len() / size).min(PromptHashing::MAX_BLOCKS));
    let mut take = |state: u64, bytes: &[u8]| {
        if hashes.len() < PromptHashing::MAX_BLOCKS {
            hashes.push(hash(state, bytes));
        }
        hashes.last().copied().unwrap_or(state)
    };
    for part in before {
        let part = without_attachments(part.as_bytes());
        let mut whole = part.chunks_exact(size);
        state = whole.by_ref().fold(state, &mut take);
        // What is left is a part of the next block: it is always followed by the same.
        state = hash(state, whole.remainder());
    }
    // What a conversation may be continued after: without the end mark of its array or string.
    let text = last.trim_end();
    let open = text.strip_suffix([']', '"']).unwrap_or(text).trim_end();
    without_attachments(open.as_bytes()).chunks_exact(size).fold(state, take);
    if hashes.is_empty() {
        return PromptBlocks::default();
    }
    PromptBlocks::new(hashes, u32::try_from(size / BYTES_PER_TOKEN).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::inference::fields::Fields;

    const SMALL: PromptHashing = PromptHashing { block_bytes: 64, separate_tenants: false };

    fn of<T>(body: &str, ask: impl FnOnce(&Prompt<'_>) -> T) -> T {
        ask(&Fields::read(body.as_bytes()).unwrap().prompt)
    }

    fn hashes(body: &str) -> Vec<u64> {
        of(body, |prompt| blocks(prompt, SMALL, 1).hashes().to_vec())
    }

    #[test]
    fn tokens_are_a_quarter_of_the_bytes() {
        let text = "x".repeat(398);
        assert_eq!(of(&format!(r#"{{"model":"m","prompt":"{text}"}}"#), tokens), Some(100));
        let tools = format!(r#"{{"model":"m","tools":["{}"],"prompt":"{text}"}}"#, "y".repeat(36));
        assert_eq!(of(&tools, tokens), Some(110));
        assert_eq!(of(r#"{"model":"m"}"#, tokens), None);
        assert_eq!(of(r#"{"model":"m","messages":[]}"#, tokens), Some(1));
    }

    #[test]
    fn a_picture_counts_as_a_picture_however_many_bytes_it_has() {
        let picture = format!(r#"{{"url":"data:image/png;base64,{}"}}"#, "A".repeat(1_000_000));
        let body = format!(r#"{{"model":"m","messages":[{picture},"{}",{picture}]}}"#, "x".repeat(4000));
        let tokens = of(&body, tokens).unwrap();
        assert!((3_000..3_050).contains(&tokens), "{tokens}");
        // Text that speaks of base64 is text.
        let odd = format!(r#"{{"model":"m","prompt":"{}"}}"#, ";base64,".repeat(2000));
        assert_eq!(of(&odd, super::tokens), Some(4_001));
    }

    #[test]
    fn a_picture_is_one_thing_among_the_blocks_and_what_follows_it_counts() {
        let ask = |picture: &str, text: &str| {
            let url = format!("data:image/png;base64,{}", picture.repeat(250_000));
            let parts = serde_json::json!([{"image_url": {"url": url}}, {"text": text}]);
            hashes(&serde_json::json!({"model": "m", "messages": [{"content": parts}]}).to_string())
        };
        let text = "0123456789".repeat(30);
        let base = ask("AbC/", &text);
        assert!((5..8).contains(&base.len()), "{}", base.len());
        assert!(ask("AbC/", &format!("{text}{text}")).starts_with(&base[..base.len() - 1]));
        let (other, end) = (ask("AbCd", &text), ask("AbC/", "something else"));
        assert_ne!(other[1], base[1], "another picture is another prompt");
        assert_eq!(end[0], base[0]);
    }

    #[test]
    fn model_and_tools_count_and_the_end_of_the_last_block_does_not() {
        let ask = |tools: &str, text: &str| {
            format!(r#"{{"model":"m","messages":[{{"content":"{text}"}}],"tools":["{tools}"]}}"#)
        };
        let text = "0123456789".repeat(30);
        let base = hashes(&ask("a", &text));
        assert_eq!(base.len(), 4);
        assert_eq!(hashes(&ask("a", &format!("{text}x"))), base);
        assert_ne!(hashes(&ask("b", &text))[0], base[0]);
        let other = of(&ask("a", &text), |prompt| blocks(prompt, SMALL, 2).hashes().to_vec());
        assert_ne!(other[0], base[0], "the seed stands for the model");
        // The tools come first, whole blocks of them for themselves.
        let long = "t".repeat(200);
        let (one, two) = (hashes(&ask(&long, &text)), hashes(&ask(&long, "short")));
        assert_eq!(one[..3], two[..3]);
        assert_eq!((one.len(), two.len()), (7, 3));
    }

    #[test]
    fn there_is_a_most_and_a_size() {
        let body = format!(r#"{{"model":"m","prompt":"{}"}}"#, "x".repeat(200_000));
        assert_eq!(hashes(&body).len(), PromptHashing::MAX_BLOCKS);
        let usual = of(&body, |prompt| blocks(prompt, PromptHashing::default(), 1));
        assert_eq!((usual.hashes().len(), usual.tokens_per_block()), (200_001 / 512, 128));
        assert!(of(r#"{"model":"m","prompt":"short"}"#, |prompt| blocks(prompt, SMALL, 1)).is_empty());
    }

    /// Turns of a conversation, as text with whatever JSON has to escape.
    fn turns() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("\\PC{0,120}", 1..12)
    }

    fn chat(turns: &[String], pretty: bool, tools: bool) -> String {
        let message = |text: &String| serde_json::json!({"role": "user", "content": text});
        let messages: Vec<_> = turns.iter().map(message).collect();
        let mut body = serde_json::json!({"model": "m", "messages": messages});
        if tools {
            body["tools"] = serde_json::json!([{"type": "function", "function": {"name": "f"}}]);
        }
        if pretty { serde_json::to_string_pretty(&body).unwrap() } else { body.to_string() }
    }

    proptest! {
        #[test]
        fn a_conversation_that_grows_keeps_its_prefix(
            turns in turns(), at in any::<prop::sample::Index>(), pretty: bool, tools: bool,
        ) {
            let shorter = &turns[..at.index(turns.len()) + 1];
            let (before, after) = (chat(shorter, pretty, tools), chat(&turns, pretty, tools));
            let (before, after) = (hashes(&before), hashes(&after));
            prop_assert!(after.starts_with(&before));
        }

        #[test]
        fn a_prompt_that_grows_keeps_its_prefix(text in "\\PC{0,400}", more in "\\PC{0,400}") {
            let ask = |text: &str| serde_json::json!({"model": "m", "prompt": text}).to_string();
            let (before, after) = (hashes(&ask(&text)), hashes(&ask(&format!("{text}{more}"))));
            prop_assert!(after.starts_with(&before));
        }

        #[test]
        fn a_change_shows_from_its_block_on_and_nowhere_before(
            turns in turns(), at in any::<prop::sample::Index>(),
        ) {
            let body = chat(&turns, false, false);
            let at = at.index(turns.len());
            let mut changed = turns.clone();
            changed[at].insert(0, '!');
            let other = chat(&changed, false, false);
            let from = body.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
            let from = (from - body.find('[').unwrap()) / SMALL.block_bytes;
            let (before, after) = (hashes(&body), hashes(&other));
            for (block, (a, b)) in before.iter().zip(&after).enumerate() {
                prop_assert_eq!(a == b, block < from, "block {}, changed from {}", block, from);
            }
        }

        #[test]
        fn no_body_makes_it_panic(
            parts in prop::collection::vec(
                prop_oneof![
                    Just("\"messages\":[".to_owned()), Just("\"tools\":".to_owned()), Just("{\"model\":\"m\",".to_owned()),
                    Just("}".to_owned()), Just("]".to_owned()), Just("\"".to_owned()), Just(",".to_owned()),
                    Just("\"prompt\":".to_owned()), Just("null".to_owned()), Just(";base64,".to_owned()),
                    "\\PC{0,9}",
                ],
                0..24,
            ),
            block_bytes in 0_usize..200,
        ) {
            let body = parts.concat();
            if let Ok(fields) = Fields::read(body.as_bytes()) {
                tokens(&fields.prompt);
                blocks(&fields.prompt, PromptHashing { block_bytes, separate_tenants: true }, 3);
            }
        }

        #[test]
        fn no_prompt_makes_it_panic(
            tools in "\\PC{0,40}", text in "(\\PC|;base64,|[\\]\"\\\\ ]){0,3000}", block_bytes in 0_usize..200,
        ) {
            let body = serde_json::json!({"model": "m", "tools": tools, "input": text}).to_string();
            let fields = Fields::read(body.as_bytes()).unwrap();
            prop_assert!(tokens(&fields.prompt).is_some());
            blocks(&fields.prompt, PromptHashing { block_bytes, separate_tenants: true }, 3);
        }
    }
}
