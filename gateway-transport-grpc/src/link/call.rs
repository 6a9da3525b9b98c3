//! One gRPC call: a request that is here as a whole, and messages that come back.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use gateway_core::{BoxError, LinkError};
use h2::RecvStream;
use h2::client::ResponseFuture;
use http::{HeaderMap, StatusCode, header};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::connection::Place;
use super::frames::{FrameError, Frames, PREFIX};
use crate::contract::{Contract, StreamPredictRequest};
use crate::status::WorkerStatus;

/// What comes of a call.
#[derive(Debug)]
pub(crate) enum Event {
    Message(Bytes),
    /// The last.
    End(End),
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) status: WorkerStatus,
    /// What the worker had to say besides.
    pub(crate) trailers: HeaderMap,
}

/// Why nothing more comes of a call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The worker saw nothing of it.
    #[error("{0}")]
    NotSent(h2::Error),
    #[error("{0}")]
    Lost(h2::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("a message cannot be read: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("it did not answer in gRPC (HTTP status {0})")]
    NotGrpc(StatusCode),
    #[error("the call ended without a status")]
    NoStatus,
}

impl From<CallError> for LinkError {
    fn from(error: CallError) -> Self {
        let because = |error: LinkError, source: BoxError| error.because(source);
        match error {
            CallError::NotSent(source) => {
                because(Self::not_sent("the worker takes no new calls"), source.into())
            }
            CallError::Lost(source) => because(Self::lost("the call broke off"), source.into()),
            other => because(Self::lost("the worker's answer makes no sense"), Box::new(other)),
        }
    }
}

/// A call under way. Dropping it resets its stream, which reaches the worker at once.
pub(crate) struct Call {
    stage: Stage,
    frames: Frames,
    /// Dropped last: the stream's place is free when the stream is.
    place: Place,
}

enum Stage {
    Head(ResponseFuture),
    Messages(RecvStream),
    Trailers(RecvStream),
    Over,
}

impl Call {
    pub(super) fn new(response: ResponseFuture, message_limit: usize, place: Place) -> Self {
        Self { stage: Stage::Head(response), frames: Frames::new(message_limit), place }
    }

    /// The next message, or the end. Not to be polled after that or an error.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, CallError>> {
        loop {
            if let Some(message) = self.frames.next()? {
                return Poll::Ready(Ok(Event::Message(message)));
            }
            match &mut self.stage {
                Stage::Head(response) => {
                    let (head, stream) =
                        ready!(Pin::new(response).poll(cx)).map_err(before_head)?.into_parts();
                    self.place.heard();
                    // A call without a message may end with its head.
                    if let Some(status) = WorkerStatus::read(&head.headers) {
                        self.stage = Stage::Over;
                        return Poll::Ready(Ok(Event::End(End { status, trailers: head.headers })));
                    }
                    check(&head)?;
                    self.stage = Stage::Messages(stream);
                }
                Stage::Messages(stream) => match ready!(stream.poll_data(cx)) {
                    Some(Ok(data)) => {
                        self.place.heard();
                        // Fails only for more than was received.
                        let _ = stream.flow_control().release_capacity(data.len());
                        self.frames.push(data);
                    }
                    Some(Err(error)) => return Poll::Ready(Err(CallError::Lost(error))),
                    None => {
                        let Stage::Messages(stream) = std::mem::replace(&mut self.stage, Stage::Over) else {
                            continue;
                        };
                        self.stage = Stage::Trailers(stream);
                    }
                },
                Stage::Trailers(stream) => {
                    let trailers = ready!(stream.poll_trailers(cx)).map_err(CallError::Lost)?;
                    self.stage = Stage::Over;
                    self.frames.end()?;
                    let trailers = trailers.ok_or(CallError::NoStatus)?;
                    let status = WorkerStatus::read(&trailers).ok_or(CallError::NoStatus)?;
                    return Poll::Ready(Ok(Event::End(End { status, trailers })));
                }
                Stage::Over => return Poll::Ready(Err(CallError::NoStatus)),
            }
        }
    }

    /// The only message of the answer. `Err` inside is the worker's own word.
    pub(crate) async fn single<M: Message + Default>(mut self) -> Result<Result<M, WorkerStatus>, CallError> {
        let mut answer = None;
        loop {
            match std::future::poll_fn(|cx| self.poll_next(cx)).await? {
                Event::Message(message) => answer = Some(message),
                Event::End(End { status, .. }) if !status.is_ok() => return Ok(Err(status)),
                Event::End(_) => {
                    let message = answer.ok_or(CallError::NoStatus)?;
                    return Ok(Ok(M::decode(message)?));
                }
            }
        }
    }
}

