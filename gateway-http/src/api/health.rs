use bytes::Bytes;
use http::header::{HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::gateway::Shared;
use crate::respond::json;

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `GET /health`: the process is alive, whatever its runners are.
pub(crate) fn health() -> Response<Bytes> {
    #[derive(Serialize)]
    struct Health {
        status: &'static str,
        version: &'static str,
    }
    json(StatusCode::OK, &Health { status: "ok", version: VERSION })
}

/// `GET /readyz`: whether a request for some model, or to some other route, could be served now.
pub(crate) fn ready(shared: &Shared) -> Response<Bytes> {
    #[derive(Serialize)]
    struct Ready {
        status: &'static str,
        checks: Checks,
    }
    #[derive(Serialize)]
    struct Checks {
        gateway: &'static str,
        runners: &'static str,
    }
    let draining = shared.dispatcher.is_closed();
    let fleet = shared.dispatcher.registry().fleet();
    // What comes over other routes need not have a model.
    let other = || shared.generic.is_some() && fleet.runners().iter().any(|runner| runner.is_available());
    let served = fleet.can_serve() || other();
    let checks = Checks {
        gateway: if draining { "draining" } else { "ok" },
        runners: if served { "ok" } else { "none can serve" },
    };
    if served && !draining {
        return json(StatusCode::OK, &Ready { status: "ready", checks });
    }
    let mut response = json(StatusCode::SERVICE_UNAVAILABLE, &Ready { status: "not_ready", checks });
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("30"));
    response
}
