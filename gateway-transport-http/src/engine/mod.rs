//! What answers behind an address, and what it can tell and do. One file per kind of engine.

mod kind;
mod llama_cpp;
mod neutrino;
mod ollama;
mod openai;
mod probe;
mod sglang;
mod vllm;

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gateway_core::{
    Command, CommandReply, Health, LinkAbilities, LinkDescription, LinkError, LinkRequest, Model, ModelId,
    ModelState, ResourceReport, RunnerLink, RunnerStatus,
};
use http::StatusCode;

use crate::link::{HttpLink, LinkFuture};
pub use kind::{EngineKind, UnknownEngineKind};
use openai::ModelList;
use probe::{Probe, Reply};

/// An [`HttpLink`] to an engine that can be asked how it is.
///
/// Unless it is [told](EngineLink::kind), it finds out by itself what answers there. What the engine does not
/// tell stays unknown.
///
/// | engine | models | load | slots | load and unload models |
/// |---|---|---|---|---|
/// | llama.cpp | `/v1/models`, `/props` | `/metrics`, else `/slots` | `/props` | with several models (its router) |
/// | vLLM | `/v1/models` | `/metrics`, else `/load` | - | - |
/// | SGLang | `/v1/models`, `/server_info` | `/metrics`, else `/get_load` | `/server_info` | - |
/// | Ollama | `/api/tags`, `/api/ps` | - | - | yes |
/// | Neutrino | none: it does tasks | `/capacity`, with its resources | its workers | - |
/// | others | `/v1/models` | - | `/props`, asked once | - |
///
/// How well it is, is asked at `/health`; of SGLang at `/server_info`, because its `/health` generates a token.
///
/// A [`Command::Status`] takes at most [`EngineLink::PROBE_TIMEOUT`], unless set, and reads at most 8 MiB per
/// question; it never starts inference. Loading and unloading take at most [`EngineLink::CHANGE_LIMIT`].
///
/// ```
/// use gateway_transport_http::{EngineKind, EngineLink, HttpLink};
///
/// let engine = EngineLink::new(HttpLink::new("http://127.0.0.1:8000")?).kind(EngineKind::Vllm);
/// # let _ = engine;
/// # Ok::<(), gateway_transport_http::InvalidAddress>(())
/// ```
#[derive(Debug)]
pub struct EngineLink {
    link: HttpLink,
    kind: EngineKind,
    limit: Duration,
    capacity_age: Duration,
    /// What has turned out to answer, as its place in [`EngineKind::ALL`]; `Auto` for nothing yet.
    found: AtomicU8,
    /// vLLM's `/load` has told of a request, so it does count.
    counts_load: AtomicBool,
}

/// What was learnt of an engine.
#[derive(Debug)]
pub(crate) struct Learnt {
    /// It loads and unloads models by itself, as llama.cpp's router does.
    is_router: bool,
    pub(crate) status: RunnerStatus,
    /// How many requests it takes at once, if it tells.
    pub(crate) slots: Option<u32>,
}

impl Learnt {
    pub(crate) fn new(status: RunnerStatus) -> Self {
        Self { is_router: false, status, slots: None }
    }
}

impl EngineLink {
    /// How long all questions of one status may take together, unless [set](EngineLink::probe_timeout): half
    /// the usual time between two of them.
    pub const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
    /// How old the capacity may be that an engine reports when it is asked, unless [set](EngineLink::capacity_age):
    /// as old as the document says that such reports are.
    pub const CAPACITY_AGE: Duration = ResourceReport::MAX_AGE;
    /// How long loading or unloading a model may take: large models come from slow disks.
    pub const CHANGE_LIMIT: Duration = Duration::from_secs(15 * 60);

    /// Wraps the link to an engine. Asks nothing yet.
    pub fn new(link: HttpLink) -> Self {
        Self {
            link,
            kind: EngineKind::Auto,
            limit: Self::PROBE_TIMEOUT,
            capacity_age: Self::CAPACITY_AGE,
            found: AtomicU8::new(EngineKind::Auto as u8),
            counts_load: AtomicBool::new(false),
        }
    }

    /// Says what it is, so that only questions for that are asked.
    pub fn kind(mut self, kind: EngineKind) -> Self {
        self.kind = kind;
        self
    }

