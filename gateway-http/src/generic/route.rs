use std::time::Duration;

use gateway_core::{Labels, ModelId};

use crate::needs::Need;
use crate::openapi::OpenApi;

/// Paths besides the gateway's own whose requests go to runners as they are: those of an OpenAPI document, or
/// all below a prefix. For [`GatewayBuilder::generic`](crate::GatewayBuilder::generic).
///
/// Bodies are streamed both ways and never gathered, but for small ones (see
/// [`GenericRoute::kept_body_bytes`]). The gateway's own routes win; then an exact path wins over a template,
/// a template over a prefix, and a long prefix over a short one. A path that the document has with another
/// method is 405. Clients are let in as for inference.
///
/// Of the request's headers those that are about one connection only go, as do `authorization` and
/// `x-api-key` ([`GenericRoute::pass_credentials`]); cookies pass. `via`, `forwarded` and the `x-forwarded-`
/// family are added ([`Forwarding`](crate::Forwarding)).
///
/// A request whose method is not idempotent (RFC 9110, section 9.2.2) is tried on another runner only if the
/// first one saw nothing of it, or declined it; one whose body is a stream, only while none of that was read.
///
/// ```
/// use gateway_http::{GenericRoute, Need, OpenApi};
///
/// let api = OpenApi::from_json(
///     r#"{"openapi": "3.0.3", "paths": {"/tasks/{id}/run": {"post": {}}, "/tasks": {"get": {}}}}"#,
/// )?;
/// let tasks = GenericRoute::openapi(api)
///     .label("pool", "tasks")
///     .needs_of("/tasks/{id}/run", Need { gpus: Some(1.0), ..Need::default() });
/// let apps = GenericRoute::prefix("/apps").upgrades(true);
/// # let _ = (tasks, apps);
/// # Ok::<(), gateway_http::OpenApiError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a route does nothing until a gateway has it"]
pub struct GenericRoute {
    pub(super) paths: Paths,
    pub(super) needs_of: Vec<(String, Need)>,
    pub(super) need: Need,
    pub(super) labels: Labels,
    pub(super) model: Option<ModelId>,
    pub(super) upgrades: bool,
    pub(super) pass_credentials: bool,
    pub(super) kept_body_bytes: u64,
    pub(super) max_body_bytes: Option<u64>,
    pub(super) times: Times,
}

#[derive(Debug, Clone)]
pub(super) enum Paths {
    Document(OpenApi),
    Prefix(String),
}

/// Times that differ from the gateway's.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Times {
    pub(super) first_byte: Option<Duration>,
    pub(super) idle: Option<Duration>,
    pub(super) total: Option<Duration>,
}

impl GenericRoute {
    /// The default of [`GenericRoute::kept_body_bytes`]: 64 KiB, about what one read from a socket brings.
    pub const KEPT_BODY: u64 = 64 << 10;

    fn new(paths: Paths) -> Self {
        Self {
            paths,
            needs_of: Vec::new(),
            need: Need::default(),
            labels: Labels::new(),
            model: None,
            upgrades: false,
            pass_credentials: false,
            kept_body_bytes: Self::KEPT_BODY,
            max_body_bytes: None,
            times: Times::default(),
        }
    }

    /// The operations of a document. `HEAD` is taken wherever `GET` is.
    pub fn openapi(document: OpenApi) -> Self {
        Self::new(Paths::Document(document))
    }

    /// Every path below `prefix`, and itself, with any method but `CONNECT`. `/` is whatever the gateway does
    /// not know.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self::new(Paths::Prefix(prefix.into()))
    }

    /// Sends the requests only to runners with this label. An operation may add others.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Sends the requests only to runners that have this model, unless an operation names another. The body is
    /// not looked at: a runner that knows the model by another name is not told of that.
    pub fn model(mut self, model: ModelId) -> Self {
        self.model = Some(model);
        self
    }

    /// What requests need whose operation does not say it.
    pub fn needs(mut self, need: Need) -> Self {
        self.need = need;
        self
    }

    /// What requests to one path of the document need, whatever the document says: `path` is written as there.
    pub fn needs_of(mut self, path: impl Into<String>, need: Need) -> Self {
        self.needs_of.push((path.into(), need));
        self
    }

    /// Whether connections may change to another protocol, such as WebSocket; `false` unless set. An operation
    /// may say otherwise. Such a connection holds its slot to its end, and has no time limit but the one of
    /// standing still in both directions.
    pub fn upgrades(mut self, upgrades: bool) -> Self {
        self.upgrades = upgrades;
        self
    }

    /// Whether `authorization`, `x-api-key` and `api-key` pass to the runner; `false` unless set, because they
    /// are the client's credentials for the gateway.
    pub fn pass_credentials(mut self, pass: bool) -> Self {
        self.pass_credentials = pass;
        self
    }

    /// Bodies up to this size, in bytes, that announce their length are read before a runner is looked for, and
    /// kept until the request is over, so that another runner can have them; [`GenericRoute::KEPT_BODY`] unless
    /// set, and 0 keeps none. A larger body cannot go to another runner once anything of it was read, not even
    /// if that one says that it is busy.
    pub fn kept_body_bytes(mut self, most: u64) -> Self {
        self.kept_body_bytes = most;
        self
    }

    /// The largest body of a request, in bytes; unlimited unless set, because no more than a buffer of it is
    /// ever held. An operation may say otherwise.
    /// [`GatewayBuilder::max_body_bytes`](crate::GatewayBuilder::max_body_bytes) does not count here;
    /// [`body_timeout`](crate::GatewayBuilder::body_timeout) does.
    pub fn max_body_bytes(mut self, max: u64) -> Self {
        self.max_body_bytes = Some(max);
        self
    }

    /// How long a whole request may take, instead of what all requests may. An operation may say otherwise.
    pub fn timeout(mut self, total: Duration) -> Self {
        self.times.total = Some(total);
        self
    }

    /// How long a runner may take to begin its answer after it was sent the last of the request, instead of
    /// what all may.
    pub fn first_byte_timeout(mut self, first_byte: Duration) -> Self {
        self.times.first_byte = Some(first_byte);
        self
    }

    /// How long both directions together may stand still, instead of what all may.
    pub fn idle_timeout(mut self, idle: Duration) -> Self {
        self.times.idle = Some(idle);
        self
    }
}

/// Why a [`GenericRoute`] cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRoute {
    /// A template or a prefix is no path.
    #[error("the path `{path}` cannot be served: {problem}")]
    Path {
        /// As it was given.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Two routes want the same requests.
    #[error("{method} {path} is served twice: leave one of the two out")]
    Twice {
        /// The method, or `any method`.
        method: String,
        /// The path of the second.
        path: String,
    },
    /// Needs were given for a path that the document does not have.
    #[error("needs are given for `{path}`, which the document does not have: write the path as it is there")]
    NoSuchPath {
        /// As it was given.
        path: String,
    },
    /// A need is negative or not a number.
    #[error("what {whose} needs must be numbers from 0 on")]
    Need {
        /// Whose need: a path or a model.
        whose: String,
    },
}
