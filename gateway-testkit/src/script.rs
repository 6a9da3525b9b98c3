//! What a mock runner does with one request.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::sync::mpsc;

/// What can go wrong on a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It cannot be reached: nothing is sent. In process only; over a network, point the link nowhere.
    Unreachable,
    /// It takes the request and never answers.
    NoAnswer,
    /// It closes the connection before the head of the answer.
    CutBeforeHead,
    /// It sends the head and closes the connection before the first byte of the body.
    CutBeforeFirstByte,
    /// It closes the connection after so many chunks.
    CutAfter(usize),
    /// It stands still after so many chunks.
    StallAfter(usize),
}

/// One answer.
#[derive(Debug)]
pub struct Script {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) delay: Duration,
    pub(crate) interval: Duration,
    pub(crate) fault: Option<Fault>,
    pub(crate) chunks: Chunks,
}

#[derive(Debug)]
pub(crate) enum Chunks {
    Fixed(std::vec::IntoIter<Bytes>),
    /// One body with a known length.
    Whole(Bytes),
    Sent(mpsc::Receiver<Step>),
}

#[derive(Debug)]
pub(crate) enum Step {
    Chunk(Bytes),
    Cut,
}

/// Feeds the chunks of a [`Script::fed`] answer one by one. Dropping it ends the answer.
#[derive(Debug, Clone)]
pub struct ChunkSender(mpsc::Sender<Step>);

impl ChunkSender {
    /// Sends a chunk; waits while the answer's reader is behind. `false` if the answer was cancelled.
    pub async fn send(&self, chunk: impl Into<Bytes>) -> bool {
        self.0.send(Step::Chunk(chunk.into())).await.is_ok()
    }

    /// Breaks the connection off.
    pub async fn cut(self) {
        let _ = self.0.send(Step::Cut).await;
    }
}

impl Script {
    fn new(chunks: Chunks) -> Self {
        Self {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            delay: Duration::ZERO,
            interval: Duration::ZERO,
            fault: None,
            chunks,
        }
    }

    /// 200 with this body, in one piece with a length.
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self::new(Chunks::Whole(body.into()))
    }

    /// A status with a body.
    pub fn status(status: u16, body: impl Into<Bytes>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, ..Self::text(body) }
    }

    /// 200 with these chunks, one write each.
    pub fn chunks<C: Into<Bytes>>(chunks: impl IntoIterator<Item = C>) -> Self {
        let chunks: Vec<Bytes> = chunks.into_iter().map(Into::into).collect();
        Self::new(Chunks::Fixed(chunks.into_iter()))
    }

    /// An SSE answer: each event is its own chunk, `[DONE]` is added.
    pub fn sse<C: AsRef<str>>(events: impl IntoIterator<Item = C>) -> Self {
        let mut chunks: Vec<Bytes> =
            events.into_iter().map(|event| format!("data: {}\n\n", event.as_ref()).into()).collect();
        chunks.push(Bytes::from_static(b"data: [DONE]\n\n"));
        Self::chunks(chunks).header(header::CONTENT_TYPE, "text/event-stream")
    }

    /// 200 with chunks that the test feeds one by one. At most one chunk waits to be taken.
    pub fn fed() -> (ChunkSender, Self) {
        let (sender, receiver) = mpsc::channel(1);
        (ChunkSender(sender), Self::new(Chunks::Sent(receiver)))
    }

    /// Adds a header. One that is not valid is left out.
    pub fn header(mut self, name: header::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }

    /// Waits before the head.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Waits before every chunk.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Goes wrong.
    pub fn fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }
}
