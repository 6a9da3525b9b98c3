//! What a worker is asked besides inference.

use std::collections::HashMap;

use gateway_core::{
    Command, CommandReply, Health, LinkError, Model, ModelId, ReportedLoad, RequestId, RunnerStatus,
};
use tokio::time::timeout;
use tonic::Code;

use super::GrpcLink;
use super::call::framed;
use super::connection::Live;
use crate::contract::{
    Contract, ControlMessage, Dialect, Packaged, Plain, WorkerHealthRequest, WorkerHealthResponse,
};

/// How a worker says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerHealth {
    /// Whether it can serve.
    pub healthy: bool,
    /// What else it tells: `requests_inflight`, `requests_success`, `requests_failed`, `backend`,
    /// `cuda_available` and whatever it likes.
    pub metrics: HashMap<String, String>,
}

impl WorkerHealth {
    /// How many requests it works on, if it tells.
    pub fn requests_in_flight(&self) -> Option<u32> {
        self.metrics.get("requests_inflight")?.trim().parse().ok()
    }

    fn status(&self, models: Vec<Model>) -> RunnerStatus {
        RunnerStatus {
            health: if self.healthy { Health::Healthy } else { Health::Unhealthy },
            models,
            load: self.requests_in_flight().map(|active| ReportedLoad { active, queued: 0 }),
            ..RunnerStatus::default()
        }
    }
}

/// What a worker answered to a word of the contract's `Control`: its payload, or its words on why not.
type Reply = Result<HashMap<String, String>, String>;

impl GrpcLink {
    /// Asks how the worker is. Cancel safe.
    ///
    /// # Errors
    ///
    /// It could not be asked, or did not answer in time.
    pub async fn health(&self) -> Result<WorkerHealth, LinkError> {
        let asked = async {
            let live = self.dialler.live().await?;
            match live.dialect {
                Dialect::Packaged => health::<Packaged>(&live).await,
                Dialect::Plain => health::<Plain>(&live).await,
            }
        };
        let WorkerHealthResponse { healthy, metrics } = self.in_time(asked).await?;
        Ok(WorkerHealth { healthy, metrics })
    }

    /// Asks which models the worker has. Names that cannot be a model's are left out. Cancel safe.
    ///
    /// # Errors
    ///
    /// It could not be asked, did not answer in time, or does not know `list_models`
    /// ([`LinkError::unsupported`]).
    pub async fn models(&self) -> Result<Vec<ModelId>, LinkError> {
        let payload = self.in_time(self.order("list_models", None)).await?;
        let payload =
            payload.map_err(|words| LinkError::lost("the worker does not list its models").because(words))?;
        let names = payload.get("models").map_or("", String::as_str);
        Ok(names.split(',').map(str::trim).filter_map(|name| ModelId::new(name).ok()).collect())
    }

    /// Asks whether the worker's `Control` is there. Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`GrpcLink::models`].
    pub async fn ping(&self) -> Result<(), LinkError> {
        let payload = self.in_time(self.order("ping", None)).await?;
        payload
            .map(drop)
            .map_err(|words| LinkError::lost("the worker does not answer to ping").because(words))
    }

    /// What the worker tells of itself; its models are `known` if that is given.
    pub(crate) async fn status(&self, known: Option<&[Model]>) -> Result<RunnerStatus, LinkError> {
        let health = self.health().await?;
        let models = match known {
            Some(models) => models.to_vec(),
            // One that is not well is not asked more than that.
            None if !health.healthy => Vec::new(),
            None => self.models().await?.into_iter().map(Model::loaded).collect(),
        };
        Ok(health.status(models))
    }

    /// How many calls at once the worker allows, if it has said so.
    pub(crate) fn allowed(&self) -> Option<u32> {
        self.dialler.allowed().and_then(|most| most.try_into().ok())
    }

    pub(super) async fn carry_out(&self, command: Command) -> Result<CommandReply, LinkError> {
        let (word, model) = match command {
            Command::Status => {
                let status = self.status(None).await?;
                return Ok(CommandReply { result: Ok(()), status: Some(status) });
            }
            Command::LoadModel(model) => ("load_model", model),
            Command::UnloadModel(model) => ("unload_model", model),
        };
        // Loading takes as long as it takes: whoever gave the command says how long is too long.
        let result = self.order(word, Some(model)).await?.map(drop);
        let status = if result.is_ok() { self.status(None).await.ok() } else { None };
        Ok(CommandReply { result, status })
    }

    async fn order(&self, command: &'static str, model: Option<ModelId>) -> Result<Reply, LinkError> {
        let live = self.dialler.live().await?;
        let payload =
            model.map(|model| ("model_id".to_owned(), model.as_str().to_owned())).into_iter().collect();
        let order = ControlMessage {
            trace_id: RequestId::random().to_string(),
            command: command.to_owned(),
            payload,
        };
        match live.dialect {
            Dialect::Packaged => control::<Packaged>(&live, command, order).await,
            Dialect::Plain => control::<Plain>(&live, command, order).await,
        }
    }

    async fn in_time<T>(&self, asked: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
        let limit = self.dialler.settings.question_timeout;
        let late = |_| LinkError::timed_out("the worker was asked how it is");
        timeout(limit, asked).await.map_err(late)?
    }
}

async fn health<C: Contract>(live: &Live) -> Result<WorkerHealthResponse, LinkError> {
    let question = C::HealthRequest::from(WorkerHealthRequest::default());
    let call = live.wire.ask(C::HEALTH, framed(&question))?;
    let told = call.single::<C::HealthResponse>().await?;
    told.map(Into::into)
        .map_err(|status| LinkError::lost("the worker does not tell its health").because(status))
}

async fn control<C: Contract>(
    live: &Live,
    command: &'static str,
    order: ControlMessage,
) -> Result<Reply, LinkError> {
    let call = live.wire.ask(C::CONTROL, framed(&C::Control::from(order)))?;
    let reply: ControlMessage = match call.single::<C::Control>().await? {
        Ok(reply) => reply.into(),
        Err(status) if status.code == Code::Unimplemented => {
            return Err(LinkError::unsupported(command).because(status));
        }
        Err(status) => return Ok(Err(status.to_string())),
    };
    let mut payload = reply.payload;
    if payload.get("status").is_none_or(|status| status != "error") {
        return Ok(Ok(payload));
    }
    let words = payload.remove("message").unwrap_or_else(|| "it gives no reason".to_owned());
    // The contract has no other sign of a command that a worker has never heard of.
    let is_unknown = reply.command.strip_suffix("_response") != Some(command)
        || ["unknown command", "unsupported", "not supported"]
            .iter()
            .any(|hint| words.to_lowercase().contains(hint));
    if is_unknown { Err(LinkError::unsupported(command).because(words)) } else { Ok(Err(words)) }
}
