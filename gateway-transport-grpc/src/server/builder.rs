use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use gateway_core::{BoxError, Registry};
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic_health::pb::health_server::HealthServer;
use tower_service::Service;

use super::api::Api;
use super::ask::PromptAs;
use super::doorkeeper::Doorkeeper;
use super::health::StandardHealth;
use super::inner::Inner;
use super::mounted::Services;
use super::{GrpcServer, Served, Shared};
use crate::proto::ai_inference::ai_inference_server::AiInferenceServer as PlainServer;
use crate::proto::cy_llm::ai_inference_server::AiInferenceServer as PackagedServer;
use crate::proto::descriptors;

/// Puts a [`GrpcServer`] together.
#[must_use = "a builder does nothing until `build` is called"]
pub struct GrpcServerBuilder {
    inner: Inner,
    prompt_as: PromptAs,
    registry: Option<Arc<dyn Registry>>,
    max_message_bytes: usize,
    reflection: bool,
    services: Services,
    descriptors: Vec<&'static [u8]>,
    /// The first name that two services have.
    twice: Option<&'static str>,
}

/// Why a [`GrpcServer`] cannot be built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GrpcServerError {
    /// Two services have one name.
    #[error("two services are called `{0}`: mount one of them elsewhere")]
    Twice(&'static str),
    /// What was given as a service's descriptors is none.
    #[error("the descriptors of a service cannot be read: {0}")]
    Descriptors(String),
}

impl GrpcServerBuilder {
    /// 64 MiB: the gateway's own bound on a request's body. The contract allows messages of 100 MiB; no prompt
    /// that the gateway takes is as large.
    pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

    pub(super) fn new<S, RB>(gateway: S) -> Self
    where
        S: Service<Request<Full<Bytes>>, Response = Response<RB>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        RB: Body<Data = Bytes> + Send + 'static,
        RB::Error: Into<BoxError>,
    {
        Self {
            inner: Inner::new(gateway),
            prompt_as: PromptAs::default(),
            registry: None,
            max_message_bytes: Self::MAX_MESSAGE_BYTES,
            reflection: true,
            services: Services::default(),
            descriptors: Vec::new(),
            twice: None,
        }
    }

    /// What becomes of prompts: [`PromptAs::Completion`] unless said.
    pub fn prompt_as(mut self, prompt_as: PromptAs) -> Self {
        self.prompt_as = prompt_as;
        self
    }

    /// Where the runners are, that Health can tell how many there are and what they have under way. Without it Health
    /// tells of this server's own requests only.
    pub fn registry(mut self, registry: Arc<dyn Registry>) -> Self {
        self.registry = Some(registry);
        self
    }

    /// The largest message that is taken, in bytes; [`MAX_MESSAGE_BYTES`](Self::MAX_MESSAGE_BYTES) unless said. The
    /// gateway's own limit holds besides.
    pub fn max_message_bytes(mut self, most: usize) -> Self {
        self.max_message_bytes = most;
        self
    }

    /// Whether server reflection is served, which tells everybody what services there are: `true` unless said.
    pub fn reflection(mut self, is_on: bool) -> Self {
        self.reflection = is_on;
        self
    }

    /// Serves another service, too, such as the one at which runners dial in. `descriptors` is its compiled
    /// `FileDescriptorSet`, which reflection tells of; it may be empty.
    pub fn service<S>(mut self, service: S, descriptors: &'static [u8]) -> Self
    where
        S: Service<Request<tonic::body::Body>, Response = Response<tonic::body::Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
    {
        self.add(service);
        if !descriptors.is_empty() {
            self.descriptors.push(descriptors);
        }
        self
    }

    fn add<S>(&mut self, service: S)
    where
        S: Service<Request<tonic::body::Body>, Response = Response<tonic::body::Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
    {
        if !self.services.add(service) {
            self.twice = self.twice.or(Some(S::NAME));
        }
    }

    /// Builds the server.
    ///
    /// # Errors
    /// Two services have one name, or a service's descriptors cannot be read.
    pub fn build(mut self) -> Result<GrpcServer, GrpcServerError> {
        let shared = Arc::new(Shared {
            inner: self.inner.clone(),
            prompt_as: self.prompt_as,
            registry: self.registry.take(),
            max_message_bytes: self.max_message_bytes,
            closing: CancellationToken::new(),
            tally: Arc::default(),
        });
        let (api, most) = (Api(shared.clone()), self.max_message_bytes);
        let packaged = PackagedServer::new(api.clone()).max_decoding_message_size(most);
        let plain = PlainServer::new(api).max_decoding_message_size(most);
        self.add(Doorkeeper::new(packaged, shared.clone()));
        self.add(Doorkeeper::new(plain, shared.clone()));
        if self.reflection {
            self.reflect()?;
        }
        let names = self.services.names().map(str::to_owned).collect();
        self.add(HealthServer::new(StandardHealth::new(shared.clone(), names)));
        if let Some(name) = self.twice {
            return Err(GrpcServerError::Twice(name));
        }
        Ok(GrpcServer(Arc::new(Served { shared, services: self.services })))
    }

    fn reflect(&mut self) -> Result<(), GrpcServerError> {
        let own = [descriptors::CY_LLM, descriptors::AI_INFERENCE, tonic_health::pb::FILE_DESCRIPTOR_SET];
        let sets: Vec<_> = own.into_iter().chain(self.descriptors.iter().copied()).collect();
        let builder = || {
            let builder = tonic_reflection::server::Builder::configure();
            sets.iter().fold(builder, |builder, set| builder.register_encoded_file_descriptor_set(set))
        };
        let unreadable =
            |error: tonic_reflection::server::Error| GrpcServerError::Descriptors(error.to_string());
        let (v1, v1alpha) =
            (builder().build_v1().map_err(unreadable)?, builder().build_v1alpha().map_err(unreadable)?);
        self.add(v1);
        self.add(v1alpha);
        Ok(())
    }
}
