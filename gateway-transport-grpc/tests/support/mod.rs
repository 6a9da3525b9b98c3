//! A worker of the contract over real sockets, whose every answer is scripted.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod carriage;
mod served;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gateway_core::{LinkBody, LinkRequest, LinkResponse, RequestBody, RunnerLink};
use gateway_transport_grpc::{Dialect, GrpcLink, GrpcLinkBuilder};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::metadata::MetadataMap;

pub(crate) use served::Served;

/// Longer than anything takes that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A request as the worker saw it, in the terms of the dialect that has all fields.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) model_id: String,
    pub(crate) prompt: String,
    pub(crate) adapter: String,
    pub(crate) priority: i32,
    pub(crate) max_new_tokens: u32,
    pub(crate) temperature: f64,
    pub(crate) top_p: f64,
    pub(crate) repetition_penalty: f64,
    pub(crate) trace_id: String,
    pub(crate) tenant: String,
    pub(crate) player_id: String,
    pub(crate) locale: String,
    pub(crate) extra: HashMap<String, String>,
    pub(crate) worker_hint: String,
    /// The call's metadata.
    pub(crate) call: MetadataMap,
}

/// A message of an answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said {
    pub(crate) chunk: String,
    pub(crate) is_last: bool,
}

/// The answer's end on the worker's side.
#[derive(Debug, Clone)]
pub(crate) struct Reply(mpsc::Sender<Result<Said, Status>>);

impl Reply {
    /// Sends a chunk. `false` if the call was cancelled.
    pub(crate) async fn text(&self, chunk: impl Into<String>) -> bool {
        self.0.send(Ok(Said { chunk: chunk.into(), is_last: false })).await.is_ok()
    }

    /// Sends the last message.
    pub(crate) async fn end(&self) {
        let _ = self.0.send(Ok(Said { chunk: String::new(), is_last: true })).await;
    }

    /// Ends the call with this status.
    pub(crate) async fn fail(&self, status: Status) {
        let _ = self.0.send(Err(status)).await;
    }

    /// Waits until the call was cancelled.
    pub(crate) async fn cancelled(&self) {
        self.0.closed().await;
    }
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;
type Wellbeing = (bool, HashMap<String, String>);
type Predict = dyn Fn(Asked, Reply) -> Work + Send + Sync;
type Control =
    dyn Fn(&str, &HashMap<String, String>) -> Result<(String, HashMap<String, String>), Status> + Send + Sync;

/// What a worker does. Cheap to clone; a worker that is started again goes on where it was.
#[derive(Clone)]
pub(crate) struct Worker {
    predict: Arc<Predict>,
    control: Arc<Control>,
    health: Arc<Mutex<Result<Wellbeing, Status>>>,
    token: Option<Arc<str>>,
    /// The most streams on one connection.
    pub(crate) streams: u32,
    pub(crate) seen: Arc<Mutex<Vec<Asked>>>,
}

impl Worker {
    /// One that answers each request so.
    pub(crate) fn new<F, W>(predict: F) -> Self
    where
        F: Fn(Asked, Reply) -> W + Send + Sync + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        Self {
            predict: Arc::new(move |asked, reply| Box::pin(predict(asked, reply))),
            control: Arc::new(|command, _| Ok((format!("{command}_response"), payload([("status", "ok")])))),
            health: Arc::new(Mutex::new(Ok((true, HashMap::new())))),
            token: None,
            streams: 4096,
            seen: Arc::default(),
        }
    }

