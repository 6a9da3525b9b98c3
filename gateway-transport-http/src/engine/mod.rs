//! What answers behind an address, and what it can tell and do. One file per kind of engine.

mod llama_cpp;
mod ollama;
mod openai;
mod probe;
mod vllm;

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gateway_core::{
    Command, CommandReply, Health, LinkDescription, LinkError, LinkRequest, LinkResponse, Model, ModelId,
    ModelState, RunnerLink, RunnerStatus,
};
use http::StatusCode;

use crate::link::HttpLink;
use openai::ModelList;
use probe::{Probe, Reply};

/// An [`HttpLink`] to an inference engine that can be asked how it is.
///
/// It finds out by itself what answers there: llama.cpp's server, Ollama, vLLM, or any other engine with
/// OpenAI's `/v1/models`. What the engine does not tell stays unknown.
///
/// | engine | models | load | load and unload models |
/// |---|---|---|---|
/// | llama.cpp | `/v1/models`, `/props` | `/metrics`, else `/slots` | with several models (its router) |
/// | Ollama | `/api/tags`, `/api/ps` | - | yes |
/// | vLLM | `/v1/models` | `/metrics` | - |
/// | others | `/v1/models` | - | - |
///
/// A [`Command::Status`] takes at most 5 s and reads at most 8 MiB per question; it never starts inference.
/// Loading and unloading take at most [`EngineLink::CHANGE_LIMIT`].
///
/// ```
/// use gateway_transport_http::{EngineLink, HttpLink};
///
/// let engine = EngineLink::new(HttpLink::new("http://127.0.0.1:8000")?);
/// # let _ = engine;
/// # Ok::<(), gateway_transport_http::InvalidAddress>(())
/// ```
#[derive(Debug)]
pub struct EngineLink {
    link: HttpLink,
    /// Ollama does not say so in `/v1/models`: it has to be asked apart, which is done once.
    ollama: AtomicU8,
}

const UNASKED: u8 = 0;
const OLLAMA: u8 = 1;
const NO_OLLAMA: u8 = 2;

/// Which engine it is, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Any with `/v1/models`.
    OpenAi,
    LlamaCpp,
    /// llama.cpp's server with several models, each a process of its own.
    LlamaCppRouter,
    Ollama,
    Vllm,
}

/// What was learnt of an engine.
struct Learnt {
    kind: Kind,
    status: RunnerStatus,
}

impl EngineLink {
    /// How long loading or unloading a model may take: large models come from slow disks.
    pub const CHANGE_LIMIT: Duration = Duration::from_secs(15 * 60);

    /// Wraps the link to an engine. Asks nothing yet.
    pub fn new(link: HttpLink) -> Self {
        Self { link, ollama: AtomicU8::new(UNASKED) }
    }

    /// How many requests the engine serves at once, if it tells, which only llama.cpp does. Takes at most
    /// 5 s. Cancel safe.
    pub async fn slots(&self) -> Option<u32> {
        let probe = Probe::new(&self.link, Probe::LIMIT);
        let props: llama_cpp::Props = probe.look("/props").await?;
        props.total_slots.filter(|slots| *slots > 0)
    }

    /// Whether anything there answers without a server's fault; for engines that need not be asked for
    /// their models.
    pub(crate) async fn alive(&self) -> Result<Result<(), String>, LinkError> {
        let probe = Probe::new(&self.link, Probe::LIMIT);
        let mut reply = probe.get("/health").await?;
        if matches!(reply.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
            reply = probe.get("/v1/models").await?;
        }
        Ok(if reply.status.is_server_error() { Err(reply.complaint()) } else { Ok(()) })
    }

    async fn status(&self) -> Result<Result<RunnerStatus, String>, LinkError> {
        let probe = Probe::new(&self.link, Probe::LIMIT);
        Ok(self.learn(&probe).await?.map(|learnt| learnt.status))
    }

