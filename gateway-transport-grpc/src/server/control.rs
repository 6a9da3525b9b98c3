//! Commands: each is what the gateway's HTTP API has for it, with the caller's credentials.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Method, StatusCode, Uri};
use serde::Deserialize;
use serde_json::json;
use tonic::Status;

use super::Shared;
use super::caller::Caller;
use super::inner::{LONGEST_ERROR, LONGEST_LIST, read_whole};
use crate::contract::ControlMessage;
use crate::status::to_grpc::Failure;

const KNOWN: &str = "list_models, load_model, unload_model, ping";

/// Runners that unload a model at the same time.
const AT_ONCE: usize = 16;

/// How a command ended.
struct Reply {
    is_ok: bool,
    message: String,
    more: Vec<(&'static str, String)>,
}

impl Reply {
    fn ok(message: impl Into<String>) -> Self {
        Self { is_ok: true, message: message.into(), more: Vec::new() }
    }

    fn error(message: impl Into<String>) -> Self {
        Self { is_ok: false, ..Self::ok(message) }
    }

    fn with(mut self, key: &'static str, value: String) -> Self {
        self.more.push((key, value));
        self
    }
}

/// Does what a message asks for. Dropped early, commands that were sent go on or not as their runner's link says.
///
/// # Errors
/// The caller may not, or the gateway cannot. What a runner could not do stands in the reply.
pub(super) async fn control(
    shared: Arc<Shared>,
    caller: Caller,
    asked: ControlMessage,
) -> Result<ControlMessage, Status> {
    let ControlMessage { trace_id, command, payload } = asked;
    let call = Arc::new(Call { shared, caller, trace_id: trace_id.clone() });
    let reply = match command.as_str() {
        "list_models" => call.list_models().await?,
        "load_model" => call.change(Change::Load, &payload).await?,
        "unload_model" => call.change(Change::Unload { force: is_forced(&payload) }, &payload).await?,
        // Asks for nothing, but tells whether the credentials do.
        "ping" => call.list_models().await.map(|_| Reply::ok("pong"))?,
        other => {
            let other: String = other.chars().take(100).collect();
            Reply::error(format!("The command `{other}` is not known here; these are: {KNOWN}."))
        }
    };
    let mut payload: HashMap<String, String> =
        reply.more.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    payload.insert("status".to_owned(), if reply.is_ok { "ok" } else { "error" }.to_owned());
    payload.insert("message".to_owned(), reply.message);
    Ok(ControlMessage { trace_id, command: format!("{command}_response"), payload })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Load,
    Unload { force: bool },
}

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

#[derive(Deserialize)]
struct Runners {
    runners: Vec<RunnerInfo>,
}

#[derive(Deserialize)]
struct RunnerInfo {
    id: String,
    loaded_models: Vec<String>,
    available_models: Vec<String>,
}

#[derive(Deserialize, Default)]
struct Done {
    #[serde(default)]
    message: String,
}

struct Call {
    shared: Arc<Shared>,
    caller: Caller,
    trace_id: String,
}

impl Call {
    async fn list_models(&self) -> Result<Reply, Status> {
        let models: Models = self.get("/v1/models").await?;
        let names: Vec<_> = models.data.into_iter().map(|model| model.id).collect();
        Ok(Reply::ok(format!("{} models", names.len())).with("models", names.join(",")))
    }

    async fn change(
        self: &Arc<Self>,
        change: Change,
        payload: &HashMap<String, String>,
    ) -> Result<Reply, Status> {
        let Some(model) = payload.get("model_id").filter(|model| !model.is_empty()) else {
            return Ok(Reply::error("The payload must name the model as `model_id`."));
        };
        // Asked for even if a runner is named: so whoever may not learns that and nothing else.
        let Runners { runners } = self.get("/admin/runners").await?;
        if let Some(runner) = payload.get("runner") {
            return self.one(change, runner, model).await;
        }
        match change {
            Change::Load => self.load(&runners, model).await,
            Change::Unload { force } => self.unload(&runners, model, force).await,
        }
    }

