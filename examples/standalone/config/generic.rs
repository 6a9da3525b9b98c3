//! Routes besides the gateway's own, and what requests need.

use std::collections::BTreeMap;
use std::path::PathBuf;

use gateway_core::ModelId;
use gateway_http::{Forwarding, GatewayBuilder, GenericRoute, Need, OpenApi};
use serde::{Deserialize, Serialize};

use super::section::{ConfigError, Seconds, section};

/// Requests that go to runners as they are.
#[derive(Deserialize, Serialize, Debug, Clone, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GenericEntry {
    /// A document whose operations these are.
    openapi: Option<PathBuf>,
    /// Or: all paths below this one.
    prefix: Option<String>,
    labels: BTreeMap<String, String>,
    model: Option<String>,
    needs: NeedEntry,
    /// By path of the document.
    needs_of: BTreeMap<String, NeedEntry>,
    upgrades: bool,
    pass_credentials: bool,
    max_body_bytes: u64,
    kept_body_bytes: Option<u64>,
    timeout_s: Option<Seconds>,
    first_byte_s: Option<Seconds>,
    idle_s: Option<Seconds>,
}

#[derive(Deserialize, Serialize, Debug, Clone, Copy, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NeedEntry {
    cpus: Option<f64>,
    gpus: Option<f64>,
    memory_gb: Option<f64>,
}

impl NeedEntry {
    fn need(self) -> Need {
        Need { cpus: self.cpus, gpus: self.gpus, memory_gb: self.memory_gb }
    }
}

impl GenericEntry {
    /// The operations of a document, all else as usual.
    pub(crate) fn openapi(path: impl Into<PathBuf>) -> Self {
        Self { openapi: Some(path.into()), ..Self::default() }
    }

    /// Reads the document, if there is one.
    fn route(&self) -> Result<GenericRoute, ConfigError> {
        let mut route = match (&self.openapi, &self.prefix) {
            (Some(path), None) => {
                let key = format!("generic.openapi ({})", path.display());
                let text = std::fs::read_to_string(path).map_err(|error| ConfigError::at(&key, error))?;
                GenericRoute::openapi(OpenApi::parse(&text).map_err(|error| ConfigError::at(&key, error))?)
            }
            (None, Some(prefix)) => GenericRoute::prefix(prefix),
            _ => return Err(ConfigError::new("each [[generic]] has either `openapi` or `prefix`")),
        };
        if let Some(model) = &self.model {
            let model = ModelId::new(model).map_err(|error| ConfigError::at("generic.model", error))?;
            route = route.model(model);
        }
        if self.max_body_bytes > 0 {
            route = route.max_body_bytes(self.max_body_bytes);
        }
        if let Some(most) = self.kept_body_bytes {
            route = route.kept_body_bytes(most);
        }
        let time = |time: Option<Seconds>| time.and_then(Seconds::unless_zero);
        if let Some(total) = time(self.timeout_s) {
            route = route.timeout(total);
        }
        if let Some(first_byte) = time(self.first_byte_s) {
            route = route.first_byte_timeout(first_byte);
        }
        if let Some(idle) = time(self.idle_s) {
            route = route.idle_timeout(idle);
        }
        route = self.labels.iter().fold(route, |route, (key, value)| route.label(key, value));
        route = self.needs_of.iter().fold(route, |route, (path, need)| route.needs_of(path, need.need()));
        Ok(route.needs(self.needs.need()).upgrades(self.upgrades).pass_credentials(self.pass_credentials))
    }
}

section! {
    /// What requests need, wherever they are to go.
    NeedsSection {
        from_headers: bool = false,
        models: BTreeMap<String, NeedEntry> = BTreeMap::new(),
    }
}

section! {
    /// Who is believed when it says where a request came from.
    Forwarded {
        trust: Vec<String> = Vec::new(),
        over_tls: bool = false,
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Generic {
    pub(super) routes: Vec<GenericEntry>,
    pub(super) needs: NeedsSection,
    pub(super) forwarded: Forwarded,
}

impl Generic {
    /// Adds it to a gateway.
    ///
    /// # Errors
    /// A document cannot be read, or something makes no sense; the message names it.
    pub(crate) fn add_to(&self, mut builder: GatewayBuilder) -> Result<GatewayBuilder, ConfigError> {
        for entry in &self.routes {
            builder = builder.generic(entry.route()?);
        }
        for (model, need) in &self.needs.models {
            let name = ModelId::new(model);
            let name = name.map_err(|error| ConfigError::at(&format!("needs.models.{model}"), error))?;
            builder = builder.needs_of_model(name, need.need());
        }
        let (everybody, networks): (Vec<_>, Vec<_>) =
            self.forwarded.trust.iter().partition(|one| *one == "*");
        let trusted = Forwarding::default().trust(networks);
        let mut forwarding = trusted.map_err(|error| ConfigError::at("forwarded.trust", error))?;
        if !everybody.is_empty() {
            forwarding = forwarding.trust_everybody();
        }
        let builder = builder.forwarding(forwarding.over_tls(self.forwarded.over_tls));
        Ok(builder.needs_from_headers(self.needs.from_headers))
    }
}
