use std::collections::BTreeSet;

use bytes::Bytes;
use gateway_core::{Fleet, Modalities, Modality, Runner};
use http::{Response, StatusCode};
use serde::Serialize;

use super::health::VERSION;
use crate::gateway::Shared;
use crate::respond::json;
use crate::route::Endpoint;

#[derive(Serialize)]
struct Metadata<'f> {
    schema_version: &'static str,
    service: Service,
    endpoints: Vec<EndpointInfo>,
    capabilities: Capabilities,
    backends: Backends<'f>,
}

#[derive(Serialize)]
struct Service {
    name: &'static str,
    version: &'static str,
    description: &'static str,
}

#[derive(Serialize)]
struct EndpointInfo {
    path: &'static str,
    method: &'static str,
    operation_id: &'static str,
    summary: &'static str,
}

#[derive(Serialize)]
struct Capabilities {
    domains: [&'static str; 3],
    modalities: Vec<&'static str>,
    streaming: bool,
    /// `null` while it is not known of some runner.
    max_concurrency: Option<u64>,
}

/// Anybody may read this, so it names kinds of engines and of links, never machines.
#[derive(Serialize)]
struct Backends<'f> {
    default: Option<&'f str>,
    available: BTreeSet<&'f str>,
}

/// What kind of engine it is, if its label says so in a plain word; else how it is reached.
fn backend(runner: &Runner) -> &str {
    let is_plain = |word: &&str| {
        (1..=32).contains(&word.len()) && word.bytes().all(|c| c.is_ascii_lowercase() || c == b'-')
    };
    let engine = runner.spec().labels.get("engine").map(String::as_str).filter(is_plain);
    engine.unwrap_or(runner.link().describe().transport)
}

/// `GET /v1/metadata`: what this service is and can do at the moment.
pub(crate) fn metadata(shared: &Shared) -> Response<Bytes> {
    let fleet = shared.dispatcher.registry().fleet();
    let available: BTreeSet<_> = usable(&fleet).map(backend).collect();
    let default = shared.default_backend.as_deref().filter(|kind| available.contains(kind));
    let metadata = Metadata {
        schema_version: "v1",
        service: Service {
            name: "inference-gateway",
            version: VERSION,
            description: "Serves OpenAI's API from a fleet of inference runners.",
        },
        endpoints: endpoints(),
        capabilities: Capabilities {
            domains: ["chat", "completion", "embedding"],
            modalities: modalities(&fleet),
            streaming: true,
            max_concurrency: usable(&fleet).map(|runner| Some(u64::from(runner.spec().slots?.get()))).sum(),
        },
        backends: Backends { default: default.or(available.first().copied()), available },
    };
    json(StatusCode::OK, &metadata)
}

fn usable(fleet: &Fleet) -> impl Iterator<Item = &Runner> {
    fleet.runners().iter().filter(|runner| runner.is_available()).map(|runner| &**runner)
}

fn modalities(fleet: &Fleet) -> Vec<&'static str> {
    const NAMES: [(Modality, &str); 3] =
        [(Modality::Image, "image"), (Modality::Audio, "audio"), (Modality::Embedding, "embedding")];
    let told = |modality| {
        let need = Modalities::default().with(modality);
        usable(fleet)
            .flat_map(|runner| &runner.status().models)
            .any(|model| model.modalities.is_some_and(|has| has.covers(need)))
    };
    // Every engine takes text, so none says so.
    let others = NAMES.into_iter().filter(|(modality, _)| told(*modality)).map(|(_, name)| name);
    std::iter::once("text").chain(others).collect()
}

fn endpoints() -> Vec<EndpointInfo> {
    let rows = [
        (Endpoint::Health, "GET", "health.check", "Whether the gateway is alive"),
        (Endpoint::Ready, "GET", "readiness.check", "Whether some model can be served"),
        (Endpoint::Metadata, "GET", "metadata.get", "This document"),
        (Endpoint::Chat, "POST", "chat.completions.create", "Answer a conversation"),
        (Endpoint::Completion, "POST", "completions.create", "Continue a text"),
        (Endpoint::Embedding, "POST", "embeddings.create", "Turn text into vectors"),
        (Endpoint::Models, "GET", "models.list", "All models"),
        (Endpoint::Model, "GET", "models.retrieve", "One model"),
        (Endpoint::AdminRunners, "GET", "admin.runners.list", "All runners"),
        (Endpoint::Load, "POST", "admin.runners.load_model", "Load a model on a runner"),
        (Endpoint::Unload, "POST", "admin.runners.unload_model", "Unload a model from a runner"),
        (Endpoint::Drain, "POST", "admin.runners.drain", "Send a runner nothing new, or again"),
        (Endpoint::Status, "POST", "admin.runners.request_status", "Ask a runner how it is"),
        (Endpoint::Explain, "POST", "admin.explain", "Which runners could serve a request, and why"),
        (Endpoint::Events, "GET", "admin.runners.events", "Changes of the fleet as an event stream"),
    ];
    rows.into_iter()
        .map(|(endpoint, method, operation_id, summary)| EndpointInfo {
            path: endpoint.as_str(),
            method,
            operation_id,
            summary,
        })
        .collect()
}
