use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use gateway_core::{CancellationToken, FleetEvent, FleetEvents, Registry, RunnerKey};
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, broadcast};

use super::commands::CommandDone;
use super::runners::{available_models, loaded_models};
use crate::body::GatewayBody;
use crate::error::ApiError;
use crate::gateway::Shared;

/// How many finished commands are kept for a slow reader.
pub(crate) const COMMANDS_KEPT: usize = 256;

/// How many may read at once: dashboards, not clients.
pub(crate) const MAX_WATCHERS: usize = 64;

/// A comment is sent when there was no event for so long, so that nothing on the way closes the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The data of an event. `type` repeats the event's name without `runner_`, as existing dashboards expect.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Data<'a> {
    Connected {
        runner_id: &'a str,
        name: &'a str,
        machine_type: Option<&'a str>,
        health: &'static str,
        loaded_models: Vec<&'a str>,
        available_models: Vec<&'a str>,
    },
    Disconnected {
        runner_id: &'a str,
        reason: &'static str,
    },
    StatusChanged {
        runner_id: &'a str,
        health: &'static str,
        draining: bool,
        loaded_models: Vec<&'a str>,
        available_models: Vec<&'a str>,
    },
    CommandCompleted {
        runner_id: &'a str,
        request_id: &'a str,
        command: &'static str,
        model_id: Option<&'a str>,
        success: bool,
        error: Option<&'a str>,
    },
    /// The reader was too slow: read the list anew.
    EventsMissed {
        count: u64,
    },
}

impl Data<'_> {
    fn frame(&self) -> Bytes {
        let name = match self {
            Self::Connected { .. } => "runner_connected",
            Self::Disconnected { .. } => "runner_disconnected",
            Self::StatusChanged { .. } => "runner_status_changed",
            Self::CommandCompleted { .. } => "runner_command_completed",
            Self::EventsMissed { .. } => "runner_events_missed",
        };
        // JSON has no raw line breaks, so the data is one line.
        let data = serde_json::to_string(self).unwrap_or_default();
        format!("event: {name}\ndata: {data}\n\n").into()
    }
}

struct Watch {
    registry: Arc<dyn Registry>,
    fleet: FleetEvents,
    commands: broadcast::Receiver<Arc<CommandDone>>,
    closing: CancellationToken,
    _place: OwnedSemaphorePermit,
}

/// `GET /admin/runners/events`: changes from now on, until the reader leaves or the gateway shuts down.
pub(crate) fn events(shared: &Shared) -> Result<Response<GatewayBody>, Box<ApiError>> {
    let place = shared.watchers.clone().try_acquire_owned();
    let watch = Watch {
        _place: place.map_err(|_| ApiError::too_many_watchers(MAX_WATCHERS))?,
        registry: shared.dispatcher.registry().clone(),
        fleet: shared.dispatcher.registry().events(),
        commands: shared.commands.subscribe(),
        closing: shared.closing.clone(),
    };
    let frames = stream::unfold(watch, |mut watch| async move { Some((watch.next().await?, watch)) });
    let mut response = Response::new(GatewayBody::events(frames));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

impl Watch {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                biased;
                () = self.closing.cancelled() => return None,
                event = self.fleet.next() => {
                    if let Some(frame) = self.fleet_frame(&event?) {
                        return Some(frame);
                    }
                }
                done = self.commands.recv() => return match done {
                    Ok(done) => Some(command_frame(&done)),
                    Err(broadcast::error::RecvError::Lagged(count)) => Some(Data::EventsMissed { count }.frame()),
                    Err(broadcast::error::RecvError::Closed) => None,
                },
                () = tokio::time::sleep(KEEP_ALIVE) => return Some(Bytes::from_static(b": keep-alive\n\n")),
            }
        }
    }

    /// `None` if the event is about a registration that is gone by now: its leaving is told next.
    fn fleet_frame(&self, event: &FleetEvent) -> Option<Bytes> {
        let fleet = self.registry.fleet();
        let current = |key: &RunnerKey| fleet.runner(key.id.as_str()).filter(|runner| runner.key() == key);
        let data = match event {
            FleetEvent::Joined(key) => {
                let runner = current(key)?;
                Data::Connected {
                    runner_id: key.id.as_str(),
                    name: &runner.spec().name,
                    machine_type: runner.spec().machine.description.as_deref(),
                    health: runner.status().health.as_str(),
                    loaded_models: loaded_models(runner),
                    available_models: available_models(runner),
                }
            }
            FleetEvent::Changed(key) => {
                let runner = current(key)?;
                Data::StatusChanged {
                    runner_id: key.id.as_str(),
                    health: runner.status().health.as_str(),
                    draining: runner.is_draining(),
                    loaded_models: loaded_models(runner),
                    available_models: available_models(runner),
                }
            }
            FleetEvent::Left(key, reason) => {
                Data::Disconnected { runner_id: key.id.as_str(), reason: reason.as_str() }
            }
            FleetEvent::Missed(count) => Data::EventsMissed { count: *count },
        };
        Some(data.frame())
    }
}

fn command_frame(done: &CommandDone) -> Bytes {
    let data = Data::CommandCompleted {
        runner_id: &done.runner,
        request_id: done.request_id.as_str(),
        command: done.command,
        model_id: done.model.as_ref().map(|model| model.as_str()),
        success: done.error.is_none(),
        error: done.error.as_deref(),
    };
    data.frame()
}
