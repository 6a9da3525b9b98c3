//! Takes one kind of event out of a stream of events.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use gateway_core::{LinkBody, LinkError};
use http_body::{Body, Frame};

/// The first line of the events that are dropped, in both ways to write it.
const FORMS: [&[u8]; 2] = [b"event: simple_ai_metrics", b"event:simple_ai_metrics"];

/// A stream of events without those of the runner's own. Nothing is held back but the beginning of a line
/// that may become theirs, so other events pass as they come, in the same chunks.
pub(super) struct WithoutMetrics {
    body: LinkBody,
    filter: Filter,
    ready: VecDeque<Bytes>,
    ended: bool,
}

impl WithoutMetrics {
    pub(super) fn new(body: LinkBody) -> Self {
        Self { body, filter: Filter::default(), ready: VecDeque::new(), ended: false }
    }
}

impl Body for WithoutMetrics {
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        let this = &mut *self;
        loop {
            if let Some(piece) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.filter.pass(data, &mut this.ready),
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    this.ended = true;
                    this.ready.extend(this.filter.finish());
                }
            }
        }
    }
}

/// Where in the stream we are.
#[derive(Default)]
enum Place {
    /// In the first line of an event, which has so far been held back.
    #[default]
    First,
    /// In a comment before the first line.
    Comment,
    /// In an event that passes.
    Passing { line_is_empty: bool },
    /// In an event that is dropped.
    Dropping { line_is_empty: bool },
}

#[derive(Default)]
struct Filter {
    place: Place,
    held: Vec<u8>,
}

enum Verdict {
    Theirs,
    Perhaps,
    Other,
}

fn verdict(line: &[u8]) -> Verdict {
    for form in FORMS {
        match line.strip_prefix(form) {
            Some(b"\n" | b"\r\n") => return Verdict::Theirs,
            Some(b"" | b"\r") => return Verdict::Perhaps,
            None if form.starts_with(line) => return Verdict::Perhaps,
            _ => {}
        }
    }
    Verdict::Other
}

impl Filter {
    /// Adds what passes of `chunk` to `out`, after what was held back and passes now.
    fn pass(&mut self, chunk: Bytes, out: &mut VecDeque<Bytes>) {
        // Where the piece begins that will pass; everything before it is done with.
        let mut from = 0;
        let mut at = 0;
        // How much of what is held back stands in this chunk.
        let mut held_here = 0;
        while at < chunk.len() {
            let byte = chunk[at];
            at += 1;
            match &mut self.place {
                Place::First => {
                    self.held.push(byte);
                    held_here += 1;
                    match verdict(&self.held) {
                        Verdict::Perhaps => {}
                        Verdict::Theirs => {
                            keep(&chunk, from..at - held_here, out);
                            from = at;
                            self.held.clear();
                            self.place = Place::Dropping { line_is_empty: true };
                        }
                        Verdict::Other => {
                            let earlier = self.held.len() - held_here;
                            if earlier > 0 {
                                keep(&chunk, from..at - held_here, out);
                                from = at - held_here;
                                out.push_back(Bytes::copy_from_slice(&self.held[..earlier]));
                            }
                            self.place = match (self.held.as_slice(), byte) {
                                (b":", _) => Place::Comment,
                                // An empty line, or an `event` without more: the next line is a first one.
                                ([b'\n'] | [b'\r'], _) => Place::First,
                                (_, b'\n') => Place::Passing { line_is_empty: true },
                                _ => Place::Passing { line_is_empty: false },
                            };
                            self.held.clear();
                            held_here = 0;
                        }
                    }
                    if !matches!(self.place, Place::First) {
                        held_here = 0;
                    }
                }
                Place::Comment => {
                    if byte == b'\n' {
                        self.place = Place::First;
                    }
                }
                Place::Passing { line_is_empty } => match byte {
                    b'\n' if *line_is_empty => self.place = Place::First,
                    b'\n' => *line_is_empty = true,
                    b'\r' => {}
                    _ => {
                        *line_is_empty = false;
                        // Nothing happens before the line's end.
                        let rest = &chunk[at..];
                        at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                    }
                },
                Place::Dropping { line_is_empty } => {
                    match byte {
                        b'\n' if *line_is_empty => self.place = Place::First,
                        b'\n' => *line_is_empty = true,
                        b'\r' => {}
                        _ => *line_is_empty = false,
                    }
                    from = at;
                }
            }
        }
        keep(&chunk, from..chunk.len() - held_here, out);
    }

    /// What is still held back at the end of the stream: it came to nothing.
    fn finish(&mut self) -> Option<Bytes> {
        let held = std::mem::take(&mut self.held);
        (!held.is_empty()).then(|| held.into())
    }
}

fn keep(chunk: &Bytes, range: std::ops::Range<usize>, out: &mut VecDeque<Bytes>) {
    if !range.is_empty() {
        out.push_back(chunk.slice(range));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filtered(pieces: &[&[u8]]) -> (String, usize) {
        let mut filter = Filter::default();
        let mut out = VecDeque::new();
        for piece in pieces {
            filter.pass(Bytes::copy_from_slice(piece), &mut out);
        }
        out.extend(filter.finish());
        let bytes: Vec<u8> = out.iter().flatten().copied().collect();
        (String::from_utf8(bytes).unwrap(), out.len())
    }

    const METRICS: &str = "event: simple_ai_metrics\ndata: {\"tokens\":1}\n\n";

    #[test]
    fn their_events_go_and_others_stay() {
        let text = format!("data: a\n\n{METRICS}event: other\ndata: b\n\ndata: [DONE]\n\n{METRICS}");
        let rest = "data: a\n\nevent: other\ndata: b\n\ndata: [DONE]\n\n";
        assert_eq!(filtered(&[text.as_bytes()]).0, rest);
        let crlf = text.replace('\n', "\r\n");
        assert_eq!(filtered(&[crlf.as_bytes()]).0, rest.replace('\n', "\r\n"));
        let after_comment = format!(": ping\n{METRICS}data: a\n\n");
        assert_eq!(filtered(&[after_comment.as_bytes()]).0, ": ping\ndata: a\n\n");
    }

    #[test]
    fn what_only_looks_like_it_stays() {
        for same in [
            "event: simple_ai_metrics_v2\ndata: a\n\n",
            "data: event: simple_ai_metrics\n\n",
            "data: x\ndata: event: simple_ai_metrics\n\n",
            "event: simple_ai_metrics",
            "event: simple",
            "\n\ndata: a\n\n",
            ":\n",
        ] {
            assert_eq!(filtered(&[same.as_bytes()]).0, same);
        }
    }

    #[test]
    fn other_chunks_pass_whole() {
        let (text, pieces) = filtered(&[b"data: one\n\n", b"data: two\n\ndata: th", b"ree\n\n"]);
        assert_eq!((text.as_str(), pieces), ("data: one\n\ndata: two\n\ndata: three\n\n", 3));
    }

    proptest! {
        #[test]
        fn borders_of_chunks_mean_nothing(
            events in prop::collection::vec(prop::sample::select(vec![
                METRICS, "data: a\n\n", "event: simple_ai\ndata: b\n\n", ": c\n\n", "\n", "event:simple_ai_metrics\r\n\r\n",
            ]), 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let text = events.concat();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
            let expected: String =
                events.iter().filter(|event| !event.contains("simple_ai_metrics")).copied().collect();
            prop_assert_eq!(filtered(&pieces).0, expected);
        }
    }
}