/// A message with what goes in front of it.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let mut bytes = begun(message.encoded_len(), 0);
    // Fails only for want of room, and a `BytesMut` grows.
    let _ = message.encode(&mut bytes);
    bytes.freeze()
}

/// What goes in front of a message that has so many bytes here and so many elsewhere, with room for the former.
fn begun(here: usize, elsewhere: usize) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(PREFIX + here);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(here + elsewhere).unwrap_or(u32::MAX));
    bytes
}

/// A prompt from this size on is sent as it is, behind the rest of its message; a shorter one is copied, because each
/// frame costs more than that.
const LONG_PROMPT: usize = 16 * 1024;

/// What asks for inference, in pieces that follow one another.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) head: Bytes,
    /// Empty if it stands in the head.
    pub(crate) prompt: Bytes,
}

impl Question {
    pub(crate) fn new<C: Contract>(mut request: StreamPredictRequest) -> Self {
        /// Of the prompt, in both dialects.
        const PROMPT: u32 = 2;
        if request.prompt.len() < LONG_PROMPT {
            return Self { head: framed(&C::PredictRequest::from(request)), prompt: Bytes::new() };
        }
        // The fields of a message may come in any order.
        let prompt = Bytes::from(std::mem::take(&mut request.prompt));
        let rest = C::PredictRequest::from(request);
        let field = key_len(PROMPT) + encoded_len_varint(prompt.len() as u64);
        let mut head = begun(rest.encoded_len() + field, prompt.len());
        let _ = rest.encode(&mut head);
        encode_key(PROMPT, WireType::LengthDelimited, &mut head);
        encode_varint(prompt.len() as u64, &mut head);
        Self { head: head.freeze(), prompt }
    }
}

/// The worker refused the stream, or went away without having looked at it: HTTP/2 promises in both cases
/// that nothing was done. Otherwise it may have seen the request.
fn before_head(error: h2::Error) -> CallError {
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    let unseen = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
    if refused || unseen { CallError::NotSent(error) } else { CallError::Lost(error) }
}

fn check(head: &http::response::Parts) -> Result<(), CallError> {
    let is_grpc = head.headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
        kind.as_bytes()
            .strip_prefix(b"application/grpc")
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    });
    if head.status == StatusCode::OK && is_grpc { Ok(()) } else { Err(CallError::NotGrpc(head.status)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{GenerationParameters, Packaged, Plain, StreamMetadata};

    fn request(prompt: usize) -> StreamPredictRequest {
        StreamPredictRequest {
            model_id: "m".to_owned(),
            prompt: "p".repeat(prompt),
            adapter: "a".to_owned(),
            priority: -1,
            generation: Some(GenerationParameters { max_new_tokens: 7, ..Default::default() }),
            metadata: Some(StreamMetadata { trace_id: "t".to_owned(), ..Default::default() }),
            worker_hint: "w".to_owned(),
        }
    }

    fn arrives<C: Contract>(prompt: usize) {
        let asked = request(prompt);
        let Question { head, prompt: rest } = Question::new::<C>(asked.clone());
        assert_eq!(rest.len(), if prompt < LONG_PROMPT { 0 } else { prompt });
        let mut frames = Frames::new(usize::MAX);
        frames.push([head, rest].concat().into());
        let message = frames.next().unwrap().expect("a whole message");
        assert!(frames.next().unwrap().is_none());
        let read = C::PredictRequest::decode(message).unwrap();
        assert_eq!(read.into(), asked, "{prompt}");
    }

    #[test]
    fn a_prompt_of_any_length_arrives() {
        for prompt in [0, 1, LONG_PROMPT - 1, LONG_PROMPT, 3 * LONG_PROMPT, 1 << 21] {
            arrives::<Packaged>(prompt);
            arrives::<Plain>(prompt);
        }
    }
}
