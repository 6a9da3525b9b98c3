//! Where runners come from.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::registry::Registry;

/// Something that brings runners into the registry and takes them out again: a fixed list, a discovery
/// service, or a door where they dial in.
#[async_trait]
pub trait RunnerSource: Send + 'static {
    /// The door where its runners dial in, if it has one. Asked once, before [`run`](RunnerSource::run).
    fn door(&self) -> Option<Arc<dyn Door>> {
        None
    }

    /// Brings runners into `registry` until `stop` is cancelled, then takes its own out again and ends
    /// every task that it started before it returns.
    async fn run(self: Box<Self>, registry: Arc<dyn Registry>, stop: CancellationToken);
}

/// An HTTP path where runners dial in.
///
/// No HTTP server is named here: an acceptor that needs the connection itself finds what the host's
/// server put into the request's extensions (such as hyper's `OnUpgrade`).
pub trait Door: Send + Sync + 'static {
    /// The path, such as `/ws/runners`.
    fn path(&self) -> &str;

    /// Answers a runner's request. Must not wait: what takes longer belongs into a task of the source.
    fn knock(&self, request: http::request::Parts) -> http::Response<Bytes>;
}
