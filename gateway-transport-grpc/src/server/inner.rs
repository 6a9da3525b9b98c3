//! The gateway's own HTTP service, whatever its type.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gateway_core::BoxError;
use http::{Request, Response};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use tower_service::Service;

pub(super) type InnerBody = UnsyncBoxBody<Bytes, BoxError>;
type Answering = Pin<Box<dyn Future<Output = Result<Response<InnerBody>, BoxError>> + Send>>;

/// The way to the gateway. It costs an allocation or two per request, and a call by pointer per chunk.
#[derive(Clone)]
pub(super) struct Inner(Arc<dyn Call>);

trait Call: Send + Sync {
    fn call(&self, request: Request<Full<Bytes>>) -> Answering;
}

impl Inner {
    pub(super) fn new<S, RB>(service: S) -> Self
    where
        S: Service<Request<Full<Bytes>>, Response = Response<RB>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        RB: Body<Data = Bytes> + Send + 'static,
        RB::Error: Into<BoxError>,
    {
        Self(Arc::new(Mounted(service)))
    }

    pub(super) fn call(&self, request: Request<Full<Bytes>>) -> Answering {
        self.0.call(request)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inner")
    }
}

struct Mounted<S>(S);

impl<S, RB> Call for Mounted<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<RB>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    RB: Body<Data = Bytes> + Send + 'static,
    RB::Error: Into<BoxError>,
{
    fn call(&self, request: Request<Full<Bytes>>) -> Answering {
        let mut service = self.0.clone();
        Box::pin(async move {
            std::future::poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
            let response = service.call(request).await.map_err(Into::into)?;
            Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
        })
    }
}

/// The most that is read of an error's words.
pub(super) const LONGEST_ERROR: usize = 64 << 10;
/// The most that is read of the gateway's own lists: those of ten thousand runners with a few kilobytes each.
pub(super) const LONGEST_LIST: usize = 64 << 20;

/// Reads an answer to its end; nothing if it is longer than `most` or breaks off.
pub(super) async fn read_whole(mut body: InnerBody, most: usize) -> Bytes {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Bytes::new() };
        let data = frame.into_data().unwrap_or_default();
        if whole.len() + data.len() > most {
            return Bytes::new();
        }
        whole.extend_from_slice(&data);
    }
    whole.freeze()
}
