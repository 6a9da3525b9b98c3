//! One answer: the gateway's event stream on the way to becoming messages of the contract.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use gateway_core::BoxError;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Request, StatusCode};
use http_body::Body;
use http_body_util::Full;
use tokio::time::Instant;
use tonic::Status;

use super::inner::{Inner, InnerBody, LONGEST_ERROR, read_whole};
use super::piece::Piece;
use super::sse::{Events, LONGEST_EVENT};
use super::tally::Counted;
use crate::contract::StreamPredictResponse;
use crate::status::to_grpc::{Failure, REQUEST_ID};

/// An answer that has begun. Dropping it cancels the request on the runner.
pub(super) struct Answer {
    body: InnerBody,
    events: Events,
    trace_id: String,
    index: u32,
    asked: Instant,
    tokens: Option<u64>,
    /// Whether the runner has said that this was all.
    is_whole: bool,
    /// Whether the last message has gone out.
    is_told: bool,
    counted: Counted,
}

/// Asks the gateway, and waits until it has begun to answer.
///
/// # Errors
/// What the gateway answered is no stream.
pub(super) async fn ask(
    inner: Inner,
    request: Request<Full<Bytes>>,
    trace_id: String,
    counted: Counted,
) -> Result<Box<Answer>, Status> {
    let asked = Instant::now();
    let begun = begin(inner, request).await;
    if begun.is_err() {
        counted.failed();
    }
    let (head, body) = begun?;
    let given = head.get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    let trace_id = if trace_id.is_empty() { given.unwrap_or_default().to_owned() } else { trace_id };
    Ok(Box::new(Answer {
        body,
        events: Events::default(),
        trace_id,
        index: 0,
        asked,
        tokens: None,
        is_whole: false,
        is_told: false,
        counted,
    }))
}

async fn begin(inner: Inner, request: Request<Full<Bytes>>) -> Result<(HeaderMap, InnerBody), Status> {
    let response = inner.call(request).await.map_err(|error| broke_off(&error))?;
    let (head, body) = response.into_parts();
    if head.status != StatusCode::OK {
        let words = read_whole(body, LONGEST_ERROR).await;
        return Err(Failure::of_answer(head.status, &head.headers, &words).into_status());
    }
    let content_type = head.headers.get(CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
    let is_stream = content_type.get(..EVENTS.len()).is_some_and(|start| start.eq_ignore_ascii_case(EVENTS));
    if !is_stream {
        return Err(Status::internal(
            "The runner was asked for an event stream and answered with something else.",
        ));
    }
    Ok((head.headers, body))
}

const EVENTS: &[u8] = b"text/event-stream";

fn broke_off(error: &BoxError) -> Status {
    Status::unavailable(format!("The answer broke off: {error}"))
}

impl Answer {
    /// The next message; `None` once the last one has gone out and the gateway's answer has ended, too.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<StreamPredictResponse, Status>>> {
        let polled = self.poll_message(cx);
        if let Poll::Ready(Some(Err(_))) = &polled {
            self.counted.failed();
        }
        polled
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<StreamPredictResponse, Status>>> {
        loop {
            if !self.is_told {
                match self.read() {
                    Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                    Ok(None) => {}
                    Err(status) => return Poll::Ready(Some(Err(status))),
                }
            }
            // After the last message, too: whoever counts answers sees that this one was read to its end.
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) if !self.is_told => {
                    if let Ok(data) = frame.into_data() {
                        self.events.push(data);
                    }
                }
                Some(Ok(_)) => {}
                None | Some(Err(_)) if self.is_told => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(broke_off(&error)))),
                None if self.is_whole => {
                    // Not asked for anything more: what has ended stays so.
                    self.body = InnerBody::default();
                    return Poll::Ready(Some(Ok(self.last())));
                }
                None => {
                    let cut = "The runner's answer ended without saying that it was whole.";
                    return Poll::Ready(Some(Err(Status::unavailable(cut))));
                }
            }
        }
    }

    /// What the bytes that are here come to.
    fn read(&mut self) -> Result<Option<StreamPredictResponse>, Status> {
        while let Some(data) = self.events.next() {
            let data = data.map_err(|_| {
                Status::internal(format!(
                    "The runner's answer has an event of more than {LONGEST_EVENT} bytes."
                ))
            })?;
            match Piece::read(data)? {
                Piece::Text(piece) => {
                    self.is_whole |= piece.is_last;
                    self.tokens = piece.tokens.or(self.tokens);
                    if !piece.text.is_empty() {
                        return Ok(Some(self.message(piece.text)));
                    }
                }
                Piece::Done => return Ok(Some(self.last())),
            }
        }
        Ok(None)
    }

    fn message(&mut self, chunk: String) -> StreamPredictResponse {
        let index = self.index;
        self.index += 1;
        let ttft_ms = if index == 0 { self.asked.elapsed().as_secs_f32() * 1000.0 } else { 0.0 };
        StreamPredictResponse { trace_id: self.trace_id.clone(), chunk, index, ttft_ms, ..Default::default() }
    }

    fn last(&mut self) -> StreamPredictResponse {
        self.is_told = true;
        self.counted.succeeded();
        let seconds = self.asked.elapsed().as_secs_f32();
        let rate = self.tokens.map(|tokens| tokens as f32 / seconds).filter(|rate| rate.is_finite());
        StreamPredictResponse {
            trace_id: std::mem::take(&mut self.trace_id),
            end_of_stream: true,
            index: self.index,
            tokens_per_sec: rate.unwrap_or_default(),
            ..Default::default()
        }
    }
}
