//! Puts an [`Agent`] together.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::{RunnerLink, RunnerSpec};

use super::{Agent, Backoff, BadAddress, Connector, Gateway, TcpConnector, Transport};

/// How an agent behaves; what the builder's methods of the same names say.
pub(super) struct Settings {
    pub(super) token: String,
    pub(super) tunnel: bool,
    pub(super) http_port: u16,
    pub(super) heartbeat_interval: Duration,
    pub(super) status_interval: Duration,
    pub(super) backoff: Backoff,
    pub(super) connect_timeout: Duration,
    pub(super) ack_timeout: Duration,
    pub(super) command_timeout: Duration,
    pub(super) drain_timeout: Duration,
    pub(super) engine_type: String,
    pub(super) connector: Arc<dyn Connector>,
}

/// Puts an [`Agent`] together; see there for an example.
#[must_use]
pub struct AgentBuilder {
    transports: Vec<Arc<dyn Transport>>,
    gateways: Vec<String>,
    spec: Option<RunnerSpec>,
    engine: Option<Arc<dyn RunnerLink>>,
    settings: Settings,
}

/// Why no [`Agent`] could be made. Nothing was dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAgent {
    /// No gateway was named.
    #[error("no gateway to dial; name at least one with `gateway(..)`, such as ws://host:port/ws/runners")]
    NoGateway,
    /// More gateways than one agent dials.
    #[error("{0} gateways are more than the {max} that one agent dials", max = AgentBuilder::MAX_GATEWAYS)]
    TooManyGateways(usize),
    /// A gateway's address makes no sense.
    #[error("the gateway address {url:?} cannot be used: {problem}")]
    Gateway {
        /// The address, without credentials and query.
        url: String,
        /// What is wrong with it, and what to write instead.
        problem: &'static str,
    },
    /// A gateway is to be dialled over TLS.
    #[error(
        "the gateway address {url:?} asks for TLS, which is behind the feature `tls`, and that is not part of \
         this version yet; write ws:// or grpc:// and give a `connector` that speaks TLS, or stay inside a private network"
    )]
    Tls {
        /// The address, without credentials and query.
        url: String,
    },
    /// Two addresses mean the same gateway, where the two connections would replace each other forever.
    #[error("the gateway {url} is named twice; each connection would replace the other, so name it once")]
    SameGatewayTwice {
        /// The address, without credentials and query.
        url: String,
    },
    /// It is not known who the runner is.
    #[error(
        "the runner has no id; give its description with `spec(RunnerSpec::new(RunnerId::new(\"gpu-1\")?))`"
    )]
    NoSpec,
    /// There is nothing behind the runner.
    #[error("the runner {runner} has no engine; give one with `engine(..)`")]
    NoEngine {
        /// The runner's id.
        runner: String,
    },
    /// A setting is outside of its range.
    #[error("the setting `{setting}` of runner {runner} {problem}")]
    Setting {
        /// The runner's id.
        runner: String,
        /// The builder's method.
        setting: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl AgentBuilder {
    /// The most gateways that one agent dials.
    pub const MAX_GATEWAYS: usize = 64;
    /// Default of [`heartbeat_interval`](Self::heartbeat_interval): 30 s, what gateways of this protocol
    /// expect; they give a silent runner up after 90 s.
    pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);
    /// Default of [`status_interval`](Self::status_interval): 5 s.
    pub const STATUS_INTERVAL: Duration = Duration::from_secs(5);
    /// Default of [`connect_timeout`](Self::connect_timeout): 10 s.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
    /// Default of [`ack_timeout`](Self::ack_timeout): 10 s, as in the shipped runner.
    pub const ACK_TIMEOUT: Duration = Duration::from_secs(10);
    /// Default of [`command_timeout`](Self::command_timeout): ten minutes, for large models on slow disks.
    pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(600);
    /// Default of [`drain_timeout`](Self::drain_timeout): 30 s.
    pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
    /// Default of [`http_port`](Self::http_port).
    pub const HTTP_PORT: u16 = 8080;
    /// Default of [`engine_type`](Self::engine_type): all that is known of an engine is its API.
    pub const ENGINE_TYPE: &str = "openai";

    pub(super) fn new() -> Self {
        let settings = Settings {
            token: String::new(),
            tunnel: true,
            http_port: Self::HTTP_PORT,
            heartbeat_interval: Self::HEARTBEAT_INTERVAL,
            status_interval: Self::STATUS_INTERVAL,
            backoff: Backoff::default(),
            connect_timeout: Self::CONNECT_TIMEOUT,
            ack_timeout: Self::ACK_TIMEOUT,
            command_timeout: Self::COMMAND_TIMEOUT,
            drain_timeout: Self::DRAIN_TIMEOUT,
            engine_type: Self::ENGINE_TYPE.to_owned(),
            connector: Arc::new(TcpConnector),
        };
        Self { transports: Vec::new(), gateways: Vec::new(), spec: None, engine: None, settings }
    }

    /// Adds a way of dialling in; its addresses may then be given as [`gateway`](Self::gateway)s.
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transports.push(Arc::new(transport));
        self
    }

    /// Adds a gateway to dial, by an address of one of the [`transport`](Self::transport)s. May be called up to
    /// [`MAX_GATEWAYS`](Self::MAX_GATEWAYS) times: the runner then serves all of them, whatever their transports,
    /// and shares its slots between them.
    pub fn gateway(mut self, url: impl Into<String>) -> Self {
        self.gateways.push(url.into());
        self
    }

    /// The token that the gateways ask of runners. Empty unless set, for gateways that ask for none.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.settings.token = token.into();
        self
    }

    /// Who the runner is: id, name, machine, labels, slots. Required.
    pub fn spec(mut self, spec: RunnerSpec) -> Self {
        self.spec = Some(spec);
        self
    }

    /// The engine behind the runner. Required. Its [`send`](RunnerLink::send) serves requests; its
    /// [`command`](RunnerLink::command) tells the status to report and carries out load and unload.
    pub fn engine(mut self, engine: Arc<dyn RunnerLink>) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Whether to ask for requests to come through the connection (`true` unless set). Without that, and where a
    /// gateway does not know it, the gateway dials back to [`http_port`](Self::http_port) on this machine.
    /// Transports that always carry requests take no notice.
    pub fn tunnel(mut self, tunnel: bool) -> Self {
        self.settings.tunnel = tunnel;
        self
    }

    /// Where a gateway that dials back finds the engine's HTTP server on this machine; 8080 unless set.
    pub fn http_port(mut self, port: u16) -> Self {
        self.settings.http_port = port;
        self
    }

    /// How often a heartbeat goes out, above zero; [`HEARTBEAT_INTERVAL`](Self::HEARTBEAT_INTERVAL) unless
    /// set. Keep it under a third of the gateway's heartbeat timeout.
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.settings.heartbeat_interval = interval;
        self
    }

    /// How often the engine is asked for its status, above zero; [`STATUS_INTERVAL`](Self::STATUS_INTERVAL)
    /// unless set. What has changed goes out at once, without waiting for the next heartbeat.
    pub fn status_interval(mut self, interval: Duration) -> Self {
        self.settings.status_interval = interval;
        self
    }

    /// How long to wait before dialling again.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// How long connecting may take, handshake and all, above zero;
    /// [`CONNECT_TIMEOUT`](Self::CONNECT_TIMEOUT) unless set.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// How long to wait for the answer to `register`, above zero; [`ACK_TIMEOUT`](Self::ACK_TIMEOUT) unless
    /// set.
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.settings.ack_timeout = timeout;
        self
    }

    /// How long the engine may take to load or unload a model, above zero;
    /// [`COMMAND_TIMEOUT`](Self::COMMAND_TIMEOUT) unless set.
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.settings.command_timeout = timeout;
        self
    }

    /// How long requests may go on after the agent was told to stop; zero cuts them at once.
    /// [`DRAIN_TIMEOUT`](Self::DRAIN_TIMEOUT) unless set.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.settings.drain_timeout = timeout;
        self
    }

    /// What the engine is called in reports, such as `llama_cpp`; [`ENGINE_TYPE`](Self::ENGINE_TYPE) unless
    /// set. For people: nothing is decided by it.
    pub fn engine_type(mut self, name: impl Into<String>) -> Self {
        self.settings.engine_type = name.into();
        self
    }

    /// How byte streams to the gateways are made; [`TcpConnector`] unless set.
    pub fn connector(mut self, connector: impl Connector) -> Self {
        self.settings.connector = Arc::new(connector);
        self
    }

    /// Checks everything. Dials nothing yet.
    ///
    /// # Errors
    ///
    /// What is missing or makes no sense, and what to do about it.
    pub fn build(self) -> Result<Agent, InvalidAgent> {
        let Self { transports, gateways, spec, engine, settings } = self;
        let gateways = dialled(&transports, &gateways)?;
        let spec = spec.ok_or(InvalidAgent::NoSpec)?;
        let runner = spec.id.as_str();
        let engine = engine.ok_or_else(|| InvalidAgent::NoEngine { runner: runner.to_owned() })?;
        let invalid =
            |setting, problem| InvalidAgent::Setting { runner: runner.to_owned(), setting, problem };
        for (setting, duration) in [
            ("heartbeat_interval", settings.heartbeat_interval),
            ("status_interval", settings.status_interval),
            ("connect_timeout", settings.connect_timeout),
            ("ack_timeout", settings.ack_timeout),
            ("command_timeout", settings.command_timeout),
        ] {
            if duration.is_zero() {
                return Err(invalid(setting, "is zero; give at least a millisecond"));
            }
        }
        if !settings.tunnel && settings.http_port == 0 {
            let problem =
                "is 0, where no gateway can dial back to; give the engine's port, or ask for the tunnel";
            return Err(invalid("http_port", problem));
        }
        Ok(Agent::new(gateways, spec, engine, settings))
    }
}

