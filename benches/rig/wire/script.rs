//! What a prompt asks of the mock engine.
//!
//! A prompt passes through every gateway and every protocol as it is; headers, unknown fields and paths of one's own do
//! not. So it is the prompt that says how the engine is to answer: `@mock chunks=100 interval_us=0 delay_us=0;`.

use std::time::Duration;

use memchr::memmem;

/// How the engine is to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Script {
    /// Chunks of a stream, at least one.
    pub chunks: u32,
    /// From one chunk to the next; zero is as fast as can be.
    pub interval: Duration,
    /// Before the answer, or the first chunk of it.
    pub delay: Duration,
}

impl Default for Script {
    /// A hundred chunks at once: what is asked for by hand should be seen.
    fn default() -> Self {
        Self { chunks: 100, interval: Duration::ZERO, delay: Duration::ZERO }
    }
}

impl Script {
    /// How long the words of a script are at most.
    pub const LONGEST: usize = 128;

    /// The words that stand in the prompt. They hold nothing that JSON would escape.
    pub fn words(&self) -> String {
        let (interval, delay) = (self.interval.as_micros(), self.delay.as_micros());
        format!("@mock chunks={} interval_us={interval} delay_us={delay};", self.chunks)
    }

    /// Finds the script in (a part of) a body or a prompt; what it does not say is as by default.
    pub fn find(text: &[u8]) -> Option<Self> {
        let at = memmem::find(text, b"@mock ")?;
        let words = &text[at + 6..];
        let words = &words[..memchr::memchr(b';', words)?.min(Self::LONGEST)];
        let mut script = Self::default();
        for word in std::str::from_utf8(words).ok()?.split(' ') {
            let Some((key, value)) = word.split_once('=') else { continue };
            let Ok(value) = value.parse::<u32>() else { continue };
            match key {
                "chunks" => script.chunks = value.max(1),
                "interval_us" => script.interval = Duration::from_micros(value.into()),
                "delay_us" => script.delay = Duration::from_micros(value.into()),
                _ => {}
            }
        }
        Some(script)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_found() {
        let script =
            Script { chunks: 7, interval: Duration::from_millis(50), delay: Duration::from_micros(20) };
        let body = format!(r#"{{"messages":[{{"role":"user","content":"{} hello"}}]}}"#, script.words());
        assert_eq!(Script::find(body.as_bytes()), Some(script));
        assert!(script.words().len() < Script::LONGEST);
        assert_eq!(Script::find(b"hello"), None);
        assert_eq!(Script::find(b"@mock chunks=3"), None, "it may have been cut");
    }
}
