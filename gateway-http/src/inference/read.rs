use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gateway_core::BoxError;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep};

use crate::error::ApiError;

/// What a request's body may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    pub(crate) max_bytes: usize,
    /// The longest that it may stand still.
    pub(crate) idle: Duration,
    /// The longest that it may take as a whole: that of the request.
    pub(crate) total: Option<Duration>,
}

impl BodyLimits {
    /// 64 MiB: a prompt with a few photographs in base64.
    pub(crate) const MAX_BYTES: usize = 64 << 20;
    /// 60 s: what common HTTP servers allow between two reads.
    pub(crate) const IDLE: Duration = Duration::from_secs(60);
}

/// No more than this is set aside because of what a client announces; the rest must have arrived.
const TRUSTED: usize = 1 << 20;

/// Reads a body to its end. One that comes in one piece, as most do, is not copied.
pub(crate) async fn gather<B>(
    body: B,
    headers: &HeaderMap,
    limits: BodyLimits,
) -> Result<Bytes, Box<ApiError>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let least = announced.unwrap_or(0).max(body.size_hint().lower());
    if least > limits.max_bytes as u64 {
        return Err(ApiError::body_too_large(limits.max_bytes as u64));
    }
    let mut body = pin!(body);
    let mut timer = pin!(None::<Sleep>);
    let mut end = None::<Instant>;
    let mut only = Bytes::new();
    let mut all = BytesMut::new();
    while !body.is_end_stream() {
        let frame = std::future::poll_fn(|cx| {
            if let Poll::Ready(frame) = body.as_mut().poll_frame(cx) {
                return Poll::Ready(Ok(frame));
            }
            // Made when there is something to wait for: a body that is here already needs no timer.
            if timer.is_none() {
                let now = Instant::now();
                end = end.or_else(|| limits.total.map(|total| now + total));
                let idle = now + limits.idle;
                timer.set(Some(tokio::time::sleep_until(end.map_or(idle, |end| end.min(idle)))));
            }
            match timer.as_mut().as_pin_mut().map(|timer| timer.poll(cx)) {
                Some(Poll::Ready(())) => Poll::Ready(Err(ApiError::body_timeout())),
                _ => Poll::Pending,
            }
        });
        let data = match frame.await? {
            None => break,
            Some(Ok(frame)) => frame.into_data().unwrap_or_else(|_: Frame<Bytes>| Bytes::new()),
            Some(Err(error)) => {
                let mut failed = ApiError::bad_request("The request's body broke off.");
                failed.detail = Some(error.into().to_string());
                return Err(failed);
            }
        };
        timer.set(None);
        if only.len().max(all.len()) + data.len() > limits.max_bytes {
            return Err(ApiError::body_too_large(limits.max_bytes as u64));
        }
        if all.is_empty() && only.is_empty() {
            only = data;
            continue;
        }
        if all.is_empty() {
            let announced = usize::try_from(least).unwrap_or(0).min(TRUSTED);
            all.reserve(announced.max(only.len() + data.len()));
            all.extend_from_slice(&std::mem::take(&mut only));
        }
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { only } else { all.freeze() })
}
