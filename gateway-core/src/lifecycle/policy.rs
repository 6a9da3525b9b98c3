use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::time::Duration;

use crate::names::{ModelId, RunnerId};
use crate::retry::Backoff;
use crate::runner::RunnerSpec;

/// When models are loaded, unloaded and evicted.
///
/// ```
/// use std::time::Duration;
/// use gateway_core::{LifecyclePolicy, ModelId};
/// let policy = LifecyclePolicy { keep_alive: Some(Duration::from_secs(300)), ..LifecyclePolicy::default() };
/// let policy = policy.keep_alive_of(ModelId::new("embedder")?, None);
/// assert!(policy.enabled);
/// # Ok::<(), gateway_core::InvalidName>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LifecyclePolicy {
    /// Whether models are loaded at all because a request asks for them. On by default: a model on disk that
    /// nobody may use is of no use.
    pub enabled: bool,
    /// How many requests wait for models at most; more are refused. [`LifecyclePolicy::MAX_WAITING`] by
    /// default.
    pub max_waiting: usize,
    /// How long a load may take before it counts as failed. [`LifecyclePolicy::LOAD_TIMEOUT`] by default.
    pub load_timeout: Duration,
    /// How long an unload may take before nobody knows how it ended. [`LifecyclePolicy::UNLOAD_TIMEOUT`] by
    /// default.
    pub unload_timeout: Duration,
    /// After how long without a request a model is unloaded. Never by default: memory that nobody else needs
    /// is best kept full, and who needs it evicts.
    pub keep_alive: Option<Duration>,
    /// The same for models of these canonical names; `None` is never.
    pub keep_alive_of: HashMap<ModelId, Option<Duration>>,
    /// Which models are unloaded when their time is up. Those loaded by this gateway by default: others were
    /// loaded by somebody with a purpose.
    pub idle_unload: IdleUnload,
    /// Models of these canonical names are neither evicted nor unloaded. None by default.
    pub pinned: HashSet<ModelId>,
    /// How many models a runner has in memory at most, unless it is said for that runner. Without limit by
    /// default: the runner knows best, and refuses.
    ///
    /// A runner itself can say so with the label [`LifecyclePolicy::MAX_LOADED_LABEL`].
    pub max_loaded: Option<NonZeroU32>,
    /// The same for runners of these ids. Goes before the runner's label.
    pub max_loaded_on: HashMap<RunnerId, NonZeroU32>,
    /// How much memory a model needs per byte of its size on disk. [`LifecyclePolicy::MEMORY_FACTOR`] by
    /// default.
    pub memory_factor: f64,
    /// How long a runner is spared a model that it failed to load: doubling from
    /// [`LifecyclePolicy::SHORTEST_PAUSE`] to [`LifecyclePolicy::LONGEST_PAUSE`] by default.
    pub backoff: Backoff,
    /// On how many runners a model may be in back-off before no other is tried; at least 1. A model that
    /// crashes engines must not go through the whole fleet. [`LifecyclePolicy::MAX_FAILED`] by default.
    pub max_failed: u32,
}

/// Which models are unloaded when nobody has asked for them for their keep-alive time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IdleUnload {
    /// Those that this gateway has told a runner to load.
    #[default]
    LoadedHere,
    /// All, whoever loaded them.
    All,
}

impl LifecyclePolicy {
    /// 1,024, as [`QueuePolicy::MAX_WAITING`](crate::QueuePolicy::MAX_WAITING): who waits for a model is about
    /// to want a slot.
    pub const MAX_WAITING: usize = 1024;
    /// Ten minutes: 140 GB from a disk that reads 250 MB a second.
    pub const LOAD_TIMEOUT: Duration = Duration::from_secs(600);
    /// One minute: nothing is read for it, but an engine may end a process for it.
    pub const UNLOAD_TIMEOUT: Duration = Duration::from_secs(60);
    /// Ten seconds: longer than a runner needs to say how it is after it has refused.
    pub const SHORTEST_PAUSE: Duration = Duration::from_secs(10);
    /// Ten minutes: who mends a runner should not wait for longer until it is used.
    pub const LONGEST_PAUSE: Duration = Duration::from_secs(600);
    /// A fifth more than the file: weights take their size, and context and buffers some of it on top.
    pub const MEMORY_FACTOR: f64 = 1.2;
    /// Three, as [`RetryPolicy::MAX_FAILURES`](crate::RetryPolicy::MAX_FAILURES).
    pub const MAX_FAILED: u32 = 3;
    /// A runner's label with the most models that it has in memory.
    pub const MAX_LOADED_LABEL: &str = "max_loaded_models";

    /// Loads and unloads nothing.
    pub fn off() -> Self {
        Self { enabled: false, ..Self::default() }
    }

    /// Sets the keep-alive time of one model; `None` is never.
    pub fn keep_alive_of(mut self, model: ModelId, time: Option<Duration>) -> Self {
        self.keep_alive_of.insert(model, time);
        self
    }

    /// Sets how many models one runner has in memory at most.
    pub fn max_loaded_on(mut self, runner: RunnerId, models: NonZeroU32) -> Self {
        self.max_loaded_on.insert(runner, models);
        self
    }

    /// Never evicts or unloads this model.
    pub fn pin(mut self, model: ModelId) -> Self {
        self.pinned.insert(model);
        self
    }

    pub(super) fn keep_alive_for(&self, model: &ModelId) -> Option<Duration> {
        if self.pinned.contains(model) {
            return None;
        }
        self.keep_alive_of.get(model).copied().unwrap_or(self.keep_alive)
    }

    /// The shortest of all keep-alive times.
    pub(super) fn shortest_keep_alive(&self) -> Option<Duration> {
        self.keep_alive_of.values().copied().chain([self.keep_alive]).flatten().min()
    }

    pub(super) fn limit_of(&self, runner: &RunnerSpec) -> Option<usize> {
        let by_label = || runner.labels.get(Self::MAX_LOADED_LABEL)?.parse().ok();
        let limit = self.max_loaded_on.get(&runner.id).copied().or_else(by_label).or(self.max_loaded)?;
        usize::try_from(limit.get()).ok()
    }
}

impl Default for LifecyclePolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            max_waiting: Self::MAX_WAITING,
            load_timeout: Self::LOAD_TIMEOUT,
            unload_timeout: Self::UNLOAD_TIMEOUT,
            keep_alive: None,
            keep_alive_of: HashMap::new(),
            idle_unload: IdleUnload::default(),
            pinned: HashSet::new(),
            max_loaded: None,
            max_loaded_on: HashMap::new(),
            memory_factor: Self::MEMORY_FACTOR,
            backoff: Backoff::new(Self::SHORTEST_PAUSE, Self::LONGEST_PAUSE, 0.2).unwrap_or_default(),
            max_failed: Self::MAX_FAILED,
        }
    }
}
