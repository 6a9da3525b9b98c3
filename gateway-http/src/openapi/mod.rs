//! OpenAPI documents, as far as they say which requests there are and what each needs.

mod error;
mod operation;
mod template;
mod value;

use gateway_core::Resources;
use http::Method;
use http::uri::PathAndQuery;
use serde_json::Value;

pub use error::OpenApiError;
pub use operation::Operation;
pub(crate) use template::{Segment, Template};
use value::At;

/// An OpenAPI document (version 3, or 2 under its old name), read for a
/// [`GenericRoute`](crate::GenericRoute). JSON, or YAML with the feature `yaml`.
///
/// Of each operation two extensions are read, all of whose keys may be left out:
///
/// ```yaml
/// paths:
///   /tasks/{id}/run:
///     post:
///       x-neutrino-resources: {num_cpus: 2, num_gpus: 1, memory_gb: 8}   # left out: 1, 0 and 1
///       x-gateway:
///         resources: {cpus: 2, gpus: 1, memory_gb: 8}   # instead of the former; left out: 0 each
///         labels: {pool: tasks}     # that the runner must have
///         model: whisper            # that the runner must have; the request's body is not looked at
///         upgrade: true             # WebSocket and the like are passed on
///         timeout_s: 600            # for the whole request
///         max_body_bytes: 1000000
///         repeatable: true          # may be tried on another runner after one has failed at it
/// ```
///
/// An operation without either extension needs nothing in particular, unless the document uses
/// `x-neutrino-resources` at all: then it was written for a gateway that takes
/// [1 core, no accelerator and 1 GB](OpenApi::NEUTRINO_DEFAULT) for granted, and so does this one.
///
/// Paths stand behind the path of each of the `servers` (their variables have their defaults), or behind
/// Swagger's `basePath`. References (`$ref`) between paths are not followed.
///
/// ```
/// use gateway_http::OpenApi;
///
/// let api = OpenApi::from_json(r#"{
///     "openapi": "3.1.0",
///     "servers": [{"url": "https://tasks.example/v2"}],
///     "paths": {"/tasks/{id}/run": {"post": {"x-neutrino-resources": {"num_gpus": 1}}}}
/// }"#)?;
/// assert_eq!(api.base_paths(), ["/v2"]);
/// assert_eq!(api.operations()[0].resources().map(|needs| needs.gpus), Some(1.0));
/// # Ok::<(), gateway_http::OpenApiError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct OpenApi {
    bases: Vec<String>,
    operations: Vec<Operation>,
    unannotated: Option<Resources>,
}

impl OpenApi {
    /// What `x-neutrino-resources` means by a field that is left out: the default of the gateway that it was
    /// made for.
    pub const NEUTRINO_DEFAULT: Resources = Resources { cpus: 1.0, gpus: 0.0, memory_gb: 1.0 };

    /// Reads a document, whichever of both forms it has.
    ///
    /// # Errors
    ///
    /// As [`OpenApi::from_json`]; without the feature `yaml` also if it is not JSON.
    pub fn parse(text: &str) -> Result<Self, OpenApiError> {
        if text.trim_start().starts_with('{') {
            return Self::from_json(text);
        }
        #[cfg(feature = "yaml")]
        return Self::from_yaml(text);
        #[cfg(not(feature = "yaml"))]
        Err(OpenApiError::new(
            "the document",
            "it is not JSON, and YAML is not built in: build with the feature `yaml` of gateway-http, or convert it",
        ))
    }

    /// Reads a document in JSON.
    ///
    /// # Errors
    ///
    /// It is not JSON, not OpenAPI, or one of the extensions makes no sense; the message names the place.
    pub fn from_json(text: &str) -> Result<Self, OpenApiError> {
        let wrong = |error| OpenApiError::new("the document", format!("it is not JSON: {error}"));
        Self::read(&serde_json::from_str(text).map_err(wrong)?)
    }

    /// Reads a document in YAML.
    ///
    /// # Errors
    ///
    /// It is not YAML; else as [`OpenApi::from_json`].
    #[cfg(feature = "yaml")]
    pub fn from_yaml(text: &str) -> Result<Self, OpenApiError> {
        let wrong = |error| OpenApiError::new("the document", format!("it is not YAML: {error}"));
        Self::read(&serde_saphyr::from_str(text).map_err(wrong)?)
    }