    /// How long all questions of one status may take together. Default: [`EngineLink::PROBE_TIMEOUT`].
    pub fn probe_timeout(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// How old the capacity may be that it reports when it is asked; zero if it looks when it is asked. What was sent
    /// or has ended within this time is not looked for in the report, so that nothing is promised twice. At most
    /// 10 s are of use. Default: [`EngineLink::CAPACITY_AGE`].
    pub fn capacity_age(mut self, age: Duration) -> Self {
        self.capacity_age = age;
        self
    }

    /// What answers there: as it was told, or as it turned out when it was last asked. `Auto`: that is not known
    /// yet.
    pub fn recognised(&self) -> EngineKind {
        if self.kind != EngineKind::Auto {
            return self.kind;
        }
        let found = usize::from(self.found.load(Ordering::Relaxed));
        EngineKind::ALL.get(found).copied().unwrap_or_default()
    }

    /// How many requests the engine serves at once, if it tells. Takes at most as long as a probe may. Cancel
    /// safe.
    pub async fn slots(&self) -> Option<u32> {
        let probe = self.probe();
        match self.recognised() {
            EngineKind::Auto | EngineKind::OpenAi | EngineKind::LlamaCpp => llama_cpp::slots(&probe).await,
            EngineKind::Vllm | EngineKind::Ollama => None,
            EngineKind::Sglang | EngineKind::Neutrino => self.learn(&probe).await.ok()?.ok()?.slots,
        }
    }

    /// Whether anything there answers without a server's fault; for engines that need not be asked for
    /// their models.
    pub(crate) async fn alive(&self) -> Result<Result<(), String>, LinkError> {
        let probe = self.probe();
        let reply = match self.kind {
            EngineKind::Ollama => probe.get("/api/version").await?,
            // Its health would be a token.
            EngineKind::Sglang => probe.get("/v1/models").await?,
            _ => {
                let reply = probe.get("/health").await?;
                let has_none = matches!(reply.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED);
                if has_none { probe.get("/v1/models").await? } else { reply }
            }
        };
        Ok(if reply.status.is_server_error() { Err(reply.complaint()) } else { Ok(()) })
    }

    /// Everything that it tells. `Ok(Err(…))` holds what the engine itself complained of.
    pub(crate) async fn ask(&self) -> Result<Result<Learnt, String>, LinkError> {
        self.learn(&self.probe()).await
    }

    fn probe(&self) -> Probe<'_> {
        Probe::new(&self.link, self.limit)
    }

    fn remember(&self, kind: EngineKind) {
        let place = EngineKind::ALL.iter().position(|known| *known == kind);
        self.found.store(place.and_then(|place| u8::try_from(place).ok()).unwrap_or(0), Ordering::Relaxed);
    }

    async fn learn(&self, probe: &Probe<'_>) -> Result<Result<Learnt, String>, LinkError> {
        let learnt = match self.recognised() {
            EngineKind::Neutrino => self.learn_tasks(probe).await,
            EngineKind::Ollama if self.kind == EngineKind::Ollama => {
                self.learn_ollama(probe, probe.look("/v1/models").await.unwrap_or_default()).await
            }
            _ => self.learn_models(probe).await,
        };
        if !matches!(learnt, Ok(Ok(_))) {
            // Whatever comes up there next may be another engine.
            self.remember(EngineKind::Auto);
        }
        learnt
    }

    /// Of one that does tasks.
    async fn learn_tasks(&self, probe: &Probe<'_>) -> Result<Result<Learnt, String>, LinkError> {
        let learnt = neutrino::learn(probe, self.capacity_age).await?;
        let told = learnt.status.resources.available.is_some() || self.kind == EngineKind::Neutrino;
        // One that was not said to do tasks, and tells of none, is another by now.
        Ok(if told { Ok(learnt) } else { Err("its /capacity says nothing any more".to_owned()) })
    }

    /// Of one with OpenAI's list of models.
    async fn learn_models(&self, probe: &Probe<'_>) -> Result<Result<Learnt, String>, LinkError> {
        let reply = probe.get("/v1/models").await?;
        if reply.status == StatusCode::SERVICE_UNAVAILABLE {
            let status = RunnerStatus { health: unavailable(&reply), ..RunnerStatus::default() };
            return Ok(Ok(Learnt::new(status)));
        }
        let list = reply.json::<ModelList>().filter(|_| reply.status.is_success());
        let kind = match self.kind {
            EngineKind::Auto => self.recognise(probe, list.as_ref()).await,
            given => given,
        };
        match kind {
            EngineKind::Ollama => return self.learn_ollama(probe, list.unwrap_or_default()).await,
            EngineKind::Neutrino => return self.learn_tasks(probe).await,
            _ => {}
        }
        let Some(list) = list.filter(|list| list.data.is_some()) else {
            return Ok(Err(if reply.status.is_success() {
                "its /v1/models is no list of models".to_owned()
            } else {
                format!("it does not list its models ({})", reply.complaint())
            }));
        };
        let is_router = kind == EngineKind::LlamaCpp && list.has_states();
        let mut models = list.into_models();
        let (mut load, mut slots) = (None, None);
        match kind {
            EngineKind::LlamaCpp if !is_router => {
                (load, slots) = llama_cpp::look_closer(probe, &mut models).await;
            }
            EngineKind::Vllm => load = vllm::load(probe, &self.counts_load).await,
            EngineKind::Sglang => {
                let closer = sglang::look_closer(probe, &mut models).await?;
                let status =
                    RunnerStatus { health: closer.health, models, load: closer.load, ..Default::default() };
                return Ok(Ok(Learnt { slots: closer.slots, ..Learnt::new(status) }));
            }
            _ => {}
        }
        let status = RunnerStatus { health: health(probe).await, models, load, ..RunnerStatus::default() };
        Ok(Ok(Learnt { is_router, status, slots }))
    }

