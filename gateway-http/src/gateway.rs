use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use gateway_core::{BoxError, CancellationToken, Dispatcher, Door, RequestId};
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::request::Parts;
use http::{Method, Response};
use http_body::Body;
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::DropGuard;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use crate::admin::{self, CommandDone};
use crate::admission::Admission;
use crate::api;
use crate::auth::{Access, Identity};
use crate::body::GatewayBody;
use crate::builder::{BuildError, GatewayBuilder};
use crate::error::ApiError;
use crate::generic::{self, Forwarding, Found, GenericTable};
use crate::inference::{self, BodyLimits, PromptHashing, Reasons};
use crate::metrics::Metrics;
use crate::needs::Needs;
use crate::observability::Observability;
use crate::request_log::{Record, Sinks};
use crate::respond::REQUEST_ID;
use crate::route::{Inference, Route};
use crate::shutdown::{self, Drained};

/// The inference gateway: a [`tower_service::Service`] for any HTTP server. See the [crate's
/// documentation](crate) for its routes.
///
/// Cheap to clone; clones share everything. When the last one is dropped, the runner sources that it
/// started are told to stop; [`Gateway::shutdown`] does that in good order.
#[derive(Clone)]
pub struct Gateway {
    house: Arc<House>,
    /// Not in `Shared`: a request that outlives the last clone must not keep the sources going.
    _stop_with_last: Arc<DropGuard>,
}

/// What all clones share.
pub(crate) struct House {
    current: ArcSwap<Shared>,
    /// Held by whoever changes the settings.
    changing: Mutex<()>,
}

impl House {
    /// The gateway as it is set now. Whoever begins something goes by it to the end.
    pub(crate) fn now(&self) -> Arc<Shared> {
        self.current.load_full()
    }
}

/// What each request under way shares with others that came under the same settings.
pub(crate) struct Shared {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) clients: Access,
    pub(crate) admins: Access,
    pub(crate) admission: Option<Arc<dyn Admission>>,
    pub(crate) limits: BodyLimits,
    /// `None` if nobody would read the hashes.
    pub(crate) prompts: Option<PromptHashing>,
    pub(crate) doors: Vec<Arc<dyn Door>>,
    /// `None` if there are no routes besides the gateway's own.
    pub(crate) generic: Option<GenericTable>,
    pub(crate) forwarding: Forwarding,
    pub(crate) needs: Needs,
    pub(crate) upgraded: Upgraded,
    pub(crate) metrics: Arc<Metrics>,
    /// `None` if there are none.
    pub(crate) sinks: Option<Arc<Sinks>>,
    pub(crate) reasons: Reasons,
    /// After how long an event stream is begun without its runner, and how often it then says so.
    pub(crate) keepalive: Option<Duration>,
    /// Named in the metadata if it is available.
    pub(crate) default_backend: Option<String>,
    /// The longest that a request waits for a slot.
    pub(crate) patience: Duration,
    /// Cancelled when the shutdown begins: ends what would never end by itself.
    pub(crate) closing: CancellationToken,
    /// Cancelled when the sources are to stop.
    pub(crate) stop: CancellationToken,
    /// Cancelled when somebody else is to unload idle models, too.
    pub(crate) tending: CancellationToken,
    pub(crate) sources: TaskTracker,
    pub(crate) commands: broadcast::Sender<Arc<CommandDone>>,
    /// Places for readers of the event stream.
    pub(crate) watchers: Arc<Semaphore>,
}

/// Connections that have changed to another protocol.
#[derive(Clone)]
pub(crate) struct Upgraded {
    pub(crate) places: Arc<Semaphore>,
    /// Ended by the shutdown.
    pub(crate) tasks: TaskTracker,
}

impl Gateway {
    /// Begins to put a gateway together.
    pub fn builder() -> GatewayBuilder {
        GatewayBuilder::new()
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let guard = shared.stop.clone().drop_guard();
        let metrics = shared.metrics.clone();
        let house = Arc::new(House { current: ArcSwap::new(shared), changing: Mutex::new(()) });
        metrics.serve(&house);
        Self { house, _stop_with_last: Arc::new(guard) }
    }