    /// The paths behind which the operations are, without a slash at the end; empty for the root.
    pub fn base_paths(&self) -> &[String] {
        &self.bases
    }

    /// All operations, path by path.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// What an operation without extension needs.
    pub(crate) fn unannotated(&self) -> Option<Resources> {
        self.unannotated
    }

    fn read(document: &Value) -> Result<Self, OpenApiError> {
        let root = At { value: document, place: String::new() };
        if !document.is_object() {
            return Err(OpenApiError::new("the document", "it must be an object with `openapi` and `paths`"));
        }
        let version = root.get("openapi")?.or(root.get("swagger")?);
        // YAML takes `openapi: 3.0` for a number.
        let is_known = version.as_ref().is_some_and(|at| {
            let version = at.value.as_str().map_or_else(|| at.value.to_string(), str::to_owned);
            version.starts_with("3.") || version.starts_with("2.")
        });
        if !is_known {
            let problem = "the document must say `openapi: 3.x`: it is of another kind or version";
            return Err(OpenApiError::new("openapi", problem));
        }
        let Some(paths) = root.get("paths")? else {
            return Err(OpenApiError::new("paths", "the document has none, so there is nothing to route"));
        };
        let mut operations = Vec::new();
        let mut uses_neutrino = false;
        for (path, item) in paths.object()? {
            if path.starts_with("x-") {
                continue;
            }
            let item = paths.at(path, item);
            Template::parse(path).map_err(|why| OpenApiError::new(&item.place, why))?;
            if item.get("$ref")?.is_some() {
                let problem = "references between paths are not followed: write the path out";
                return Err(OpenApiError::new(format!("{}.$ref", item.place), problem));
            }
            for (key, operation) in item.object()? {
                let Some(method) = method(key) else { continue };
                let at = item.at(key, operation);
                uses_neutrino |= at.get("x-neutrino-resources")?.is_some();
                operations.push(Operation::read(path, method, &at)?);
            }
        }
        let unannotated = uses_neutrino.then_some(Self::NEUTRINO_DEFAULT);
        Ok(Self { bases: bases(&root)?, operations, unannotated })
    }
}

fn method(key: &str) -> Option<Method> {
    const KEYS: [&str; 9] = ["get", "put", "post", "delete", "options", "head", "patch", "trace", "query"];
    KEYS.contains(&key).then(|| Method::from_bytes(key.to_ascii_uppercase().as_bytes()).ok())?
}

fn bases(root: &At<'_>) -> Result<Vec<String>, OpenApiError> {
    let mut bases = Vec::new();
    if let Some(base) = root.get("basePath")? {
        bases.push(base_path(&base, base.string()?)?);
    }
    if let Some(servers) = root.get("servers")? {
        for server in servers.items()? {
            let url = server.get("url")?.ok_or_else(|| server.wrong("an object with a `url`"))?;
            let text = with_variables(&server, url.string()?)?;
            let base = base_path(&url, &text)?;
            if !bases.contains(&base) {
                bases.push(base);
            }
        }
    }
    if bases.is_empty() {
        bases.push(String::new());
    }
    Ok(bases)
}

/// The URL with the default of each of its variables.
fn with_variables(server: &At<'_>, url: &str) -> Result<String, OpenApiError> {
    let mut text = url.to_owned();
    if let Some(variables) = server.get("variables")? {
        for (name, variable) in variables.object()? {
            let variable = variables.at(name, variable);
            let usual =
                variable.get("default")?.ok_or_else(|| variable.wrong("an object with a `default`"))?;
            let usual = usual.value.as_str().map_or_else(|| usual.value.to_string(), str::to_owned);
            text = text.replace(&format!("{{{name}}}"), &usual);
        }
    }
    Ok(text)
}

/// The path of a server's URL, which may be relative.
fn base_path(at: &At<'_>, url: &str) -> Result<String, OpenApiError> {
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |slash| &rest[slash..]),
        None => url,
    };
    let path = path.trim_end_matches('/');
    let absolute =
        if path.is_empty() || path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let is_path = absolute.is_empty() || PathAndQuery::try_from(absolute.as_str()).is_ok();
    if !is_path || absolute.contains(['{', '}', '?', '#']) {
        return Err(at.wrong("a URL with a plain path, its variables with a `default`"));
    }
    Ok(absolute)
}
