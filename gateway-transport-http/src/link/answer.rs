//! A runner's answer on its way back.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use gateway_core::LinkError;
use http::{HeaderMap, HeaderName, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::connection::Connection;
use super::pool::Pool;

/// The body of an answer. It has the connection for itself and gives it to the pool with the last byte;
/// dropped before that, it closes it.
pub(super) struct Answer {
    body: Incoming,
    connection: Option<Connection>,
    pool: Arc<Pool>,
}

impl Answer {
    pub(super) fn new(body: Incoming, connection: Connection, pool: Arc<Pool>) -> Self {
        let mut answer = Self { body, connection: Some(connection), pool };
        if answer.body.is_end_stream() {
            answer.release();
        }
        answer
    }

    fn release(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && connection.settle()
        {
            self.pool.check_in(connection);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        let this = self.get_mut();
        let Some(connection) = &mut this.connection else { return Poll::Ready(None) };
        match std::task::ready!(connection.poll_frame(cx, &mut this.body)) {
            Some(Ok(frame)) => {
                if this.body.is_end_stream() {
                    this.release();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.connection = None;
                Poll::Ready(Some(Err(LinkError::lost("the answer broke off").because(error))))
            }
            None => {
                this.release();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.connection.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Takes out what concerns one connection only, and what the runner's `connection` header names.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let gone: Vec<HeaderName> = headers.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
    if gone.is_empty() {
        return;
    }
    while let Some(value) = headers.remove(header::CONNECTION) {
        let named: Vec<HeaderName> = (value.to_str().unwrap_or_default().split(','))
            .filter_map(|name| name.trim().parse().ok())
            // A runner must not be able to take the length of its own answer away.
            .filter(|name| *name != header::CONTENT_LENGTH && *name != header::CONTENT_TYPE)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in gone {
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "transfer-encoding"
            | "te"
            | "trailer"
            | "upgrade"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
    )
}