    /// The one path to the runners, as it is set now. Its [`registry`](Dispatcher::registry) is the gateway's.
    pub fn dispatcher(&self) -> Dispatcher {
        self.house.now().dispatcher.clone()
    }

    /// Goes by other settings from now on, without dropping anything.
    ///
    /// `settings` are those of a whole gateway, not only what is to change. Requests that are under way or wait
    /// end by the settings under which they came; the next ones go by the new. What runners are there, what is
    /// counted of them and of requests, and what is known of their health stays; so do registry, runner
    /// sources, request sinks and metrics, and whatever `settings` say of the registry and metrics is left aside. To
    /// change the runners, give their source other ones, as with `HttpRunners::handle` of `gateway-transport-http`. A
    /// strategy begins anew, unless it is the same [`Arc`] as before.
    ///
    /// Must be called within a tokio runtime if models have keep-alive times.
    ///
    /// # Errors
    /// As [`GatewayBuilder::build`], and [`BuildError::Lasting`] if the settings bring sources or sinks. Then nothing has
    /// changed.
    pub fn reconfigure(&self, settings: GatewayBuilder) -> Result<(), BuildError> {
        let _one_at_a_time = self.house.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.house.now();
        let next = settings.succeed(&before)?;
        self.house.current.store(Arc::new(next));
        before.tending.cancel();
        Ok(())
    }

    /// All metrics in the OpenMetrics text format, as [`Gateway::observability`] serves them.
    pub fn metrics_text(&self) -> String {
        self.house.now().metrics.text()
    }

    /// A small service with `/metrics`, `/health` and `/readyz`, without authentication: for a listener that
    /// clients cannot reach.
    pub fn observability(&self) -> Observability {
        Observability::new(self.house.clone())
    }

    /// Drains: takes nothing new, waits up to `patience` for what is under way, stops the runner sources and
    /// closes the links of all runners, which cuts what is left.
    ///
    /// Requests that arrive from now on are answered with 503 and `/readyz` says so, too. Sources get
    /// another [`Drained::SOURCES_PATIENCE`] to end, request sinks [`Drained::SINKS_PATIENCE`] to write what
    /// they were told. Clients hear of cut answers through the server, so the records of those may come
    /// after that: a call once the server has ended has them written, too. Calling it again is harmless. Cancel safe; dropped
    /// early, the gateway stays closed and nothing else has been stopped.
    pub async fn shutdown(&self, patience: Duration) -> Drained {
        shutdown::shutdown(&self.house.now(), patience).await
    }
}

/// The future of a [`Gateway`]'s answer. Dropping it cancels the request, on the runner, too.
pub type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response<GatewayBody>, Infallible>> + Send>>;

impl<B> Service<http::Request<B>> for Gateway
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<GatewayBody>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Whether there is room depends on what is asked for; the answer tells.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> ResponseFuture {
        let shared = self.house.now();
        Box::pin(serve(shared, request))
    }
}

/// What every request waits in is the state of this future, so it is kept small: what is rare is in boxes of its own, and
/// what the request brought stands in it once.
fn serve<B>(
    shared: Arc<Shared>,
    request: http::Request<B>,
) -> impl Future<Output = Result<Response<GatewayBody>, Infallible>> + Send
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (mut parts, body) = request.into_parts();
    // A second handle on the same bytes: the head itself goes on to the runner.
    let uri = parts.uri.clone();
    async move {
        let shared = &shared;
        let given = parts.headers.get(&REQUEST_ID).and_then(RequestId::from_header);
        let id = given.unwrap_or_else(RequestId::random);
        let (method, version) = (parts.method.clone(), parts.version);
        let (route, found) = find(shared, &method, uri.path());
        // It goes out with the body.
        let mut record =
            Box::new(Record::new(&shared.metrics, shared.sinks.as_ref(), id, &parts, route.endpoint()));

        let answered = match route {
            Route::Inference(api) if route.takes(&method) => {
                infer(shared, api, &mut parts, body, &mut record).await
            }
            _ => Box::pin(answer(shared, (route, found), parts, body, &mut record)).await,
        };
        let mut response = answered.unwrap_or_else(|error| {
            record.failed(&error);
            error.into_response(version).map(GatewayBody::held)
        });
        response.headers_mut().insert(REQUEST_ID, record.id().header().clone());
        record.answered(response.status());
        // What a runner says of the length of what it would send is its own affair.
        if method == Method::HEAD && route != Route::Generic {
            if let Some(length) = response.body().size_hint().exact() {
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            response = response.map(GatewayBody::without_content);
        }
        Ok(response.map(|body| body.recorded(record)))
    }
}

