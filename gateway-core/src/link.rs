//! How one runner is reached. A transport crate implements [`RunnerLink`]; so can you, see the example
//! `custom_link`. `gateway-testkit` has the conformance suite that shows whether it is right.

use std::fmt;

use async_trait::async_trait;

use crate::body::{LinkBody, RequestBody};
use crate::command::{Command, CommandReply};
use crate::error::BoxError;

/// A request on its way to one runner. The URI is path and query only; hop-by-hop headers, `host`,
/// `content-length` and the client's credentials are already gone.
pub type LinkRequest = http::Request<RequestBody>;

/// A runner's answer.
pub type LinkResponse = http::Response<LinkBody>;

/// The way to one runner.
///
/// What an implementation promises (the conformance suite of `gateway-testkit` checks it):
///
/// - **Cancellation.** Dropping the future of [`send`](RunnerLink::send) before it is done, or the body of
///   its answer before its end, stops the work on the runner, at once and without another call.
/// - **Honest errors.** [`LinkError::not_sent`] only if no byte of the request can have reached the
///   runner: the dispatcher then sends it elsewhere without counting it as a try.
/// - **Chunks as they come.** No gathering, no reading ahead beyond a stated bound, and a reader that
///   stalls holds up nobody else.
/// - **Its own bounds.** Connections, buffers and queues are bounded; tasks that it spawns end with
///   [`close`](RunnerLink::close) or with the link.
///
/// Waiting too long is the dispatcher's affair: a link needs no time limit on an answer.
#[async_trait]
pub trait RunnerLink: Send + Sync + 'static {
    /// What this link is, for logs and the admin list.
    fn describe(&self) -> LinkDescription;

    /// Sends a request and waits for the head of the answer.
    ///
    /// Any status that the runner gives is an `Ok`. Cancel safe in the sense above.
    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError>;

    /// What it takes besides plain requests: [`LinkAbilities::NONE`] unless a link says otherwise. Asked for every
    /// request, so it must not have to be worked out.
    fn abilities(&self) -> LinkAbilities {
        LinkAbilities::NONE
    }

    /// Asks the runner to do something other than inference. Links that cannot say
    /// [`LinkError::unsupported`], which is what the default does.
    async fn command(&self, command: Command) -> Result<CommandReply, LinkError> {
        Err(LinkError::unsupported(command.name()))
    }

    /// Ends every connection at once. Requests in flight fail; later ones are [`LinkError::not_sent`].
    /// Called when the runner has left and is drained, or the time to drain is up.
    fn close(&self) {}
}

/// What a link takes besides plain requests. Links that do not say so never see it.
///
/// ```
/// use gateway_core::LinkAbilities;
/// assert!(LinkAbilities::NONE.with_upgrades().upgrades);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkAbilities {
    /// Requests that ask for another protocol ([`UpgradeTo`](crate::UpgradeTo)).
    pub upgrades: bool,
    /// On whose account a request is, as a [`Claim`](crate::Claim) among its extensions: for links whose protocol has
    /// a place for tenant and priority, where the client's own word is not to be believed.
    pub claims: bool,
}

impl LinkAbilities {
    /// None.
    pub const NONE: Self = Self { upgrades: false, claims: false };

    /// Takes requests that ask for another protocol, too.
    pub const fn with_upgrades(self) -> Self {
        Self { upgrades: true, ..self }
    }

    /// Is told on whose account requests are, too.
    pub const fn with_claims(self) -> Self {
        Self { claims: true, ..self }
    }
}

/// What a link is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkDescription {
    /// The transport, such as `http` or `tunnel`.
    pub transport: &'static str,
    /// Where the runner is, if it has an address.
    pub address: Option<String>,
}

/// Why a link could not bring a request to its runner, or the answer back.
///
/// Opaque: ask it with its predicates. [`std::error::Error::source`] has what lies behind it.
#[derive(Debug)]
pub struct LinkError {
    kind: Kind,
    context: &'static str,
    source: Option<BoxError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    NotSent,
    Lost,
    Unsupported,
    RequestBody,
    TimedOut,
    Deadline,
}

impl LinkError {
    fn new(kind: Kind, context: &'static str) -> Self {
        Self { kind, context, source: None }
    }

    /// No byte of the request can have reached the runner: it could not be connected, or the request was
    /// still waiting when the connection went.
    pub fn not_sent(context: &'static str) -> Self {
        Self::new(Kind::NotSent, context)
    }

    /// The connection failed, or what came over it made no sense, after the request may have been seen.
    pub fn lost(context: &'static str) -> Self {
        Self::new(Kind::Lost, context)
    }

    /// This link or its runner does not know the command, or cannot do what the request asks for.
    pub fn unsupported(what: &'static str) -> Self {
        Self::new(Kind::Unsupported, what)
    }

    /// The client's own body failed while it was passed on.
    pub fn request_body(source: impl Into<BoxError>) -> Self {
        Self::new(Kind::RequestBody, "the request's body broke off").because(source)
    }

    /// The runner did not answer a command in time.
    pub fn timed_out(context: &'static str) -> Self {
        Self::new(Kind::TimedOut, context)
    }

    /// The time that the request itself gives was up, and whoever worked on it has stopped: nobody's fault. For
    /// links that pass that time on.
    pub fn deadline(context: &'static str) -> Self {
        Self::new(Kind::Deadline, context)
    }

    /// Adds what lies behind the error.
    pub fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether the runner certainly saw nothing of the request.
    pub fn is_not_sent(&self) -> bool {
        self.kind == Kind::NotSent
    }

    /// Whether this link does not know the command, or cannot do what the request asks for.
    pub fn is_unsupported(&self) -> bool {
        self.kind == Kind::Unsupported
    }

    /// Whether the client's body, not the runner, is to blame.
    pub fn is_request_body(&self) -> bool {
        self.kind == Kind::RequestBody
    }

    /// Whether the time that the request itself gives was up.
    pub fn is_deadline(&self) -> bool {
        self.kind == Kind::Deadline
    }

    /// Whether a deadline for a command passed.
    pub fn is_timeout(&self) -> bool {
        self.kind == Kind::TimedOut
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::NotSent => write!(f, "the runner could not be reached: {}", self.context)?,
            Kind::Lost => write!(f, "the connection to the runner failed: {}", self.context)?,
            Kind::Unsupported => write!(f, "the runner does not support {}", self.context)?,
            Kind::RequestBody => f.write_str(self.context)?,
            Kind::Deadline => write!(f, "the time that the request gives is up: {}", self.context)?,
            Kind::TimedOut => write!(f, "the runner did not answer in time: {}", self.context)?,
        }
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for LinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}
