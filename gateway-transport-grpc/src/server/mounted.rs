//! The services of a server, by name.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower_service::Service;

pub(super) type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// One service.
pub(super) trait Serve: Send + Sync {
    fn call(&self, request: Request<Body>) -> Answering;
}

struct Mounted<S>(S);

impl<S> Serve for Mounted<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    fn call(&self, request: Request<Body>) -> Answering {
        let mut service = self.0.clone();
        Box::pin(async move {
            std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
            service.call(request).await
        })
    }
}

/// All services of a server.
#[derive(Default)]
pub(super) struct Services(HashMap<&'static str, Arc<dyn Serve>>);

impl Services {
    /// `false` if there is one of that name.
    pub(super) fn add<S>(&mut self, service: S) -> bool
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
    {
        self.0.insert(S::NAME, Arc::new(Mounted(service))).is_none()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    pub(super) fn call(&self, request: Request<Body>) -> Answering {
        let path = request.uri().path();
        let service =
            path.strip_prefix('/').and_then(|path| path.split_once('/')).map(|(service, _)| service);
        match service.and_then(|service| self.0.get(service)) {
            Some(service) => service.call(request),
            None => {
                let path: String = path.chars().take(200).collect();
                let status = Status::unimplemented(format!("There is no service for `{path}` here."));
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}
