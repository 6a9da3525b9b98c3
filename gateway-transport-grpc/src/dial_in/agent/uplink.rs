//! A registered call.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use gateway_core::RunnerLink;
use gateway_dial_in::agent::{Failed, Heard, Uplink};
use gateway_dial_in::{FromGateway, FromRunner, Order, Unsaid};
use http::HeaderMap;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Status;

use super::dial::{EndsTasks, ended};
use super::serve::serve;
use crate::dial_in::mux::{Mux, RunnerSide};
use crate::dial_in::reader::{Ended, Event, Reader};
use crate::dial_in::wire::{Messages, Outgoing, status_to};
use crate::proto::runner_gateway::{CommandResult, Error, RunnerFrame, gateway_frame, runner_frame};

/// How long the gateway may take to end its side of the call after ours.
const LINGER: Duration = Duration::from_secs(2);

/// A call to a gateway that has let the runner in.
pub(super) struct GrpcUplink {
    reader: Reader<RunnerSide, Incoming>,
    mux: Arc<Mux<RunnerSide>>,
    gate: Arc<dyn RunnerLink>,
    /// One for each request.
    serving: JoinSet<()>,
    finishing: bool,
    /// That it has finished was heard.
    told: bool,
    /// The call has ended, and how: it is told only once.
    ended: Option<&'static str>,
    _tasks: EndsTasks,
    /// Without it the HTTP/2 connection would end with its last call.
    _sender: SendRequest<Outgoing<RunnerSide>>,
}

/// What a [`GrpcUplink`] is made of.
pub(super) struct Parts {
    pub(super) messages: Messages<Incoming>,
    pub(super) mux: Arc<Mux<RunnerSide>>,
    pub(super) gate: Arc<dyn RunnerLink>,
    pub(super) tasks: EndsTasks,
    pub(super) sender: SendRequest<Outgoing<RunnerSide>>,
}

impl GrpcUplink {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { messages, mux, gate, tasks, sender } = parts;
        Self {
            reader: Reader::new(messages, mux.clone()),
            mux,
            gate,
            serving: JoinSet::new(),
            finishing: false,
            told: false,
            ended: None,
            _tasks: tasks,
            _sender: sender,
        }
    }

    fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<Result<Heard, Failed>> {
        if let Some(ended) = self.ended {
            return Poll::Ready(Err(Failed::Broken(ended.into())));
        }
        loop {
            let event = match self.reader.poll(cx) {
                Poll::Ready(event) => event,
                Poll::Pending if self.finishing && !self.told && self.mux.poll_finished(cx).is_ready() => {
                    self.told = true;
                    return Poll::Ready(Ok(Heard::Finished));
                }
                Poll::Pending => return Poll::Pending,
            };
            match event {
                Ok(Event::Word(word)) => return Poll::Ready(Ok(Heard::Word(understand(word)))),
                Ok(Event::Error(Error { code, message })) => {
                    return Poll::Ready(Ok(Heard::Word(FromGateway::Error { code, message })));
                }
                Ok(Event::Begun(stream, head)) => {
                    // The set keeps what has ended until it is asked.
                    while self.serving.try_join_next().is_some() {}
                    self.serving.spawn(serve(stream, head, self.gate.clone()));
                }
                Ok(Event::End) => {
                    self.ended = Some("the call has ended");
                    let status = self.reader.messages().trailers().and_then(Status::from_header_map);
                    return Poll::Ready(Err(ended(status)));
                }
                Err(Ended::Violation(wrong)) => {
                    self.ended = Some("the call was ended");
                    let error = Error { code: "PROTOCOL_ERROR".to_owned(), message: wrong.to_string() };
                    self.mux.farewell(Some(error), HeaderMap::new());
                    return Poll::Ready(Err(Failed::Broken(wrong.into())));
                }
                Err(Ended::Broken(error)) => {
                    self.ended = Some("the call broke");
                    return Poll::Ready(Err(Failed::Broken(error)));
                }
            }
        }
    }
}

#[async_trait]
impl Uplink for GrpcUplink {
    fn say(&self, word: FromRunner) -> Result<(), Unsaid> {
        use runner_frame::Frame;
        let frame = match word {
            FromRunner::Heartbeat(status) => Frame::Heartbeat(status_to(&status)),
            FromRunner::Status(status) => Frame::Status(status_to(&status)),
            FromRunner::Reply { request_id, reply } => Frame::CommandResult(CommandResult {
                request_id,
                error: reply.result.err(),
                status: reply.status.as_ref().map(status_to),
            }),
            FromRunner::Alive => return Ok(()),
        };
        self.mux.say(RunnerFrame { frame: Some(frame) })
    }

    async fn hear(&mut self) -> Result<Heard, Failed> {
        poll_fn(|cx| self.poll_hear(cx)).await
    }

    fn finish(&mut self) {
        self.finishing = true;
        self.mux.leave();
    }

    async fn close(&mut self) {
        self.mux.farewell(None, HeaderMap::new());
        let gone = async { while self.hear().await.is_ok() {} };
        let _ = timeout(LINGER, gone).await;
    }
}

fn understand(word: gateway_frame::Frame) -> FromGateway {
    use gateway_frame::Frame;
    match word {
        Frame::LoadModel(command) => {
            FromGateway::Command { request_id: command.request_id, order: Order::Load(command.model) }
        }
        Frame::UnloadModel(command) => {
            FromGateway::Command { request_id: command.request_id, order: Order::Unload(command.model) }
        }
        Frame::RequestStatus(command) => {
            FromGateway::Command { request_id: command.request_id, order: Order::Status }
        }
        Frame::Ping(_) => FromGateway::Ping,
        // What the mux takes never comes here.
        _ => FromGateway::Alive,
    }
}
