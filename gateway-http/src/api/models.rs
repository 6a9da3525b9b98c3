use bytes::Bytes;
use gateway_core::{Fleet, Model, ModelRoutes};
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

    fn named(self, id: &'a str) -> Self {
        Self { id, ..self }
    }
}

/// `GET /v1/models`: the canonical names of all runners' models, each once, and the aliases of them. Classes
/// are no models: they are asked for by whoever knows them.
pub(crate) fn models(shared: &Shared) -> Response<Bytes> {
    let fleet = shared.dispatcher.registry().fleet();
    let routes = shared.dispatcher.routes();
    let mut data: Vec<_> = fleet.models().into_iter().map(Item::new).collect();
    for (alias, _) in routes.aliases() {
        // What an alias hides cannot be asked for.
        data.retain(|item| item.id != alias.as_str());
        data.extend(
            served(&fleet, routes, alias.as_str()).map(|model| Item::new(model).named(alias.as_str())),
        );
    }
    data.sort_unstable_by_key(|item| item.id);
    json(StatusCode::OK, &List { object: "list", data })
}

/// `GET /v1/models/{id}`, by canonical or local name, or by alias.
pub(crate) fn model(shared: &Shared, id: &str) -> Result<Response<Bytes>, Box<ApiError>> {
    let name = percent_decoded(id).ok_or_else(|| ApiError::unknown_model(id))?;
    let fleet = shared.dispatcher.registry().fleet();
    let routes = shared.dispatcher.routes();
    if routes.aliases().any(|(alias, _)| alias.as_str() == name) {
        let model = served(&fleet, routes, &name).ok_or_else(|| ApiError::unknown_model(&name))?;
        return Ok(json(StatusCode::OK, &Item::new(model).named(&name)));
    }
    let model = described(&fleet, &name).ok_or_else(|| ApiError::unknown_model(&name))?;
    Ok(json(StatusCode::OK, &Item::new(model)))
}

/// The first model that `name` stands for and some runner knows.
fn served<'f>(fleet: &'f Fleet, routes: &ModelRoutes, name: &str) -> Option<&'f Model> {
    routes.targets(name).find_map(|model| described(fleet, model.as_str()))
}

fn described<'f>(fleet: &'f Fleet, name: &str) -> Option<&'f Model> {
    let entry = fleet.model(name)?;
    // The best informed first, as in the list.
    let mut runners = entry.loaded().iter().chain(entry.on_demand().iter()).chain(entry.known().iter());
    runners.find_map(|runner| runner.model(name))
}