    /// One runner has it loaded in the end.
    async fn load(&self, runners: &[RunnerInfo], model: &String) -> Result<Reply, Status> {
        if let Some(runner) = runners.iter().find(|runner| runner.loaded_models.contains(model)) {
            return Ok(
                Reply::ok(format!("Model `{model}` is loaded already")).with("runners", runner.id.clone())
            );
        }
        match runners.iter().find(|runner| runner.available_models.contains(model)) {
            Some(runner) => self.one(Change::Load, &runner.id, model).await,
            None => Ok(Reply::error(format!("No runner has the model `{model}`."))),
        }
    }

    /// No runner has it loaded in the end.
    async fn unload(
        self: &Arc<Self>,
        runners: &[RunnerInfo],
        model: &String,
        force: bool,
    ) -> Result<Reply, Status> {
        let loaded = runners.iter().filter(|runner| runner.loaded_models.contains(model));
        let unloading: Vec<_> =
            loaded.map(|runner| self.clone().unload_one(runner.id.clone(), model.clone(), force)).collect();
        let mut replies = stream::iter(unloading).buffered(AT_ONCE);
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        while let Some((runner, reply)) = replies.next().await {
            match reply? {
                reply if reply.is_ok => done.push(runner),
                reply => failed.push(format!("{runner}: {}", reply.message)),
            }
        }
        let reply = match (&done[..], &failed[..]) {
            ([], []) => Reply::error(format!("No runner has the model `{model}` loaded.")),
            (_, []) => Reply::ok(format!("Model `{model}` is unloaded")),
            _ => Reply::error(failed.join("; ")),
        };
        Ok(reply.with("runners", done.join(",")))
    }

    async fn unload_one(
        self: Arc<Self>,
        runner: String,
        model: String,
        force: bool,
    ) -> (String, Result<Reply, Status>) {
        let reply = self.one(Change::Unload { force }, &runner, &model).await;
        (runner, reply)
    }

    async fn one(&self, change: Change, runner: &str, model: &str) -> Result<Reply, Status> {
        let (verb, body) = match change {
            Change::Load => ("load-model", json!({ "model_id": model })),
            Change::Unload { force } => ("unload-model", json!({ "model_id": model, "force": force })),
        };
        let path = format!("/admin/runners/{}/{verb}", encoded(runner));
        let (status, body) = self.send(Method::POST, &path, body.to_string().into(), LONGEST_ERROR).await?;
        let Done { message } = serde_json::from_slice(&body).unwrap_or_default();
        let reply = if status == StatusCode::OK { Reply::ok(message) } else { Reply::error(message) };
        Ok(reply.with("runners", runner.to_owned()))
    }

    async fn get<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<T, Status> {
        let (status, body) = self.send(Method::GET, path, Bytes::new(), LONGEST_LIST).await?;
        if status != StatusCode::OK {
            return Err(Failure::of_answer(status, &http::HeaderMap::new(), &body).into_status());
        }
        serde_json::from_slice(&body).map_err(|error| {
            Status::internal(format!("What the gateway says at {path} cannot be read: {error}"))
        })
    }

    /// # Errors
    /// The gateway does not let the caller, whatever the command.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        most: usize,
    ) -> Result<(StatusCode, Bytes), Status> {
        let uri =
            Uri::try_from(path).map_err(|_| Status::invalid_argument("The runner's name is too long."))?;
        let request = self.caller.request(method, uri, &self.trace_id, body);
        let response = self.shared.inner.call(request).await;
        let response =
            response.map_err(|error| Status::unavailable(format!("The gateway failed: {error}")))?;
        let (head, body) = response.into_parts();
        let body = read_whole(body, most).await;
        match head.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => {
                Err(Failure::of_answer(head.status, &head.headers, &body).into_status())
            }
            status => Ok((status, body)),
        }
    }
}

fn is_forced(payload: &HashMap<String, String>) -> bool {
    payload.get("force").is_some_and(|force| force == "true")
}

/// One segment of a path.
fn encoded(segment: &str) -> String {
    use std::fmt::Write;
    let mut path = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(byte.into());
        } else {
            // Writing to a string cannot fail.
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}
