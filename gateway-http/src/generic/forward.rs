use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use gateway_core::{
    BoxError, Dispatch, DispatchError, DispatchErrorKind, Dispatched, Permit, RequestBody, Terms, UpgradeTo,
};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, RETRY_AFTER, UPGRADE};
use http::request::Parts;
use http::{Response, StatusCode, Uri, Version};
use http_body::Body;
use hyper::upgrade::OnUpgrade;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::asked::GenericAsked;
use super::table::Target;
use super::upgrade::{self, Changing};
use super::upload::{Fault, Upload};
use crate::auth::Identity;
use crate::body::GatewayBody;
use crate::error::ApiError;
use crate::gateway::Shared;
use crate::headers;
use crate::inference::{BodyLimits, gather};
use crate::request_log::{Record, Served};
use crate::respond::{BACKEND_USED, ROUTER_REASON};

/// Brings a request to a runner as it is, and the answer back as it is.
pub(crate) async fn forward<B>(
    shared: &Arc<Shared>,
    target: &Target,
    mut request: Parts,
    body: B,
    identity: &Identity,
    record: &mut Record,
) -> Result<Response<GatewayBody>, Box<ApiError>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    if shared.dispatcher.is_closed() {
        return Err(ApiError::draining());
    }
    let GenericAsked { requirements, claim } =
        GenericAsked::read(shared, target, &request.headers, identity)?;
    record.model.clone_from(&requirements.model);
    let protocol = upgrade::wanted(&request);
    if protocol.is_some() && !target.upgrades {
        return Err(ApiError::no_upgrades_here());
    }
    let permit = match &shared.admission {
        Some(admission) => {
            let admitted = admission.admit(identity, &requirements, record.id());
            admitted.get().await.map_err(ApiError::refused)?
        }
        None => Permit::free(),
    };
    let (body, changing, fault) = match &protocol {
        Some(_) => {
            let (changing, body) = Upgrading::begin(shared, &mut request)?;
            (body, Some(changing), None)
        }
        None => {
            let (body, fault) = read(shared, target, &request.headers, body, record).await?;
            (body, None, fault)
        }
    };
    // From here on nothing waits for the client.
    let arrived = Instant::now();
    let repeatable = target.repeatable.unwrap_or(request.method.is_idempotent());
    let terms = Terms { repeatable, verbatim: true, deadlines: Some(target.deadlines) };
    let mut request = to_runner(shared, target, request, body, record);
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(UpgradeTo(protocol));
    }
    let call = Dispatch { id: record.id().clone(), request, requirements, claim, permit, terms };
    let done = shared.dispatcher.dispatch(call).await;
    let dispatched = done.map_err(|error| failed(&error, fault.as_deref()))?;
    record.served(Served::by(&dispatched), arrived);
    to_client(shared, dispatched, changing)
}

/// A connection that is to change to another protocol, and its place among those that may.
struct Upgrading {
    changing: Changing,
    place: OwnedSemaphorePermit,
}

impl Upgrading {
    fn begin(shared: &Shared, request: &mut Parts) -> Result<(Self, RequestBody), Box<ApiError>> {
        let client = request.extensions.remove::<OnUpgrade>().ok_or_else(ApiError::host_cannot_upgrade)?;
        let place = shared.upgraded.places.clone().try_acquire_owned();
        let place = place.map_err(|_| ApiError::too_many_upgraded(super::MAX_UPGRADED))?;
        let (changing, body) = Changing::new(client);
        Ok((Self { changing, place }, RequestBody::stream(body)))
    }
}

/// The body as it is passed on, and where to look for what was wrong with it.
async fn read<B>(
    shared: &Shared,
    target: &Target,
    headers: &HeaderMap,
    body: B,
    record: &mut Record,
) -> Result<(RequestBody, Option<Arc<OnceLock<Fault>>>), Box<ApiError>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    if body.is_end_stream() {
        record.received(0);
        return Ok((RequestBody::empty(), None));
    }
    let len = body.size_hint().exact();
    let announced =
        || headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if let (Some(len), Some(max)) = (len.or_else(announced), target.max_body_bytes)
        && len > max
    {
        return Err(ApiError::body_too_large(max));
    }
    let idle = shared.limits.idle;
    if let Some(len) = len.and_then(|len| usize::try_from(len).ok())
        && len as u64 <= target.kept_body_bytes
    {
        let limits = BodyLimits { max_bytes: len, idle, total: target.deadlines.total };
        let body = gather(body, headers, limits).await?;
        record.received(body.len());
        return Ok((body.into(), None));
    }
    let (upload, fault) = Upload::new(body, idle, target.max_body_bytes, record.receiving());
    Ok((RequestBody::stream(upload), Some(fault)))
}

fn to_runner(
    shared: &Shared,
    target: &Target,
    mut request: Parts,
    body: RequestBody,
    record: &Record,
) -> http::Request<RequestBody> {
    let mut passed = std::mem::take(&mut request.headers);
    // Told by the request as it came.
    request.headers.extend(passed.get(http::header::HOST).map(|host| (http::header::HOST, host.clone())));
    headers::for_task(&mut passed, record.id(), target.pass_credentials);
    shared.forwarding.tell(&request, &mut passed);
    let mut out = http::Request::new(body);
    *out.method_mut() = request.method;
    // Scheme and authority are the link's affair. The host's extensions stay here, too.
    *out.uri_mut() = request.uri.into_parts().path_and_query.map_or_else(Uri::default, Uri::from);
    *out.headers_mut() = passed;
    out
}

fn to_client(
    shared: &Shared,
    dispatched: Dispatched,
    changing: Option<Upgrading>,
) -> Result<Response<GatewayBody>, Box<ApiError>> {
    let reason = shared.reasons.header(&dispatched);
    let Dispatched { response, runner, .. } = dispatched;
    let (mut head, body) = response.into_parts();
    let is_upgraded = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let protocol = head.headers.get(UPGRADE).filter(|_| is_upgraded).cloned();
    // How the runner was spoken to says nothing about how the client is.
    head.version = Version::HTTP_11;
    head.extensions.clear();
    headers::without_hop_by_hop(&mut head.headers);
    head.headers.insert(BACKEND_USED, runner.id_header().clone());
    head.headers.insert(ROUTER_REASON, reason);
    if matches!(head.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        // Every runner was busy. If the last one did not say for how long, a moment is a fair guess.
        head.headers.entry(RETRY_AFTER).or_insert(HeaderValue::from_static("1"));
    }
    if !is_upgraded {
        return Ok(Response::from_parts(head, GatewayBody::answer(body)));
    }
    let Some(Upgrading { changing, place }) = changing else { return Err(ApiError::changed_unasked()) };
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        head.headers.insert(UPGRADE, protocol);
    }
    shared.upgraded.tasks.spawn(changing.splice(body, shared.stop.clone(), place));
    Ok(Response::from_parts(head, GatewayBody::held(Bytes::new())))
}

/// Why there is no answer, in words for whoever runs tasks.
fn failed(error: &DispatchError, fault: Option<&OnceLock<Fault>>) -> Box<ApiError> {
    let fault = fault.and_then(OnceLock::get).filter(|_| error.kind() == DispatchErrorKind::RequestBody);
    match fault {
        Some(fault) => fault.error(),
        None => ApiError::dispatch(error).without_capacity(),
    }
}
