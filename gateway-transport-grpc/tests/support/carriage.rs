//! Any request and any answer, carried by the contract: what the suite of the test kit sends is put into prompts,
//! what its engine answers into chunks. So the suite runs over the real link and real sockets.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use gateway_core::{
    BoxError, LinkBody, LinkDescription, LinkError, LinkRequest, LinkResponse, RequestBody, RunnerLink,
};
use gateway_testkit::MockEngine;
use gateway_transport_grpc::GrpcLink;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tonic::Status;

use super::{Asked, Reply, Worker, lock};

/// One prompt.
#[derive(Serialize, Deserialize)]
enum Carried {
    /// A request. Its body, unless that comes in parts.
    Open { id: u64, method: String, uri: String, headers: Vec<(String, String)>, body: Option<String> },
    /// A part of a request's body.
    Part { id: u64, data: String },
    /// The body's end.
    End { id: u64 },
}

/// One line of an answer.
#[derive(Serialize, Deserialize)]
enum Line {
    Head { status: u16, headers: Vec<(String, String)> },
    Data(String),
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let pair = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.to_string(), value.to_str().expect("the suite sends text").to_owned())
    };
    headers.iter().map(pair).collect()
}

fn headers(pairs: Vec<(String, String)>) -> HeaderMap {
    let parse = |(name, value): (String, String)| {
        (name.parse::<HeaderName>().expect("a name"), HeaderValue::try_from(value).expect("a value"))
    };
    pairs.into_iter().map(parse).collect()
}

/// The near end.
pub(crate) struct Carriage {
    link: GrpcLink,
    next: AtomicU64,
}

impl Carriage {
    pub(crate) fn new(link: GrpcLink) -> Self {
        Self { link, next: AtomicU64::new(1) }
    }

    async fn call(&self, carried: &Carried) -> Result<LinkResponse, LinkError> {
        let prompt = serde_json::to_string(carried).expect("plain data");
        let body = serde_json::json!({"model": "m", "stream": true, "prompt": prompt}).to_string();
        let request = http::Request::post("/v1/completions").body(RequestBody::from(body)).expect("valid");
        let answer = self.link.send(request).await?;
        if answer.status() == 200 {
            return Ok(answer);
        }
        let words = answer.into_body().collect().await?.to_bytes();
        let words = String::from_utf8_lossy(&words).into_owned();
        Err(if words.contains("unreachable") {
            LinkError::not_sent("the engine").because(words)
        } else {
            LinkError::lost("the engine").because(words)
        })
    }

    /// Sends a body part by part, each when the one before was taken.
    async fn feed(&self, id: u64, mut body: RequestBody) -> Result<(), LinkError> {
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            let carried = match frame {
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    Carried::Part { id, data: BASE64.encode(data) }
                }
                // With it the request is given up, and so the engine hears of it.
                Some(Err(error)) => return Err(LinkError::request_body(error)),
                None => Carried::End { id },
            };
            // Acknowledged with an empty answer.
            self.call(&carried).await?.into_body().collect().await?;
            if matches!(carried, Carried::End { .. }) {
                return Ok(());
            }
        }
    }
}

#[async_trait]
impl RunnerLink for Carriage {
    fn describe(&self) -> LinkDescription {
        self.link.describe()
    }

    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError> {
        let (head, body) = request.into_parts();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (held, stream) = if body.can_replay() {
            (Some(BASE64.encode(body.collect().await.map_err(LinkError::request_body)?.to_bytes())), None)
        } else {
            (None, Some(body))
        };
        let open = Carried::Open {
            id,
            method: head.method.to_string(),
            uri: head.uri.to_string(),
            headers: pairs(&head.headers),
            body: held,
        };
        let opened = self.call(&open);
        let answer = match stream {
            None => opened.await?,
            Some(body) => {
                let mut opened = std::pin::pin!(opened);
                let mut feeding = std::pin::pin!(self.feed(id, body));
                tokio::select! {
                    // The request is to be there before its parts are.
                    biased;
                    answer = &mut opened => answer?,
                    fed = &mut feeding => {
                        fed?;
                        opened.await?
                    }
                }
            }
        };
        Unpacked::new(answer.into_body()).answer().await
    }

    fn close(&self) {
        self.link.close();
    }
}

/// The engine's body, taken out of events.
struct Unpacked {
    events: LinkBody,
    /// The beginning of an event.
    begun: BytesMut,
    /// The beginning of a line.
    line: String,
    lines: VecDeque<Line>,
}

impl Unpacked {
    fn new(events: LinkBody) -> Self {
        Self { events, begun: BytesMut::new(), line: String::new(), lines: VecDeque::new() }
    }