    async fn learn_ollama(
        &self,
        probe: &Probe<'_>,
        list: ModelList,
    ) -> Result<Result<Learnt, String>, LinkError> {
        let Some(models) = ollama::models(probe, list.into_models()).await? else {
            return Ok(Err("its /api/tags is no list of models".to_owned()));
        };
        let status = RunnerStatus { health: Health::Healthy, models, ..RunnerStatus::default() };
        Ok(Ok(Learnt::new(status)))
    }

    /// Which it is, by its own word in the list, or by what else it answers, which is asked once.
    async fn recognise(&self, probe: &Probe<'_>, list: Option<&ModelList>) -> EngineKind {
        let known = match list.and_then(ModelList::owner) {
            Some("llamacpp") => Some(EngineKind::LlamaCpp),
            Some("vllm") => Some(EngineKind::Vllm),
            Some("sglang") => Some(EngineKind::Sglang),
            _ => None,
        };
        let kind = match (known, self.recognised()) {
            (Some(known), _) => known,
            (None, found @ (EngineKind::Ollama | EngineKind::OpenAi)) => found,
            (None, _) => match self.recognise_by_answers(probe, list).await {
                Ok(kind) => kind,
                // Asked again at the next probe.
                Err(_) => return EngineKind::OpenAi,
            },
        };
        self.remember(kind);
        kind
    }

    async fn recognise_by_answers(
        &self,
        probe: &Probe<'_>,
        list: Option<&ModelList>,
    ) -> Result<EngineKind, LinkError> {
        if ollama::answers(probe).await? {
            return Ok(EngineKind::Ollama);
        }
        let serves_models = list.is_some_and(|list| list.data.is_some());
        if !serves_models && neutrino::answers(probe).await? {
            return Ok(EngineKind::Neutrino);
        }
        Ok(EngineKind::OpenAi)
    }

    async fn change(&self, model: &ModelId, load: bool) -> Result<CommandReply, LinkError> {
        let word = if load { "load_model" } else { "unload_model" };
        let learnt = match self.ask().await? {
            Ok(learnt) => learnt,
            Err(problem) => return Ok(CommandReply { result: Err(problem), status: None }),
        };
        let found = find(&learnt.status.models, model);
        let Some(found) = found else {
            let result = Err(format!("the engine has no model {:?}", model.as_str()));
            return Ok(CommandReply { result, status: Some(learnt.status) });
        };
        let kind = self.recognised();
        if (found.state == ModelState::Loaded) == load && kind != EngineKind::Ollama {
            return Ok(CommandReply { result: Ok(()), status: Some(learnt.status) });
        }
        let probe = Probe::new(&self.link, Self::CHANGE_LIMIT);
        let result = match kind {
            EngineKind::Ollama => ollama::change(&probe, &found.id, load).await,
            _ if learnt.is_router => llama_cpp::change(&probe, &found.id, load).await,
            _ => Err(LinkError::unsupported(word)),
        }?;
        let status = self.ask().await.ok().and_then(Result::ok).map(|learnt| learnt.status);
        Ok(CommandReply { result, status })
    }
}

/// The model of that name; Ollama's names may leave out the tag `latest`.
fn find<'a>(models: &'a [Model], name: &ModelId) -> Option<&'a Model> {
    let exact = models.iter().find(|model| model.id == *name);
    exact.or_else(|| {
        models.iter().find(|model| model.id.as_str().strip_suffix(":latest") == Some(name.as_str()))
    })
}

/// What `/health` says, where there is one.
async fn health(probe: &Probe<'_>) -> Health {
    match probe.get("/health").await {
        Ok(reply) if reply.status.is_server_error() => unavailable(&reply),
        _ => Health::Healthy,
    }
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

    // The link's own future is passed on, not put into another.
    fn send<'s, 'f>(&'s self, request: LinkRequest) -> LinkFuture<'f>
    where
        's: 'f,
    {
        self.link.send(request)
    }

    fn abilities(&self) -> LinkAbilities {
        self.link.abilities()
    }

    async fn command(&self, command: Command) -> Result<CommandReply, LinkError> {
        match command {
            Command::Status => Ok(match self.ask().await? {
                Ok(learnt) => CommandReply { result: Ok(()), status: Some(learnt.status) },
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
