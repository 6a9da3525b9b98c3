//! The runner's side.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use gateway_core::{CancellationToken, LinkBody, LinkError, LinkRequest, RequestBody, RunnerLink};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::engine_body::EngineBody;
use super::{FAULT_HEADER, LOST, MAX_HEAD_BYTES, MAX_STREAMS, STREAM_WINDOW, UNREACHABLE};
use crate::socket::TunnelIo;

/// A request's body up to this size is gathered before the engine is asked: the gateway sends it in one
/// go, and bytes that are held can be sent again when a pooled connection to the engine turns out dead.
const GATHERED: u64 = 1024 * 1024;

/// Streams that were reset before they were looked at; a gateway whose clients leave in crowds makes many.
const PENDING_RESETS: usize = 16_384;

/// Serves the tunnel on a runner: every stream is a request that `engine` carries.
///
/// Ends when the byte stream does. When `stop` is cancelled, new streams are refused and those there are
/// finish first. A stream that the gateway resets drops the engine's future or body, which cancels the
/// work. Dropping this future cancels all streams.
///
/// Poll it beside the socket's driver: [`Driver::beside`](crate::socket::Driver::beside).
pub async fn serve(io: TunnelIo, engine: Arc<dyn RunnerLink>, max_streams: u32, stop: CancellationToken) {
    let streams = Streams::default();
    let connection = http2::Builder::new(Spawn(streams.0.clone()))
        .initial_stream_window_size(STREAM_WINDOW)
        // Streams hold back by themselves; see the module's page. The largest possible, because it also
        // decides how many small frames h2 puts up with.
        .initial_connection_window_size((1 << 31) - 1)
        .max_concurrent_streams(max_streams.clamp(1, MAX_STREAMS))
        .max_send_buf_size(STREAM_WINDOW as usize)
        .max_header_list_size(MAX_HEAD_BYTES)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        // Every cancelled request may count as one, over the whole life of the connection.
        .max_local_error_reset_streams(None)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service_fn(|request| answer(engine.clone(), request)));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "the tunnel broke");
    }
}

async fn answer(
    engine: Arc<dyn RunnerLink>,
    request: http::Request<Incoming>,
) -> Result<Response<EngineBody>, Infallible> {
    let sent = match link_request(request).await {
        Ok(request) => engine.send(request).await,
        Err(error) => Err(LinkError::request_body(error)),
    };
    Ok(match sent {
        Ok(answer) => {
            let mut answer = answer.map(EngineBody::new);
            for hop in [
                header::CONNECTION,
                header::TRANSFER_ENCODING,
                header::UPGRADE,
                header::TE,
                header::HeaderName::from_static("keep-alive"),
                header::HeaderName::from_static("proxy-connection"),
                FAULT_HEADER,
            ] {
                answer.headers_mut().remove(hop);
            }
            answer
        }
        Err(error) => fault(&error),
    })
}

async fn link_request(request: http::Request<Incoming>) -> Result<LinkRequest, hyper::Error> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.into_parts().path_and_query;
    head.uri = path.map(http::Uri::from).unwrap_or_default();
    head.version = http::Version::default();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.remove(header::HOST);
    head.extensions.clear();
    let body = match body.size_hint().exact() {
        Some(0) => RequestBody::empty(),
        Some(len) if len <= GATHERED => RequestBody::from(body.collect().await?.to_bytes()),
        _ => RequestBody::stream(body),
    };
    Ok(http::Request::from_parts(head, body))
}

/// The engine could not be asked. The gateway reads the header; the text is for people.
fn fault(error: &LinkError) -> Response<EngineBody> {
    tracing::debug!(%error, "the engine could not answer");
    let fault = if error.is_not_sent() { UNREACHABLE } else { LOST };
    let mut answer = Response::new(EngineBody::new(LinkBody::full(
        r#"{"error":{"type":"engine_unavailable","message":"The runner's engine did not answer."}}"#,
    )));
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = answer.headers_mut();
    headers.insert(FAULT_HEADER, HeaderValue::from_static(fault));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// The tasks of the streams, ended when this is dropped.
#[derive(Default)]
struct Streams(Arc<Mutex<JoinSet<()>>>);

impl Drop for Streams {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

#[derive(Clone)]
struct Spawn(Arc<Mutex<JoinSet<()>>>);

impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The set keeps what has ended until it is asked.
        while streams.try_join_next().is_some() {}
        streams.spawn(stream);
    }
}
