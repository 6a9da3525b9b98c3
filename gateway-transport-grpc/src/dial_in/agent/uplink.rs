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
use super::serve::{Coming, serve};
use crate::dial_in::mux::{Mux, RunnerSide, Violation};
use crate::dial_in::reader::{Ended, Event, Reader};
use crate::dial_in::wire::{Messages, Outgoing, request_from, status_to};
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
    /// The gateway is to be told why before the connection is cut.
    lingers: bool,
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
            lingers: false,
            _tasks: tasks,
            _sender: sender,
        }
    }

    /// Tells the gateway what it has done.
    fn violated(&mut self, wrong: Violation) -> Failed {
        self.ended = Some("the call was ended");
        self.lingers = true;
        let error = Error { code: "PROTOCOL_ERROR".to_owned(), message: wrong.to_string() };
        self.mux.farewell(Some(error), HeaderMap::new());
        Failed::Broken(wrong.into())
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
                    let end = head.end;
                    let (head, len) = match request_from(head) {
                        Ok(head) => head,
                        Err(wrong) => return Poll::Ready(Err(self.violated(wrong))),
                    };
                    // The set keeps what has ended until it is asked.
                    while self.serving.try_join_next().is_some() {}
                    let request = Coming { head, len, end };
                    self.serving.spawn(serve(stream, request, self.gate.clone()));
                }
                Ok(Event::End) => {
                    self.ended = Some("the call has ended");
                    let status = self.reader.messages().trailers().and_then(Status::from_header_map);
                    return Poll::Ready(Err(ended(status)));
                }
                Err(Ended::Violation(wrong)) => return Poll::Ready(Err(self.violated(wrong))),
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
        let heard = poll_fn(|cx| self.poll_hear(cx)).await;
        if std::mem::take(&mut self.lingers) {
            let _ = timeout(LINGER, poll_fn(|cx| self.reader.poll_drained(cx))).await;
        }
        heard
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