    async fn answer(mut self) -> Result<LinkResponse, LinkError> {
        let head = std::future::poll_fn(|cx| self.poll_line(cx)).await.transpose()?;
        let Some(Line::Head { status, headers: pairs }) = head else {
            return Err(LinkError::lost("no head came"));
        };
        let mut answer = http::Response::new(LinkBody::new(self));
        *answer.status_mut() = status.try_into().expect("a status");
        *answer.headers_mut() = headers(pairs);
        Ok(answer)
    }

    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Line, LinkError>>> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Poll::Ready(Some(Ok(line)));
            }
            match ready!(Pin::new(&mut self.events).poll_frame(cx)) {
                Some(Ok(frame)) => self.unpack(&frame.into_data().expect("data")),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }

    fn unpack(&mut self, data: &[u8]) {
        self.begun.extend_from_slice(data);
        while let Some(end) = self.begun.windows(2).position(|at| at == b"\n\n") {
            let event = self.begun.split_to(end + 2);
            let json = event[..end].strip_prefix(b"data: ").expect("an event");
            if json == b"[DONE]" {
                continue;
            }
            let event: serde_json::Value = serde_json::from_slice(json).expect("JSON");
            self.line.push_str(event["choices"][0]["text"].as_str().expect("text"));
            while let Some(end) = self.line.find('\n') {
                let line: String = self.line.drain(..=end).collect();
                self.lines.push_back(serde_json::from_str(&line).expect("a line of ours"));
            }
        }
    }
}

impl Body for Unpacked {
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        self.poll_line(cx).map(|line| {
            line.map(|line| match line? {
                Line::Data(data) => Ok(Frame::data(BASE64.decode(data).expect("base64").into())),
                Line::Head { .. } => Err(LinkError::lost("a second head")),
            })
        })
    }
}

/// Bodies on their way to the engine, by the ids of their requests.
type Uploads = Arc<Mutex<HashMap<u64, Upload>>>;
type Piece = Result<Bytes, BoxError>;

/// Made by whoever comes first, the request or the first of its parts.
struct Upload {
    sender: mpsc::Sender<Piece>,
    receiver: Option<mpsc::Receiver<Piece>>,
}

/// An upload that nobody takes any more.
struct Forgotten(Uploads, u64);

impl Drop for Forgotten {
    fn drop(&mut self) {
        lock(&self.0).remove(&self.1);
    }
}

impl Upload {
    fn new() -> Self {
        let (sender, receiver) = mpsc::channel(1);
        Self { sender, receiver: Some(receiver) }
    }
}

/// The far end: a worker that asks `engine`.
pub(crate) fn worker(engine: MockEngine) -> Worker {
    let uploads = Uploads::default();
    Worker::new(move |asked, reply| {
        let (engine, uploads) = (engine.link(), uploads.clone());
        async move {
            let gone = reply.clone();
            tokio::select! {
                () = gone.cancelled() => {}
                () = carry(engine, uploads, asked, reply) => {}
            }
        }
    })
}

async fn carry(engine: Arc<dyn RunnerLink>, uploads: Uploads, asked: Asked, reply: Reply) {
    match serde_json::from_str(&asked.prompt).expect("a prompt of ours") {
        Carried::Part { id, data } => {
            let sender = lock(&uploads).entry(id).or_insert_with(Upload::new).sender.clone();
            let _ = sender.send(Ok(BASE64.decode(data).expect("base64").into())).await;
            reply.end().await;
        }
        Carried::End { id } => {
            lock(&uploads).remove(&id);
            reply.end().await;
        }
        Carried::Open { id, method, uri, headers: pairs, body } => {
            let mut forgotten = None;
            let body = match body {
                Some(held) => RequestBody::from(BASE64.decode(held).expect("base64")),
                None => {
                    forgotten = Some(Forgotten(uploads.clone(), id));
                    let taken = lock(&uploads).entry(id).or_insert_with(Upload::new).receiver.take();
                    RequestBody::stream(Fed(taken.expect("opened once")))
                }
            };
            let mut request = http::Request::new(body);
            *request.method_mut() = method.parse().expect("a method");
            *request.uri_mut() = uri.parse().expect("a path");
            *request.headers_mut() = headers(pairs);
            answer(engine, request, reply).await;
            drop(forgotten);
        }
    }
}

async fn answer(engine: Arc<dyn RunnerLink>, request: LinkRequest, reply: Reply) {
    let answer = match engine.send(request).await {
        Ok(answer) => answer,
        Err(error) if error.is_not_sent() => return reply.fail(Status::unavailable("unreachable")).await,
        Err(_) => return reply.fail(Status::internal("cut")).await,
    };
    let (head, mut body) = answer.into_parts();
    let line = Line::Head { status: head.status.as_u16(), headers: pairs(&head.headers) };
    say(&reply, &line).await;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                let data = frame.into_data().unwrap_or_default();
                if !say(&reply, &Line::Data(BASE64.encode(data))).await {
                    return;
                }
            }
            Err(_) => return reply.fail(Status::internal("cut")).await,
        }
    }
    reply.end().await;
}

async fn say(reply: &Reply, line: &Line) -> bool {
    reply.text(serde_json::to_string(line).expect("plain data") + "\n").await
}

struct Fed(mpsc::Receiver<Piece>);

impl Body for Fed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
