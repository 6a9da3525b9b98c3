use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Method, Response, StatusCode, Version};
use tower_service::Service;

use crate::api;
use crate::body::GatewayBody;
use crate::error::ApiError;
use crate::gateway::House;
use crate::respond::with_type;

/// `/metrics`, `/health` and `/readyz` as a service of their own, without authentication and without a trace
/// in log or metrics. Made by [`Gateway::observability`](crate::Gateway::observability). Cheap to clone.
#[derive(Clone)]
pub struct Observability {
    house: Arc<House>,
}

impl Observability {
    pub(crate) fn new(house: Arc<House>) -> Self {
        Self { house }
    }

    fn answer(&self, method: &Method, path: &str, version: Version) -> Response<GatewayBody> {
        let response = if !matches!(*method, Method::GET | Method::HEAD) {
            ApiError::method_not_allowed("GET, HEAD").into_response(version)
        } else {
            match path {
                "/metrics" => with_type(StatusCode::OK, OPEN_METRICS, self.house.now().metrics.text().into()),
                "/health" => api::health(),
                "/readyz" => api::ready(&self.house.now()),
                _ => ApiError::not_found(path).into_response(version),
            }
        };
        response.map(GatewayBody::held)
    }
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl<B> Service<http::Request<B>> for Observability {
    type Response = Response<GatewayBody>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        ready(Ok(self.answer(request.method(), request.uri().path(), request.version())))
    }
}

impl fmt::Debug for Observability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observability")
    }
}
