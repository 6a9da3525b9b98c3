//! `x-router-reason`: why this runner, in a line.

use std::fmt::Write;

use arc_swap::ArcSwap;
use gateway_core::Dispatched;
use http::HeaderValue;

/// Header values for choices without a story, made once for each strategy and reason of its own.
#[derive(Default)]
pub(crate) struct Reasons(ArcSwap<Vec<Known>>);

#[derive(Clone)]
struct Known {
    strategy: &'static str,
    because: Option<&'static str>,
    value: HeaderValue,
}

/// More than strategies have reasons. Beyond it values are made each time.
const MAX_KNOWN: usize = 64;

impl Reasons {
    /// `STRATEGY`, then what there is to say: `; because=WORD`, `; tries=N`, `; waited_ms=N`, `; fallback`,
    /// `; hedged`.
    pub(crate) fn header(&self, answer: &Dispatched) -> HeaderValue {
        let Dispatched { strategy, reason: because, .. } = *answer;
        let story = Story {
            tries: answer.tries,
            // Less is no waiting, but the look into the queue.
            waited_ms: Some(answer.waited.as_millis()).filter(|waited| *waited > 0),
            fallback: answer.is_fallback,
            hedged: answer.hedged,
        };
        if story != Story::NONE {
            return value(strategy, because, &story);
        }
        let known = self.0.load();
        if let Some(known) = known.iter().find(|one| one.strategy == strategy && one.because == because) {
            return known.value.clone();
        }
        let value = value(strategy, because, &story);
        if known.len() < MAX_KNOWN {
            // Two that come at once leave it there twice, or only one of them: both are harmless.
            let new = Known { strategy, because, value: value.clone() };
            self.0.rcu(|old| old.iter().cloned().chain([new.clone()]).take(MAX_KNOWN).collect::<Vec<_>>());
        }
        value
    }
}

/// What happened on the way, beyond the choice.
#[derive(Debug, PartialEq, Eq)]
struct Story {
    tries: u32,
    waited_ms: Option<u128>,
    fallback: bool,
    hedged: bool,
}

impl Story {
    const NONE: Self = Self { tries: 1, waited_ms: None, fallback: false, hedged: false };
}

fn value(strategy: &str, because: Option<&str>, story: &Story) -> HeaderValue {
    let fits = |word: &str| word.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    // A balancer of a stranger may have a name that no header can hold.
    let mut text = if fits(strategy) { strategy.to_owned() } else { "custom".to_owned() };
    // Writing to a string cannot fail.
    if let Some(because) = because.filter(|word| fits(word)) {
        let _ = write!(text, "; because={because}");
    }
    if story.tries > 1 {
        let _ = write!(text, "; tries={}", story.tries);
    }
    if let Some(waited) = story.waited_ms {
        let _ = write!(text, "; waited_ms={waited}");
    }
    for (told, word) in [(story.fallback, "; fallback"), (story.hedged, "; hedged")] {
        text.push_str(if told { word } else { "" });
    }
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("custom"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_the_story_is_told_in_order() {
        let story = Story { tries: 2, waited_ms: Some(12), fallback: true, hedged: true };
        let text = "prefix; because=overflow; tries=2; waited_ms=12; fallback; hedged";
        assert_eq!(value("prefix", Some("overflow"), &story), text);
        assert_eq!(value("random", None, &Story::NONE), "random");
    }

    #[test]
    fn words_that_no_header_can_hold_are_left_out() {
        assert_eq!(value("zufällig", Some("ü"), &Story { tries: 3, ..Story::NONE }), "custom; tries=3");
        assert_eq!(value("a\nb", None, &Story::NONE), "custom");
    }
}