fn dialled(
    transports: &[Arc<dyn Transport>],
    urls: &[String],
) -> Result<Vec<Arc<dyn Gateway>>, InvalidAgent> {
    if urls.is_empty() {
        return Err(InvalidAgent::NoGateway);
    }
    if urls.len() > AgentBuilder::MAX_GATEWAYS {
        return Err(InvalidAgent::TooManyGateways(urls.len()));
    }
    let mut gateways: Vec<Arc<dyn Gateway>> = Vec::with_capacity(urls.len());
    for url in urls {
        let gateway = find(transports, url).map_err(|bad| match bad {
            BadAddress::Tls => InvalidAgent::Tls { url: without_secrets(url) },
            BadAddress::NotMine(problem) | BadAddress::Problem(problem) => {
                InvalidAgent::Gateway { url: without_secrets(url), problem }
            }
        })?;
        let name = gateway.to_string();
        if gateways.iter().any(|known| known.to_string() == name) {
            return Err(InvalidAgent::SameGatewayTwice { url: name });
        }
        gateways.push(gateway);
    }
    Ok(gateways)
}

/// The transport whose address it is has the word; if it is nobody's, the first of them.
fn find(transports: &[Arc<dyn Transport>], url: &str) -> Result<Arc<dyn Gateway>, BadAddress> {
    let mut nobodys =
        BadAddress::Problem("this agent has no way of dialling in; give one with `transport(..)`");
    for (at, transport) in transports.iter().enumerate() {
        match transport.gateway(url) {
            Err(not_mine @ BadAddress::NotMine(_)) if at == 0 => nobodys = not_mine,
            Err(BadAddress::NotMine(_)) => {}
            known => return known,
        }
    }
    Err(nobodys)
}

/// An address as it may stand in an error: credentials before the host and the query are left out.
fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.rsplit('@').next().unwrap_or_default().to_owned();
    };
    format!("{scheme}://{}", rest.rsplit('@').next().unwrap_or_default())
}

impl fmt::Debug for AgentBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the token nor the addresses, which may hold secrets until they are checked.
        f.debug_struct("AgentBuilder").field("spec", &self.spec).finish_non_exhaustive()
    }
}
