use std::sync::Arc;

use bytes::Bytes;
use gateway_core::{BoxError, Command, CommandReply, ModelId, OrderError, RequestId, Runner, RunnerChange};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body::Body;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::gateway::Shared;
use crate::inference::{BodyLimits, gather};
use crate::respond::json;
use crate::route::{AdminCommand, percent_decoded};

/// A command that a runner has answered, or could not.
#[derive(Debug, Clone)]
pub(crate) struct CommandDone {
    pub(super) runner: Arc<str>,
    pub(super) request_id: RequestId,
    pub(super) command: &'static str,
    pub(super) model: Option<ModelId>,
    pub(super) error: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    success: bool,
    message: String,
}

fn answer(status: StatusCode, success: bool, message: impl Into<String>) -> Response<Bytes> {
    json(status, &Answer { success, message: message.into() })
}

#[derive(Deserialize)]
struct LoadRequest {
    model_id: ModelName,
}

#[derive(Deserialize)]
struct UnloadRequest {
    model_id: ModelName,
    /// Whether to unload it although requests use it.
    #[serde(default)]
    force: bool,
}

struct ModelName(ModelId);

impl<'de> Deserialize<'de> for ModelName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        ModelId::new(name).map(Self).map_err(serde::de::Error::custom)
    }
}

#[derive(Deserialize)]
struct DrainRequest {
    drain: bool,
}

/// `POST /admin/runners/{id}/load-model`, `/unload-model`, `/drain` and `/request-status`.
///
/// A model that is in use is not unloaded (409) unless the body says `"force": true`. From before the command is
/// sent nothing new is sent to a model that is to be unloaded.
///
/// Answered when the runner has answered. If the admin goes away first, the command's future is dropped; the
/// link says what that means for the runner.
pub(crate) async fn command<B>(
    shared: &Shared,
    command: AdminCommand,
    id: &str,
    request: &Parts,
    body: B,
    request_id: &RequestId,
) -> Result<Response<Bytes>, Box<ApiError>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    // A model's name fits many times over.
    let limits = BodyLimits { max_bytes: shared.limits.max_bytes.min(64 << 10), ..shared.limits };
    let body = gather(body, &request.headers, limits).await?;
    let fleet = shared.dispatcher.registry().fleet();
    let runner = percent_decoded(id).and_then(|id| fleet.runner(&id).cloned());
    let Some(runner) = runner else {
        return Ok(answer(StatusCode::NOT_FOUND, false, "Runner not found or offline"));
    };
    let mut force = false;
    let command = match command {
        AdminCommand::Drain => return drain(shared, &runner, &body),
        AdminCommand::Load => Command::LoadModel(read::<LoadRequest>(&body)?.model_id.0),
        AdminCommand::Unload => {
            let unload: UnloadRequest = read(&body)?;
            force = unload.force;
            Command::UnloadModel(unload.model_id.0)
        }
        AdminCommand::Status => Command::Status,
    };
    // One that is not operational may still say how it is.
    if command != Command::Status && !runner.status().health.is_operational() {
        return Ok(answer(StatusCode::BAD_REQUEST, false, "Runner is not operational"));
    }
    let lifecycle = shared.dispatcher.lifecycle();
    let result = match &command {
        Command::LoadModel(model) => lifecycle.load(&runner, model).await,
        Command::UnloadModel(model) => lifecycle.unload(&runner, model, force).await,
        Command::Status => status(shared, &runner).await,
    };
    Ok(done(shared, &runner, &command, request_id, result))
}

fn read<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Box<ApiError>> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("The request's body is wrong: {error}.")))
}

/// An empty body means that the runner is to be drained.
fn drain(shared: &Shared, runner: &Runner, body: &[u8]) -> Result<Response<Bytes>, Box<ApiError>> {
    let drain = body.is_empty() || read::<DrainRequest>(body)?.drain;
    if !shared.dispatcher.registry().update(runner.key(), RunnerChange::Drain(drain)) {
        return Ok(answer(StatusCode::NOT_FOUND, false, "Runner not found or offline"));
    }
    let message = if drain { "Runner takes nothing new" } else { "Runner takes requests again" };
    Ok(answer(StatusCode::OK, true, message))
}

async fn status(shared: &Shared, runner: &Runner) -> Result<(), OrderError> {
    let CommandReply { result, status } = runner.link().command(Command::Status).await?;
    // Fresh from the runner: the next request for a model need not wait for its next report.
    if let Some(status) = status {
        shared.dispatcher.registry().update(runner.key(), RunnerChange::Status(status));
    }
    result.map_err(OrderError::Refused)
}

fn done(
    shared: &Shared,
    runner: &Runner,
    command: &Command,
    request_id: &RequestId,
    result: Result<(), OrderError>,
) -> Response<Bytes> {
    let status = match &result {
        Ok(()) => StatusCode::OK,
        Err(OrderError::InUse { .. } | OrderError::UnderWay { .. }) => StatusCode::CONFLICT,
        Err(OrderError::Link(error)) if error.is_unsupported() => StatusCode::NOT_IMPLEMENTED,
        Err(OrderError::Link(error)) if error.is_timeout() => StatusCode::GATEWAY_TIMEOUT,
        Err(_) => StatusCode::BAD_GATEWAY,
    };
    let error = result.err().map(|error| error.to_string());
    let model = match command {
        Command::LoadModel(model) | Command::UnloadModel(model) => Some(model.clone()),
        Command::Status => None,
    };
    let message = match (&error, command, &model) {
        (Some(error), ..) => error.clone(),
        (None, Command::LoadModel(_), Some(model)) => format!("Model `{model}` is loaded"),
        (None, Command::UnloadModel(_), Some(model)) => format!("Model `{model}` is unloaded"),
        _ => "Status is up to date".to_owned(),
    };
    let success = error.is_none();
    // Fails when nobody listens, which is nobody's loss.
    let _ = shared.commands.send(Arc::new(CommandDone {
        runner: runner.id().as_str().into(),
        request_id: request_id.clone(),
        command: command.name(),
        model,
        error,
    }));
    answer(status, success, message)
}
