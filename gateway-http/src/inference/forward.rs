use bytes::Bytes;
use gateway_core::{BoxError, Claim, Dispatch, Dispatched, ModelId, Permit, RequestBody, Requirements};
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use http::request::Parts;
use http::{Method, Response, StatusCode, Uri, Version};
use http_body::Body;
use tokio::time::Instant;

use super::fields::named_model;
use super::{gather, headers};
use crate::auth::Identity;
use crate::body::GatewayBody;
use crate::error::ApiError;
use crate::gateway::Shared;
use crate::request_log::Record;
use crate::respond::{BACKEND_USED, MODEL_USED, ROUTER_REASON};
use crate::route::Inference;

/// Brings a request to a runner and its answer back.
pub(crate) async fn forward<B>(
    shared: &Shared,
    api: Inference,
    request: Parts,
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
    let body = gather(body, &request.headers, shared.limits).await?;
    let arrived = Instant::now();
    let named = named_model(&body)?;
    let (model, series) = {
        let fleet = shared.dispatcher.registry().fleet();
        let known = fleet.known_model(&named.name);
        (known.cloned(), shared.metrics.inference.series(known))
    };
    let model = match model {
        Some(known) => known,
        None => ModelId::new(&named.name).map_err(|why| ApiError::bad_param("model", format!("{why}.")))?,
    };
    series.count(api);
    record.model = Some(model.clone());

    let requirements = Requirements::model(model);
    let permit = match &shared.admission {
        Some(admission) => {
            admission.admit(identity, &requirements, record.id()).get().await.map_err(ApiError::refused)?
        }
        None => Permit::free(),
    };
    let at = named.at;
    let body = RequestBody::from(body).with_model_at(at);
    let request = to_runner(request, body, record);
    let claim = Claim::default();
    let call = Dispatch { id: record.id().clone(), request, requirements, claim, permit };
    let dispatched = shared.dispatcher.dispatch(call).await.map_err(|error| ApiError::dispatch(&error))?;

    let timings = &shared.metrics.inference;
    timings.first_byte.observe(dispatched.first_byte - record.started());
    // With several tries the time is mostly that of the runners that failed.
    if dispatched.tries == 1 {
        timings.overhead.observe(dispatched.sent - arrived);
    }
    record.runner = Some(dispatched.runner.clone());
    record.tries = dispatched.tries;
    let model = series.header().or_else(|| {
        let model = record.model.as_ref()?;
        HeaderValue::from_bytes(model.as_str().as_bytes()).ok()
    });
    Ok(to_client(shared, dispatched, model))
}

fn to_runner(request: Parts, body: RequestBody, record: &Record) -> http::Request<RequestBody> {
    let Parts { uri, mut headers, .. } = request;
    headers::for_runner(&mut headers, record.id());
    let mut out = http::Request::new(body);
    *out.method_mut() = Method::POST;
    // Scheme and authority are the link's affair. The host's extensions stay here, too.
    *out.uri_mut() = uri.into_parts().path_and_query.map_or_else(Uri::default, Uri::from);
    *out.headers_mut() = headers;
    out
}

fn to_client(shared: &Shared, dispatched: Dispatched, model: Option<HeaderValue>) -> Response<GatewayBody> {
    let Dispatched { response, runner, tries, .. } = dispatched;
    let (mut head, body) = response.into_parts();
    // How the runner was spoken to says nothing about how the client is.
    head.version = Version::HTTP_11;
    head.extensions.clear();
    // Every link does this; one of a stranger may have forgotten.
    headers::without_hop_by_hop(&mut head.headers);
    let reason = if tries > 1 { &shared.reason_retried } else { &shared.reason };
    head.headers.insert(BACKEND_USED, runner.id_header().clone());
    head.headers.insert(ROUTER_REASON, reason.clone());
    if let Some(model) = model {
        head.headers.insert(MODEL_USED, model);
    }
    if matches!(head.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        // Every runner was busy. If the last one did not say for how long, a moment is a fair guess.
        head.headers.entry(RETRY_AFTER).or_insert(HeaderValue::from_static("1"));
    }
    let body = if is_event_stream(&head.headers) {
        head.headers.remove(CONTENT_LENGTH);
        let headers = &mut head.headers;
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
        // Proxies of the nginx family gather answers unless they are told not to.
        headers.entry(ACCEL_BUFFERING).or_insert(HeaderValue::from_static("no"));
        GatewayBody::sse(body)
    } else {
        GatewayBody::answer(body)
    };
    Response::from_parts(head, body)
}

const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

fn is_event_stream(headers: &HeaderMap) -> bool {
    const TYPE: &[u8] = b"text/event-stream";
    let content_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
    content_type.split_at_checked(TYPE.len()).is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(TYPE) && matches!(rest.first(), None | Some(b';' | b' '))
    })
}