    async fn learn(&self, probe: &Probe<'_>) -> Result<Result<Learnt, String>, LinkError> {
        let reply = match probe.get("/v1/models").await {
            Ok(reply) => reply,
            Err(error) => {
                // Whatever comes up there next may be another engine.
                self.ollama.store(UNASKED, Ordering::Relaxed);
                return Err(error);
            }
        };
        if reply.status == StatusCode::SERVICE_UNAVAILABLE {
            let status = RunnerStatus { health: unavailable(&reply), ..RunnerStatus::default() };
            return Ok(Ok(Learnt { kind: Kind::OpenAi, status }));
        }
        let list = reply.json::<ModelList>().filter(|_| reply.status.is_success());
        let kind = match list.as_ref().and_then(ModelList::owner) {
            Some("llamacpp") if list.as_ref().is_some_and(ModelList::has_states) => Kind::LlamaCppRouter,
            Some("llamacpp") => Kind::LlamaCpp,
            Some("vllm") => Kind::Vllm,
            _ if self.is_ollama(probe).await => Kind::Ollama,
            _ => Kind::OpenAi,
        };
        if list.is_none() && kind != Kind::Ollama {
            return Ok(Err(if reply.status.is_success() {
                "its /v1/models is no list of models".to_owned()
            } else {
                format!("it does not list its models ({})", reply.complaint())
            }));
        }
        let mut models = list.unwrap_or_default().into_models();
        let mut load = None;
        match kind {
            Kind::LlamaCpp => load = llama_cpp::look_closer(probe, &mut models).await,
            Kind::Vllm => load = vllm::load(probe).await,
            Kind::Ollama => match ollama::models(probe, std::mem::take(&mut models)).await? {
                Some(tags) => models = tags,
                None => {
                    self.ollama.store(UNASKED, Ordering::Relaxed);
                    return Ok(Err("its /api/tags is no list of models".to_owned()));
                }
            },
            Kind::LlamaCppRouter | Kind::OpenAi => {}
        }
        let health = match probe.get("/health").await {
            Ok(reply) if reply.status.is_server_error() => unavailable(&reply),
            _ => Health::Healthy,
        };
        Ok(Ok(Learnt { kind, status: RunnerStatus { health, models, load, ..RunnerStatus::default() } }))
    }

    async fn is_ollama(&self, probe: &Probe<'_>) -> bool {
        match self.ollama.load(Ordering::Relaxed) {
            OLLAMA => true,
            NO_OLLAMA => false,
            _ => {
                let is = ollama::answers(probe).await;
                if let Ok(is) = is {
                    self.ollama.store(if is { OLLAMA } else { NO_OLLAMA }, Ordering::Relaxed);
                }
                is.unwrap_or(false)
            }
        }
    }

    async fn change(&self, model: &ModelId, load: bool) -> Result<CommandReply, LinkError> {
        let word = if load { "load_model" } else { "unload_model" };
        let learnt = match self.learn(&Probe::new(&self.link, Probe::LIMIT)).await? {
            Ok(learnt) => learnt,
            Err(problem) => return Ok(CommandReply { result: Err(problem), status: None }),
        };
        let found = find(&learnt.status.models, model);
        let Some(found) = found else {
            let result = Err(format!("the engine has no model {:?}", model.as_str()));
            return Ok(CommandReply { result, status: Some(learnt.status) });
        };
        if (found.state == ModelState::Loaded) == load && learnt.kind != Kind::Ollama {
            return Ok(CommandReply { result: Ok(()), status: Some(learnt.status) });
        }
        let probe = Probe::new(&self.link, Self::CHANGE_LIMIT);
        let result = match learnt.kind {
            Kind::Ollama => ollama::change(&probe, &found.id, load).await,
            Kind::LlamaCppRouter => llama_cpp::change(&probe, &found.id, load).await,
            Kind::OpenAi | Kind::LlamaCpp | Kind::Vllm => Err(LinkError::unsupported(word)),
        }?;
        Ok(CommandReply { result, status: self.status().await.ok().and_then(Result::ok) })
    }
}

/// The model of that name; Ollama's names may leave out the tag `latest`.
fn find<'a>(models: &'a [Model], name: &ModelId) -> Option<&'a Model> {
    let exact = models.iter().find(|model| model.id == *name);
    exact.or_else(|| {
        models.iter().find(|model| model.id.as_str().strip_suffix(":latest") == Some(name.as_str()))
    })
}

/// What a 503 means: not yet, or not at all.
fn unavailable(reply: &Reply) -> Health {
    let words = reply.complaint().to_ascii_lowercase();
    if words.contains("loading") || words.contains("starting") { Health::Starting } else { Health::Unhealthy }
}

#[async_trait]
impl RunnerLink for EngineLink {
    fn describe(&self) -> LinkDescription {
        self.link.describe()
    }

    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError> {
        self.link.send(request).await
    }

    fn can_upgrade(&self) -> bool {
        self.link.can_upgrade()
    }

    async fn command(&self, command: Command) -> Result<CommandReply, LinkError> {
        match command {
            Command::Status => Ok(match self.status().await? {
                Ok(status) => CommandReply { result: Ok(()), status: Some(status) },
                Err(problem) => CommandReply { result: Err(problem), status: None },
            }),
            Command::LoadModel(model) => self.change(&model, true).await,
            Command::UnloadModel(model) => self.change(&model, false).await,
        }
    }

    fn close(&self) {
        self.link.close();
    }
}