/// A request for inference.
async fn infer<B>(
    shared: &Shared,
    api: Inference,
    request: &mut Parts,
    body: B,
    record: &mut Record,
) -> Result<Response<GatewayBody>, Box<ApiError>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let identity = who(shared, Route::Inference(api), request).await?;
    record.asked_by(&identity);
    inference::forward(shared, api, request, body, &identity, record).await
}

/// What a request means. The gateway's own routes go first.
fn find<'a>(shared: &'a Shared, method: &Method, path: &'a str) -> (Route<'a>, Option<Found<'a>>) {
    let route = Route::find(path, &shared.doors);
    let found = match (&shared.generic, route) {
        (Some(generic), Route::Unknown) => generic.find(method, path),
        _ => None,
    };
    (if found.is_some() { Route::Generic } else { route }, found)
}

/// Any other.
async fn answer<B>(
    shared: &Arc<Shared>,
    (route, found): (Route<'_>, Option<Found<'_>>),
    request: Parts,
    body: B,
    record: &mut Record,
) -> Result<Response<GatewayBody>, Box<ApiError>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    if !route.takes(&request.method) {
        return Err(ApiError::method_not_allowed(route.methods().unwrap_or_default()));
    }
    if let Some(Found::WrongMethod(allow)) = found {
        return Err(ApiError::method_not_allowed(allow.to_owned()));
    }
    let identity = who(shared, route, &request).await?;
    record.asked_by(&identity);
    let response = match route {
        // With a method that it does not take, which is refused above.
        Route::Inference(_) => return Err(ApiError::not_found(request.uri.path())),
        Route::Generic => {
            let Some(Found::Target(target)) = found else {
                return Err(ApiError::not_found(request.uri.path()));
            };
            return generic::forward(shared, target, request, body, &identity, record).await;
        }
        Route::Events => return admin::events(shared),
        Route::Explain => admin::explain(shared, &request, body, &identity).await?,
        Route::Command(command, id) => {
            admin::command(shared, command, id, &request, body, record.id()).await?
        }
        Route::Runners | Route::AdminRunners => admin::runners(shared),
        Route::Models => api::models(shared),
        Route::Model(id) => api::model(shared, id)?,
        Route::Health => api::health(),
        Route::Ready => api::ready(shared),
        Route::Metadata => api::metadata(shared),
        Route::Door(at) => match shared.doors.get(at) {
            Some(door) => door.knock(request),
            None => return Err(ApiError::not_found(request.uri.path())),
        },
        Route::Unknown => return Err(ApiError::not_found(request.uri.path())),
    };
    Ok(response.map(GatewayBody::held))
}

/// Authentication, before anything else is looked at. A new route falls under nobody's exemption by
/// accident: the compiler asks for its line here.
async fn who(shared: &Shared, route: Route<'_>, request: &Parts) -> Result<Identity, Box<ApiError>> {
    match route {
        Route::Health | Route::Ready | Route::Metadata => Ok(Identity::anonymous()),
        // The door checks who knocks.
        Route::Door(_) => Ok(Identity::anonymous()),
        Route::Unknown => Ok(Identity::anonymous()),
        Route::Inference(_) | Route::Models | Route::Model(_) | Route::Generic => {
            shared.clients.check(request).await
        }
        Route::Runners | Route::AdminRunners | Route::Command(..) | Route::Events | Route::Explain => {
            shared.admins.check(request).await
        }
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("dispatcher", &self.house.now().dispatcher).finish_non_exhaustive()
    }
}
