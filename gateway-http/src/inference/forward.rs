use std::time::Duration;

use bytes::Bytes;
use gateway_core::{BoxError, Dispatch, DispatchError, Dispatched, Permit, RequestBody, Terms};
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    RETRY_AFTER,
};
use http::request::Parts;
use http::{Method, Response, StatusCode, Uri, Version};
use http_body::Body;
use tokio::time::{Instant, timeout};

use super::awaited::Dispatching;
use super::{Asked, Awaited, gather};
use crate::auth::Identity;
use crate::body::GatewayBody;
use crate::error::ApiError;
use crate::gateway::Shared;
use crate::headers;
use crate::request_log::{Record, Served};
use crate::respond::{BACKEND_USED, MODEL_USED, ROUTER_REASON};
use crate::route::Inference;

/// Brings a request to a runner and its answer back.
pub(crate) async fn forward<B>(
    shared: &Shared,
    api: Inference,
    request: &mut Parts,
    body: B,
    identity: &Identity,
    record: &mut Record,
) -> Result<Response<GatewayBody>, Box<ApiError>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    // The dispatcher would say so, too, but the body need not be read for it.
    if shared.dispatcher.is_closed() {
        return Err(ApiError::draining());
    }
    let arrived;
    // In a block, so that nothing of what was read stays in the future's state while the runner works. In a box, because its
    // state is most of all there is, and would be moved from hand to hand with what it stands in.
    let dispatching = {
        let body = gather(body, &request.headers, shared.limits).await?;
        record.received(body.len());
        arrived = Instant::now();
        let (call, keepalive) = ask(shared, api, request, body, identity, record).await?;
        if let Some(every) = keepalive {
            return Box::pin(kept_alive(shared, call, every, arrived, record)).await;
        }
        Box::pin(shared.dispatcher.dispatch(call))
    };
    served(shared, dispatching.await, arrived, record)
}

/// What is asked for, once the client may ask for it, and how often its stream is to show that it is alive.
async fn ask(
    shared: &Shared,
    api: Inference,
    request: &mut Parts,
    body: Bytes,
    identity: &Identity,
    record: &mut Record,
) -> Result<(Dispatch, Option<Duration>), Box<ApiError>> {
    let mut asked = Asked::read(shared, api, &request.headers, &body, identity)?;
    asked.series.count(api);
    record.model.clone_from(&asked.requirements.model);
    let permit = match &shared.admission {
        Some(admission) => {
            let admitted = admission.admit(identity, &asked.requirements, record.id());
            admitted.get().await.map_err(ApiError::refused)?
        }
        None => Permit::free(),
    };
    asked.hash_prompt(shared, identity);
    let keepalive = shared.keepalive.filter(|_| asked.streams() && api != Inference::Embedding);
    let claim = asked.claim(shared, identity);
    let (at, requirements) = (asked.model_at(), asked.requirements);
    let body = RequestBody::from(body).with_model_at(at);
    let request = to_runner(request, body, record);
    let terms = Terms::default();
    Ok((Dispatch { id: record.id().clone(), request, requirements, claim, permit, terms }, keepalive))
}

/// A stream that begins after this time, with or without its runner.
async fn kept_alive(
    shared: &Shared,
    call: Dispatch,
    every: Duration,
    arrived: Instant,
    record: &mut Record,
) -> Result<Response<GatewayBody>, Box<ApiError>> {
    let dispatcher = shared.dispatcher.clone();
    let mut dispatching: Dispatching = Box::pin(async move { dispatcher.dispatch(call).await });
    match timeout(every, &mut dispatching).await {
        Ok(done) => served(shared, done, arrived, record),
        Err(_) => Ok(begin(Awaited::new(dispatching, every, arrived))),
    }
}

/// A runner's answer, or why there is none.
fn served(
    shared: &Shared,
    done: Result<Dispatched, DispatchError>,
    arrived: Instant,
    record: &mut Record,
) -> Result<Response<GatewayBody>, Box<ApiError>> {
    let dispatched = done.map_err(|error| ApiError::dispatch(&error))?;
    record.served(Served::by(&dispatched), arrived);
    let model = dispatched.model.as_ref().and_then(|model| shared.metrics.inference.header(model));
    Ok(to_client(shared, dispatched, model))
}

/// The head of an event stream whose runner is not known yet.
fn begin(awaited: Awaited) -> Response<GatewayBody> {
    let mut response = Response::new(GatewayBody::awaited(awaited));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    unbuffered(response.headers_mut());
    response
}

/// Nobody on the way is to keep an event stream back.
fn unbuffered(headers: &mut HeaderMap) {
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
    // Proxies of the nginx family gather answers unless they are told not to.
    headers.entry(ACCEL_BUFFERING).or_insert(HeaderValue::from_static("no"));
}

/// Takes the head's headers and path along.
fn to_runner(request: &mut Parts, body: RequestBody, record: &Record) -> http::Request<RequestBody> {
    let (uri, mut headers) = (std::mem::take(&mut request.uri), std::mem::take(&mut request.headers));
    headers::for_runner(&mut headers, record.id());
    let mut out = http::Request::new(body);
    *out.method_mut() = Method::POST;
    // Scheme and authority are the link's affair. The host's extensions stay here, too.
    *out.uri_mut() = uri.into_parts().path_and_query.map_or_else(Uri::default, Uri::from);
    *out.headers_mut() = headers;
    out
}

fn to_client(shared: &Shared, dispatched: Dispatched, model: Option<HeaderValue>) -> Response<GatewayBody> {
    let reason = shared.reasons.header(&dispatched);
    let Dispatched { response, runner, .. } = dispatched;
    let (mut head, body) = response.into_parts();
    // How the runner was spoken to says nothing about how the client is.
    head.version = Version::HTTP_11;
    head.extensions.clear();
    // Every link does this; one of a stranger may have forgotten.
    headers::without_hop_by_hop(&mut head.headers);
    head.headers.insert(BACKEND_USED, runner.id_header().clone());
    head.headers.insert(ROUTER_REASON, reason);
    if let Some(model) = model {
        head.headers.insert(MODEL_USED, model);
    }
    if matches!(head.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        // Every runner was busy. If the last one did not say for how long, a moment is a fair guess.
        head.headers.entry(RETRY_AFTER).or_insert(HeaderValue::from_static("1"));
    }
    let is_stream = is_event_stream(&head.headers);
    if is_stream {
        unbuffered(&mut head.headers);
    }
    // What is compressed has no place where a line of ours would fit in.
    let body = if is_stream && !head.headers.contains_key(CONTENT_ENCODING) {
        head.headers.remove(CONTENT_LENGTH);
        GatewayBody::sse(body)
    } else {
        GatewayBody::answer(body)
    };
    Response::from_parts(head, body)
}

const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    const TYPE: &[u8] = b"text/event-stream";
    let content_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
    content_type.split_at_checked(TYPE.len()).is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(TYPE) && matches!(rest.first(), None | Some(b';' | b' '))
    })
}
