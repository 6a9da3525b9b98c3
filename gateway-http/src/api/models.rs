use bytes::Bytes;
use gateway_core::Model;
use http::{Response, StatusCode};
use serde::Serialize;

use crate::error::ApiError;
use crate::gateway::Shared;
use crate::respond::json;
use crate::route::percent_decoded;

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Item<'a>>,
}

/// OpenAI's fields and no others. Its client libraries want all four, so what no runner told has a
/// stand-in: 0 and `unknown`.
#[derive(Serialize)]
struct Item<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    owned_by: &'a str,
}

impl<'a> Item<'a> {
    fn new(model: &'a Model) -> Self {
        Self {
            id: model.id.as_str(),
            object: "model",
            created: model.created.unwrap_or(0),
            owned_by: model.owned_by.as_deref().unwrap_or("unknown"),
        }
    }
}

/// `GET /v1/models`: the canonical names of all runners' models, each once.
pub(crate) fn models(shared: &Shared) -> Response<Bytes> {
    let fleet = shared.dispatcher.registry().fleet();
    let data = fleet.models().into_iter().map(Item::new).collect();
    json(StatusCode::OK, &List { object: "list", data })
}

/// `GET /v1/models/{id}`, by canonical or local name.
pub(crate) fn model(shared: &Shared, id: &str) -> Result<Response<Bytes>, Box<ApiError>> {
    let name = percent_decoded(id).ok_or_else(|| ApiError::unknown_model(id))?;
    let fleet = shared.dispatcher.registry().fleet();
    let entry = fleet.model(&name).ok_or_else(|| ApiError::unknown_model(&name))?;
    // The best informed first, as in the list.
    let runners = entry.loaded().iter().chain(entry.on_demand()).chain(entry.known());
    let model = runners.filter_map(|runner| runner.model(&name)).next();
    let model = model.ok_or_else(|| ApiError::unknown_model(&name))?;
    Ok(json(StatusCode::OK, &Item::new(model)))
}
