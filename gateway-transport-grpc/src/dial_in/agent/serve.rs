//! One request on the runner's side.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use gateway_core::{BoxError, LinkBody, LinkError, LinkRequest, RequestBody, RunnerLink};
use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::BodyExt;

use crate::dial_in::mux::{BodyHandle, Handle, Part, RunnerSide};
use crate::dial_in::wire::response_to;
use crate::proto::runner_gateway::{ResetReason, RunnerFrame, runner_frame};

/// A request's body up to this size is gathered before the engine is asked: the gateway sends it in one go, and
/// bytes that are held can be sent again when a pooled connection to the engine turns out dead.
const GATHERED: u64 = 1024 * 1024;

/// A request whose body is still to come.
pub(super) struct Coming {
    pub(super) head: http::request::Parts,
    /// How long the body is, if the gateway knows.
    pub(super) len: Option<u64>,
    /// There is no body.
    pub(super) end: bool,
}

/// Has `engine` carry a request. When the gateway resets the stream, the engine's future or body is dropped, which
/// cancels the work.
pub(super) async fn serve(stream: Handle<RunnerSide>, coming: Coming, engine: Arc<dyn RunnerLink>) {
    let asked = async {
        let request = request(&stream, coming).await?;
        engine.send(request).await
    };
    let answered = tokio::select! {
        biased;
        _ = poll_fn(|cx| stream.poll_broken(cx)) => return,
        answered = asked => answered,
    };
    match answered {
        Ok(response) => answer(stream, response).await,
        Err(error) => {
            tracing::debug!(%error, "the engine could not answer");
            stream.reset(if error.is_not_sent() {
                ResetReason::EngineUnreachable
            } else {
                ResetReason::EngineLost
            });
        }
    }
}

async fn request(stream: &Handle<RunnerSide>, coming: Coming) -> Result<LinkRequest, LinkError> {
    let Coming { head, len, end } = coming;
    let body = ComingBody { stream: stream.body(), done: end };
    let body = match len {
        _ if end => RequestBody::empty(),
        Some(len) if len <= GATHERED => {
            let gathered = http_body_util::Limited::new(body, GATHERED as usize).collect().await;
            RequestBody::from(gathered.map_err(LinkError::request_body)?.to_bytes())
        }
        _ => RequestBody::stream(body),
    };
    Ok(LinkRequest::from_parts(head, body))
}

async fn answer(stream: Handle<RunnerSide>, response: gateway_core::LinkResponse) {
    let (mut head, mut body) = response.into_parts();
    let end = body.is_end_stream();
    match response_to(&mut head, stream.id(), end) {
        Ok(head) => {
            stream.answer(RunnerFrame { frame: Some(runner_frame::Frame::ResponseHead(head)) }, end);
        }
        Err(error) => {
            tracing::warn!(%error, "an engine's answer cannot be passed on");
            return stream.reset(ResetReason::EngineLost);
        }
    }
    if end {
        return;
    }
    let mut waiting = Bytes::new();
    match poll_fn(|cx| pump(&stream, &mut body, &mut waiting, cx)).await {
        Ok(Some(trailers)) => stream.send_end(trailers),
        Ok(None) => {}
        Err(error) => {
            tracing::debug!(%error, "an engine's answer broke off");
            stream.reset(ResetReason::EngineLost);
        }
    }
}

/// Moves a body into the stream as fast as the gateway takes it. Ready with the trailers at its end, without them
/// when nobody wants the rest.
fn pump(
    stream: &Handle<RunnerSide>,
    body: &mut LinkBody,
    waiting: &mut Bytes,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<HeaderMap>, LinkError>> {
    if stream.poll_broken(cx).is_ready() {
        return Poll::Ready(Ok(None));
    }
    loop {
        if !waiting.is_empty() {
            ready!(stream.poll_send(cx, waiting));
            if !waiting.is_empty() {
                return Poll::Ready(Ok(None));
            }
        }
        match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => *waiting = data,
                Err(frame) => return Poll::Ready(Ok(Some(frame.into_trailers().unwrap_or_default()))),
            },
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => return Poll::Ready(Ok(Some(HeaderMap::new()))),
        }
    }
}

/// A request's body as it comes.
struct ComingBody {
    stream: BodyHandle<RunnerSide>,
    done: bool,
}

impl Body for ComingBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let part = ready!(self.stream.poll_part(cx));
        self.done = !matches!(part, Some(Ok(Part::Data(_))));
        Poll::Ready(match part {
            Some(Ok(Part::Data(data))) => Some(Ok(Frame::data(data))),
            Some(Ok(Part::Trailers(trailers))) => Some(Ok(Frame::trailers(trailers))),
            Some(Err(_)) => Some(Err("the gateway gave the request up".into())),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}
