//! Event streams that end in order even if their runner does not.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use gateway_core::{BodyError, DispatchBody};
use http_body::{Body, Frame};

/// Passes an event stream on as it comes. If it breaks off, the client gets an error event and `[DONE]`
/// instead of a cut connection, which many client libraries take for a success.
pub(crate) struct SseGuard {
    /// `None` once it broke off.
    inner: Option<DispatchBody>,
    tail: Tail,
    last_words: Option<Bytes>,
    broken: Option<&'static str>,
}

impl SseGuard {
    pub(crate) fn new(inner: DispatchBody) -> Self {
        Self { inner: Some(inner), tail: Tail::default(), last_words: None, broken: None }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(self.last_words.take().map(Frame::data));
        };
        match Pin::new(inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.tail.push(data);
                }
                Poll::Ready(Some(frame))
            }
            Poll::Ready(Some(Err(error))) => {
                self.inner = None;
                self.last_words = self.last_words(&error);
                Poll::Ready(self.last_words.take().map(Frame::data))
            }
            Poll::Ready(None) if self.is_whole() => Poll::Ready(None),
            Poll::Ready(None) => {
                // The runner's connection ended in the middle of an event, in a form in which its end is
                // also that of the answer: nobody else can tell that it is cut.
                self.inner = None;
                Poll::Ready(self.words_for("broken_off", BROKEN_OFF).map(Frame::data))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// What is left to say after the stream broke off.
    fn last_words(&mut self, error: &BodyError) -> Option<Bytes> {
        let (broken, words) = if error.is_deadline() {
            ("deadline", DEADLINE)
        } else if error.is_idle_timeout() {
            ("stalled", STALLED)
        } else {
            ("broken_off", BROKEN_OFF)
        };
        self.words_for(broken, words)
    }

    fn words_for(&mut self, broken: &'static str, words: &'static str) -> Option<Bytes> {
        let between = self.tail.is_between_events();
        if self.tail.is_done() {
            // The client has all of it; what broke was only the connection.
            return (!between).then(|| Bytes::from_static(b"\n\n"));
        }
        self.broken = Some(broken);
        // Half an event must be ended first, or the error would be taken for the rest of it.
        let words = Bytes::from_static(words.as_bytes());
        Some(if between { words.slice(2..) } else { words })
    }

    /// Whether what was passed on may be all there is.
    fn is_whole(&self) -> bool {
        self.tail.is_between_events() || self.tail.is_done()
    }

    pub(crate) fn is_end(&self) -> bool {
        self.last_words.is_none()
            && self.inner.as_ref().is_none_or(|inner| inner.is_end_stream() && self.is_whole())
    }

    /// How it broke off, if it did.
    pub(crate) fn broken(&self) -> Option<&'static str> {
        self.broken
    }
}

macro_rules! last_words {
    ($message:literal) => {
        concat!(
            "\n\ndata: {\"error\":{\"message\":\"",
            $message,
            "\",\"type\":\"upstream_error\",\"param\":null,\"code\":null}}\n\ndata: [DONE]\n\n"
        )
    };
}
const BROKEN_OFF: &str = last_words!("The runner broke off its answer.");
const STALLED: &str = last_words!("The answer stood still for too long and was given up.");
const DEADLINE: &str = last_words!("The time for the whole request is up.");

/// The last bytes that were passed on.
#[derive(Debug, Default)]
struct Tail {
    bytes: [u8; Tail::LEN],
    len: usize,
    /// Whether there were more bytes before these.
    cut: bool,
}

impl Tail {
    /// Enough for a line break, `data: [DONE]` and the line breaks after it.
    const LEN: usize = 24;

    fn push(&mut self, data: &[u8]) {
        let keep = Self::LEN.saturating_sub(data.len()).min(self.len);
        let data_from = data.len().saturating_sub(Self::LEN);
        self.cut |= keep < self.len || data_from > 0;
        self.bytes.copy_within(self.len - keep..self.len, 0);
        let data = &data[data_from..];
        self.bytes[keep..keep + data.len()].copy_from_slice(data);
        self.len = keep + data.len();
    }

    fn get(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Whether the next byte would begin a new event.
    fn is_between_events(&self) -> bool {
        // The format takes three kinds of line breaks, in any mixture.
        let tail = self.get();
        tail.is_empty() || [&b"\n\n"[..], b"\n\r\n", b"\r\r"].iter().any(|end| tail.ends_with(end))
    }

    /// Whether the stream's own last line was the end mark.
    fn is_done(&self) -> bool {
        let text = self.get().trim_ascii_end();
        let Some(rest) = text.strip_suffix(b"[DONE]") else { return false };
        let rest = rest.strip_suffix(b" ").unwrap_or(rest);
        match rest.strip_suffix(b"data:") {
            Some([]) => !self.cut,
            Some([.., before]) => matches!(before, b'\n' | b'\r'),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(chunks: &[&str]) -> Tail {
        let mut tail = Tail::default();
        chunks.iter().for_each(|chunk| tail.push(chunk.as_bytes()));
        tail
    }

    #[test]
    fn the_tail_is_the_same_however_the_bytes_are_cut() {
        let text = "data: {\"a\":\"0123456789012345678901234567890123456789\"}\n\ndata: [DONE]\n\n";
        for a in 0..=text.len() {
            for b in a..=text.len() {
                let tail = tail(&[&text[..a], &text[a..b], &text[b..]]);
                assert_eq!(tail.get(), &text.as_bytes()[text.len() - Tail::LEN..]);
                assert!(tail.is_done() && tail.is_between_events() && tail.cut);
            }
        }
    }

    #[test]
    fn event_ends_are_known_with_every_line_break() {
        for ended in ["", "data: x\n\n", "data: x\r\n\r\n", "data: x\r\r", "data: x\n\r\n"] {
            assert!(tail(&[ended]).is_between_events(), "{ended:?}");
        }
        for open in ["d", "data: x", "data: x\n", "data: x\r\n", "data: x\r", ": comment\n"] {
            assert!(!tail(&[open]).is_between_events(), "{open:?}");
        }
    }

    #[test]
    fn the_end_mark_is_a_line_of_its_own() {
        for done in ["data: [DONE]", "data:[DONE]\n\n", "data: x\n\ndata: [DONE]\r\n\r\n"] {
            assert!(tail(&[done]).is_done(), "{done:?}");
        }
        for not in [
            "data: {\"x\":\"data: [DONE]\"}\n\n",
            "data: say data: [DONE]\n\n",
            "data: [DON",
            "xdata: [DONE]\n\n",
            "a long line of text before that ends with data: [DONE]",
        ] {
            assert!(!tail(&[not]).is_done(), "{not:?}");
        }
    }
}