    /// One that sends these chunks.
    pub(crate) fn says<const N: usize>(chunks: [&'static str; N]) -> Self {
        Self::new(move |_, reply| async move {
            for chunk in chunks {
                reply.text(chunk).await;
            }
            reply.end().await;
        })
    }

    /// One that ends each call with this status.
    pub(crate) fn fails(status: Status) -> Self {
        Self::new(move |_, reply| {
            let status = status.clone();
            async move { reply.fail(status).await }
        })
    }

    pub(crate) fn control(
        mut self,
        control: impl Fn(&str, &HashMap<String, String>) -> Result<(String, HashMap<String, String>), Status>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.control = Arc::new(control);
        self
    }

    /// One that has these models.
    pub(crate) fn models(self, csv: &'static str) -> Self {
        self.control(move |command, _| {
            Ok((format!("{command}_response"), payload([("status", "ok"), ("models", csv)])))
        })
    }

    pub(crate) fn token(mut self, token: &str) -> Self {
        self.token = Some(token.into());
        self
    }

    pub(crate) fn set_health(&self, healthy: bool, metrics: HashMap<String, String>) {
        *lock(&self.health) = Ok((healthy, metrics));
    }

    pub(crate) fn fail_health(&self, status: Status) {
        *lock(&self.health) = Err(status);
    }

    /// The request that came last.
    pub(crate) fn last(&self) -> Asked {
        lock(&self.seen).last().expect("a request").clone()
    }

    /// On a free port of this machine.
    pub(crate) async fn serve(&self, dialect: Dialect) -> Served {
        Served::tcp(self.clone(), dialect, "127.0.0.1:0").await
    }
}

pub(crate) fn payload<const N: usize>(pairs: [(&str, &str); N]) -> HashMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) const DIALECTS: [Dialect; 2] = [Dialect::Packaged, Dialect::Plain];

/// A link with every default.
pub(crate) fn link(served: &Served) -> GrpcLink {
    build(GrpcLink::builder(served.address()))
}

pub(crate) fn build(builder: GrpcLinkBuilder) -> GrpcLink {
    builder.build().expect("a valid address")
}

pub(crate) fn post(path: &str, body: impl Into<Bytes>) -> LinkRequest {
    let request = http::Request::post(path).header("content-type", "application/json");
    request.header("x-request-id", "req-1").body(RequestBody::from(body)).expect("valid")
}

pub(crate) fn chat(body: impl Into<Bytes>) -> LinkRequest {
    post("/v1/chat/completions", body)
}

/// A chat that is streamed.
pub(crate) fn streamed() -> LinkRequest {
    chat(r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#)
}

/// A chat that is not.
pub(crate) fn whole() -> LinkRequest {
    chat(r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#)
}

pub(crate) async fn sent(link: &GrpcLink, request: LinkRequest) -> LinkResponse {
    let sending = tokio::time::timeout(PATIENCE, link.send(request));
    sending.await.expect("an answer in time").expect("an answer")
}

/// The next chunk of data, or `None` at the end.
pub(crate) async fn next(body: &mut LinkBody) -> Option<Result<Bytes, gateway_core::LinkError>> {
    let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("a chunk in time")?;
    Some(frame.map(|frame| frame.into_data().expect("data")))
}

pub(crate) async fn text(response: LinkResponse) -> Result<String, gateway_core::LinkError> {
    let mut body = response.into_body();
    let mut all = Vec::new();
    while let Some(chunk) = next(&mut body).await {
        all.extend_from_slice(&chunk?);
    }
    Ok(String::from_utf8(all).expect("UTF-8"))
}

pub(crate) async fn json(response: LinkResponse) -> serde_json::Value {
    let text = text(response).await.expect("a whole answer");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The events of a stream, without the last, which must be `[DONE]`.
pub(crate) fn events(text: &str) -> Vec<serde_json::Value> {
    let mut events: Vec<&str> = text.split_terminator("\n\n").collect();
    assert_eq!(events.pop(), Some("data: [DONE]"), "{text}");
    let parse = |event: &&str| {
        let json = event.strip_prefix("data: ").unwrap_or_else(|| panic!("no event: {event}"));
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
    };
    events.iter().map(parse).collect()
}

/// The text in the events of a chat.
pub(crate) fn content(events: &[serde_json::Value]) -> String {
    events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
}
