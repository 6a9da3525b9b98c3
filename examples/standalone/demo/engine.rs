//! The demo's engine: an n-gram model behind the OpenAI API, without a server. The agent brings requests
//! here from the tunnel, as it would bring them to a real engine's port.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use gateway_core::{
    Command, CommandReply, LinkBody, LinkDescription, LinkError, LinkRequest, LinkResponse, ModelId,
    ReportedLoad, RequestBody, RunnerLink, RunnerStatus,
};
use http::{HeaderValue, Method, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Limited, StreamBody};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::answer::{Ask, BadRequest, Kind};
use super::ngram::{NGram, Writer};

/// The name of the demo's model.
pub(crate) const MODEL: &str = "demo-ngram";
/// From token to token: about 30 a second, slow enough to see them come.
pub(crate) const PACE: Duration = Duration::from_millis(33);
/// Longest request body in bytes.
const MAX_BODY: usize = 1024 * 1024;

/// A small text generator that looks like an engine. Clones share everything.
#[derive(Clone)]
pub(crate) struct DemoEngine {
    model: Arc<NGram>,
    active: Arc<AtomicU32>,
}

impl DemoEngine {
    /// An engine for a model; engines may share it.
    pub(crate) fn new(model: Arc<NGram>) -> Self {
        Self { model, active: Arc::default() }
    }

    async fn generate(&self, kind: Kind, body: RequestBody) -> Result<LinkResponse, LinkError> {
        let bytes = match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return Err(LinkError::request_body(error)),
        };
        let ask = match Ask::read(kind, &bytes) {
            Ok(ask) if ask.model == MODEL => ask,
            Ok(ask) => {
                let message = format!("the model `{}` is not here; ask for `{MODEL}`", ask.model);
                return Ok(refuse(StatusCode::NOT_FOUND, "model_not_found", &message));
            }
            Err(BadRequest(message)) => {
                return Ok(refuse(StatusCode::BAD_REQUEST, "invalid_request", &message));
            }
        };
        let run = Run::new(self, ask);
        if run.ask.stream {
            return Ok(answer(StatusCode::OK, "text/event-stream", run.into_stream()));
        }
        let whole = run.into_whole().await;
        Ok(answer(StatusCode::OK, "application/json", LinkBody::full(whole.to_string())))
    }

    fn status(&self) -> RunnerStatus {
        let mut status = RunnerStatus::serving(ModelId::new(MODEL));
        let active = self.active.load(Ordering::Relaxed);
        status.load = Some(ReportedLoad { active, queued: 0 });
        status
    }
}

#[async_trait]
impl RunnerLink for DemoEngine {
    fn describe(&self) -> LinkDescription {
        LinkDescription { transport: "demo", address: None }
    }

    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError> {
        let (head, body) = request.into_parts();
        match (&head.method, head.uri.path()) {
            (&Method::POST, "/v1/chat/completions") => self.generate(Kind::Chat, body).await,
            (&Method::POST, "/v1/completions") => self.generate(Kind::Text, body).await,
            (_, path) => {
                let message = format!("the demo's engine has no {} {path}", head.method);
                Ok(refuse(StatusCode::NOT_FOUND, "not_supported", &message))
            }
        }
    }

    async fn command(&self, command: Command) -> Result<CommandReply, LinkError> {
        let result = match command {
            Command::Status => Ok(()),
            Command::LoadModel(id) if id.as_str() == MODEL => Ok(()),
            Command::LoadModel(id) => Err(format!("there is no model `{id}` here")),
            Command::UnloadModel(_) => Err("the demo's model stays in memory".to_owned()),
        };
        Ok(CommandReply { result, status: Some(self.status()) })
    }
}

/// One answer in the making. Dropping it stops the work: there is no task behind it.
struct Run {
    model: Arc<NGram>,
    writer: Writer,
    ask: Ask,
    written: usize,
    next: Instant,
    finish: Option<&'static str>,
    _active: Active,
}

impl Run {
    fn new(engine: &DemoEngine, ask: Ask) -> Self {
        engine.active.fetch_add(1, Ordering::Relaxed);
        Self {
            writer: engine.model.continue_from(&ask.prompt, ask.seed),
            model: engine.model.clone(),
            ask,
            written: 0,
            next: Instant::now() + PACE,
            finish: None,
            _active: Active(engine.active.clone()),
        }
    }

    /// The next piece of text in its time; `None` when the answer is done.
    async fn piece(&mut self) -> Option<&str> {
        if self.finish.is_some() {
            return None;
        }
        sleep_until(self.next).await;
        self.next += PACE;
        self.written += 1;
        let (piece, sentence_ends) = self.writer.next(&self.model);
        self.finish = self.ask.finish(self.written, sentence_ends);
        Some(piece)
    }

    fn usage(&self) -> Value {
        let prompt = self.model.count(&self.ask.prompt);
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": self.written,
            "total_tokens": prompt + self.written,
        })
    }

    async fn into_whole(mut self) -> Value {
        let mut text = String::new();
        while let Some(piece) = self.piece().await {
            text.push_str(piece);
        }
        self.ask.whole(&text, self.finish.unwrap_or("stop"), self.usage())
    }

    fn into_stream(self) -> LinkBody {
        let steps = stream::unfold(Some(self), |run| async {
            let mut run = run?;
            let began = run.written > 0;
            let piece = run.piece().await.map(str::to_owned);
            let Some(piece) = piece else {
                let mut end = event(&run.ask.last_chunk(run.finish.unwrap_or("stop")));
                if run.ask.include_usage {
                    end.push_str(&event(&run.ask.usage_chunk(run.usage())));
                }
                end.push_str("data: [DONE]\n\n");
                return Some((end, None));
            };
            let chunk = event(&run.ask.chunk(&piece, !began));
            Some((chunk, Some(run)))
        });
        let frames = futures_util::StreamExt::map(steps, |text| Ok(Frame::data(Bytes::from(text))));
        LinkBody::new(StreamBody::new(frames))
    }
}

/// Counts a request as long as it is worked on.
struct Active(Arc<AtomicU32>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

fn refuse(status: StatusCode, kind: &str, message: &str) -> LinkResponse {
    let body = json!({"error": {"type": kind, "message": message, "param": null, "code": kind}});
    answer(status, "application/json", LinkBody::full(body.to_string()))
}

fn answer(status: StatusCode, content_type: &'static str, body: LinkBody) -> LinkResponse {
    let mut response = http::Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
