//! A registered connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use gateway_core::{BoxError, CommandReply};
use gateway_dial_in::gateway::{Connection, End, Refusal, Voice};
use gateway_dial_in::{FromGateway, FromRunner, Order, Unsaid};
use http::HeaderMap;
use http_body::Body;
use tonic::{Code, Status};

use super::mux::{GatewaySide, Mux};
use super::reader::{Ended, Event, Reader};
use super::wire::status_from;
use crate::proto::runner_gateway::{
    CommandResult, Error, GatewayFrame, ModelCommand, Ping, StatusCommand, gateway_frame, runner_frame,
};

/// For ends that are nobody's fault: nothing is said but the status.
pub(super) const UNAVAILABLE: &str = "";

/// A call whose runner is in.
pub(super) struct GrpcConnection<B> {
    reader: Reader<GatewaySide, B>,
    mux: Arc<Mux<GatewaySide>>,
    /// This end has said that it ends.
    closing: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<B> GrpcConnection<B> {
    pub(super) fn new(reader: Reader<GatewaySide, B>, mux: Arc<Mux<GatewaySide>>) -> Self {
        let closing = mux.clone();
        Self { reader, mux, closing: Box::pin(async move { closing.closing().await }) }
    }

    fn understand(&self, word: runner_frame::Frame) -> Option<FromRunner> {
        use runner_frame::Frame;
        Some(match word {
            Frame::Heartbeat(status) => FromRunner::Heartbeat(Arc::new(status_from(status))),
            Frame::Status(status) => FromRunner::Status(status_from(status)),
            Frame::CommandResult(CommandResult { request_id, error, status }) => {
                let reply =
                    CommandReply { result: error.map_or(Ok(()), Err), status: status.map(status_from) };
                FromRunner::Reply { request_id, reply }
            }
            Frame::Register(_) => {
                farewell(&self.mux, Refusal::PROTOCOL_ERROR, "a second `register` on one call");
                return None;
            }
            // What the mux takes never comes here.
            _ => FromRunner::Alive,
        })
    }
}

#[async_trait]
impl<B> Connection for GrpcConnection<B>
where
    B: Body<Data = Bytes> + Send + Unpin,
    B::Error: Into<BoxError>,
{
    fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<Option<FromRunner>> {
        loop {
            let Poll::Ready(event) = self.reader.poll(cx) else {
                // By somebody who found out what the runner has done, or by the link's own end.
                return self.closing.as_mut().poll(cx).map(|()| None);
            };
            match event {
                Ok(Event::Word(word)) => return Poll::Ready(self.understand(word)),
                Ok(Event::Error(error)) => {
                    tracing::warn!(code = ?error.code, message = ?error.message, "a runner reports an error");
                }
                // Runners begin no streams.
                Ok(Event::Begun(..)) => {}
                Ok(Event::End) => {
                    goodbye(&self.mux);
                    return Poll::Ready(None);
                }
                Err(Ended::Violation(wrong)) => {
                    tracing::warn!(%wrong, "a runner does not keep to the protocol");
                    farewell(&self.mux, Refusal::PROTOCOL_ERROR, &wrong.to_string());
                    return Poll::Ready(None);
                }
                Err(Ended::Broken(error)) => {
                    tracing::debug!(%error, "a runner's call broke");
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn voice(&self) -> Arc<dyn Voice> {
        self.mux.clone()
    }

    async fn close(&mut self, why: End) {
        end(&self.mux, why);
        self.mux.written().await;
    }
}

impl<B> Drop for GrpcConnection<B> {
    fn drop(&mut self) {
        // Has no effect if it was said before why.
        end(&self.mux, End::Silent);
    }
}

impl Voice for Mux<GatewaySide> {
    fn say(&self, word: FromGateway) -> Result<(), Unsaid> {
        use gateway_frame::Frame;
        let frame = match word {
            FromGateway::Command { request_id, order: Order::Load(model) } => {
                Frame::LoadModel(ModelCommand { request_id, model })
            }
            FromGateway::Command { request_id, order: Order::Unload(model) } => {
                Frame::UnloadModel(ModelCommand { request_id, model })
            }
            FromGateway::Command { request_id, order: Order::Status } => {
                Frame::RequestStatus(StatusCommand { request_id })
            }
            FromGateway::Ping => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Frame::Ping(Ping { timestamp: i64::try_from(now.as_secs()).unwrap_or(i64::MAX) })
            }
            FromGateway::Error { code, message } => Frame::Error(Error { code, message }),
            FromGateway::Alive => return Ok(()),
        };
        Mux::say(self, GatewayFrame { frame: Some(frame) })
    }
}

fn end(mux: &Mux<GatewaySide>, why: End) {
    match why {
        // The error was said when it happened; requests had time to end since.
        End::Replaced => {
            mux.farewell(None, trailers(status_of(Refusal::REPLACED), "replaced by a newer call"))
        }
        End::Silent => farewell(mux, Refusal::TIMEOUT, "no sign of life"),
        End::Disconnected | End::TooSlow | End::Closed | End::Shutdown => {
            farewell(mux, UNAVAILABLE, "the gateway ends the connection");
        }
    }
}

/// Ends the call as the runner wants it.
pub(super) fn goodbye(mux: &Mux<GatewaySide>) {
    mux.farewell(None, trailers(Code::Ok, ""));
}

/// Ends the call with an error, unless it has ended.
pub(super) fn farewell(mux: &Mux<GatewaySide>, code: &str, message: &str) {
    let error = Error { code: code.to_owned(), message: message.to_owned() };
    let error = (code != UNAVAILABLE).then_some(error);
    mux.farewell(error, trailers(status_of(code), message));
}

/// As the table in the .proto file has it.
fn status_of(code: &str) -> Code {
    match code {
        Refusal::AUTH_FAILED => Code::Unauthenticated,
        Refusal::PROTOCOL_ERROR => Code::InvalidArgument,
        Refusal::TIMEOUT => Code::DeadlineExceeded,
        Refusal::REPLACED => Code::Aborted,
        UNAVAILABLE => Code::Unavailable,
        _ => Code::FailedPrecondition,
    }
}

fn trailers(code: Code, message: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // Fails for texts that no header holds, which are escaped.
    let _ = Status::new(code, message).add_header(&mut trailers);
    trailers
}
