//! How the gateway is: in the contract's words, and in those of grpc.health.v1.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{Method, StatusCode, Uri};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::Shared;
use super::caller::Caller;
use crate::contract::WorkerHealthResponse;

/// Between two looks for somebody who watches: how late they hear of a change at most.
const LOOK: Duration = Duration::from_secs(1);

/// Who watches costs a look each second: enough for the balancers in front of a gateway.
pub(super) const WATCHERS: usize = 1024;

impl Shared {
    /// Whether a request could be served now: `/readyz`.
    pub(super) async fn is_ready(&self) -> bool {
        if self.closing.is_cancelled() {
            return false;
        }
        let caller = Caller::default();
        let request = caller.request(Method::GET, Uri::from_static("/readyz"), "", Bytes::new());
        self.inner.call(request).await.is_ok_and(|answer| answer.status() == StatusCode::OK)
    }

    /// The contract's Health, for the whole fleet.
    pub(super) async fn health(&self) -> WorkerHealthResponse {
        let mut metrics = HashMap::new();
        let mut set = |key: &str, value: String| metrics.insert(key.to_owned(), value);
        set("backend", "inference-gateway".to_owned());
        set("version", env!("CARGO_PKG_VERSION").to_owned());
        set("requests_success", self.tally.succeeded().to_string());
        set("requests_failed", self.tally.failed().to_string());
        let mut under_way = self.tally.under_way();
        if let Some(registry) = &self.registry {
            let fleet = registry.fleet();
            let runners = fleet.runners();
            under_way = runners.iter().map(|runner| u64::from(runner.load().in_flight)).sum();
            set("runners", runners.len().to_string());
            set("models", fleet.models().len().to_string());
        }
        set("requests_inflight", under_way.to_string());
        WorkerHealthResponse { healthy: self.is_ready().await, metrics }
    }
}

/// `grpc.health.v1`: every service here is as ready as the gateway is.
pub(super) struct StandardHealth {
    shared: Arc<Shared>,
    services: Arc<[String]>,
    watchers: Arc<Semaphore>,
}

impl StandardHealth {
    pub(super) fn new(shared: Arc<Shared>, services: Vec<String>) -> Self {
        Self { shared, services: services.into(), watchers: Arc::new(Semaphore::new(WATCHERS)) }
    }

    /// Nobody in particular is all of them.
    fn knows(&self, service: &str) -> bool {
        service.is_empty() || self.services.iter().any(|known| known == service)
    }
}

fn serving(is_ready: bool) -> ServingStatus {
    if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[async_trait::async_trait]
impl Health for StandardHealth {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !self.knows(&service) {
            let service: String = service.chars().take(200).collect();
            return Err(Status::not_found(format!("There is no service `{service}` here.")));
        }
        Ok(Response::new(response(serving(self.shared.is_ready().await))))
    }

    /// Tells at once and at every change, until the server is closed. There is no task: looks are made as long as
    /// somebody reads.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let Ok(place) = self.watchers.clone().try_acquire_owned() else {
            return Err(Status::resource_exhausted(format!("There are {WATCHERS} watchers already.")));
        };
        let watch = Watch {
            shared: self.shared.clone(),
            is_known: self.knows(&request.into_inner().service),
            told: None,
            _place: place,
        };
        Ok(Response::new(Box::pin(stream::unfold(watch, Watch::next))))
    }
}

struct Watch {
    shared: Arc<Shared>,
    is_known: bool,
    told: Option<ServingStatus>,
    _place: OwnedSemaphorePermit,
}

impl Watch {
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        loop {
            let closing = self.shared.closing.clone();
            let now = if self.is_known {
                serving(self.shared.is_ready().await)
            } else {
                ServingStatus::ServiceUnknown
            };
            if self.told != Some(now) {
                self.told = Some(now);
                return Some((Ok(response(now)), self));
            }
            if closing.is_cancelled() {
                return None;
            }
            // The end is not waited for.
            let _ = closing.run_until_cancelled(tokio::time::sleep(LOOK)).await;
        }
    }
}
