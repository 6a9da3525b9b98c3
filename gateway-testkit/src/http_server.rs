//! A mock runner with an address.

use std::net::SocketAddr;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::engine::MockEngine;

/// An HTTP/1.1 server on loopback in front of a [`MockEngine`]. Dropping it closes every connection at
/// once, as a killed process does.
#[derive(Debug)]
pub struct MockServer {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl MockServer {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl MockEngine {
    /// Serves this runner over HTTP/1.1 on a free port of the loopback interface.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn serve_http(&self) -> std::io::Result<MockServer> {
        self.serve_http_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Serves this runner over HTTP/1.1 at an address, for a runner that comes back where it was.
    ///
    /// # Errors
    /// The address could not be bound.
    pub async fn serve_http_at(&self, address: SocketAddr) -> std::io::Result<MockServer> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let engine = self.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                while connections.try_join_next().is_some() {}
                let Ok((socket, _)) = listener.accept().await else { return };
                let _ = socket.set_nodelay(true);
                let engine = engine.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let engine = engine.clone();
                        async move { engine.answer(request).await }
                    });
                    let _ = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        Ok(MockServer { address, _task: AbortOnDropHandle::new(task) })
    }
}
