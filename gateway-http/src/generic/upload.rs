//! A request's body on its way through.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use gateway_core::BoxError;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use crate::error::ApiError;

/// Passes a body on as it comes, unless it is too long or stands still while it is wanted.
pub(super) struct Upload<B> {
    body: Pin<Box<B>>,
    idle: Duration,
    /// Made when there is something to wait for.
    timer: Option<Pin<Box<Sleep>>>,
    left: Option<u64>,
    limit: u64,
    fault: Arc<OnceLock<Fault>>,
    /// Where what has come is counted, for whoever wants to know.
    count: Option<Arc<AtomicU64>>,
}

/// What was wrong with a body, for whoever answers the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    StoodStill,
    TooLarge(u64),
}

impl Fault {
    pub(super) fn error(self) -> Box<ApiError> {
        match self {
            Self::StoodStill => ApiError::body_timeout(),
            Self::TooLarge(limit) => ApiError::body_too_large(limit),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StoodStill => "it stood still for too long",
            Self::TooLarge(_) => "it is larger than is allowed",
        })
    }
}

impl std::error::Error for Fault {}

impl<B> Upload<B> {
    pub(super) fn new(
        body: B,
        idle: Duration,
        max: Option<u64>,
        count: Option<Arc<AtomicU64>>,
    ) -> (Self, Arc<OnceLock<Fault>>) {
        let fault = Arc::new(OnceLock::new());
        let limit = max.unwrap_or(u64::MAX);
        let this =
            Self { body: Box::pin(body), idle, timer: None, left: max, limit, fault: fault.clone(), count };
        (this, fault)
    }

    fn fail(&self, fault: Fault) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // The first one counts.
        let _ = self.fault.set(fault);
        Poll::Ready(Some(Err(fault.into())))
    }
}

impl<B> Body for Upload<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match this.body.as_mut().poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.timer = None;
                if let (Some(count), Some(data)) = (&this.count, frame.data_ref()) {
                    count.fetch_add(data.len() as u64, Ordering::Relaxed);
                }
                if let (Some(left), Some(data)) = (&mut this.left, frame.data_ref()) {
                    match left.checked_sub(data.len() as u64) {
                        Some(rest) => *left = rest,
                        None => return this.fail(Fault::TooLarge(this.limit)),
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(other) => Poll::Ready(other.map(|frame| frame.map_err(Into::into))),
            Poll::Pending => {
                let idle = this.idle;
                let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
                if timer.as_mut().poll(cx).is_ready() {
                    return this.fail(Fault::StoodStill);
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
