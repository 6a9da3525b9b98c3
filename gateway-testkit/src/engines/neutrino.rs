use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gateway_core::Resources;
use http::header;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::engine::{MockEngine, Seen};
use crate::script::Script;

/// A runner that does tasks and says at `/capacity` what it has free, in either form. It notes every task that came
/// while there was not enough free for it.
///
/// A task is a `POST` to any path under `/tasks/` with a JSON body of `gpus`, `cpus`, `memory_gb` (0 if left out) and
/// `ms`, which is how long it takes. It goes on to its end even if nobody waits for it any more.
///
/// ```
/// use gateway_core::Resources;
/// use gateway_testkit::ScriptedNeutrino;
/// let runner = ScriptedNeutrino::flat(Resources { cpus: 8.0, gpus: 2.0, memory_gb: 64.0 }, 4);
/// assert_eq!(runner.tasks(), 0);
/// ```
#[derive(Clone)]
pub struct ScriptedNeutrino {
    engine: MockEngine,
    state: Arc<Mutex<State>>,
}

struct State {
    total: Resources,
    workers: u32,
    nested: bool,
    refresh: Duration,
    running: Vec<Task>,
    /// What `/capacity` says, and since when.
    said: Option<(Instant, String)>,
    sick: bool,
    tasks: u64,
    gpu_tasks: u64,
    too_many: u64,
}

#[derive(Clone, Copy)]
struct Task {
    until: Instant,
    needs: Resources,
}

impl ScriptedNeutrino {
    /// One that reports as its document says.
    pub fn flat(total: Resources, workers: u32) -> Self {
        Self::new(total, workers, false)
    }

    /// One that reports as the shipped program does.
    pub fn nested(total: Resources, workers: u32) -> Self {
        Self::new(total, workers, true)
    }

    fn new(total: Resources, workers: u32, nested: bool) -> Self {
        let state = Arc::new(Mutex::new(State {
            total,
            workers,
            nested,
            refresh: Duration::ZERO,
            running: Vec::new(),
            said: None,
            sick: false,
            tasks: 0,
            gpu_tasks: 0,
            too_many: 0,
        }));
        let scripted = state.clone();
        let engine = MockEngine::new(move |seen| lock(&scripted).answer(seen));
        Self { engine, state }
    }

    /// Says the same for so long before it looks again.
    pub fn looks_every(self, refresh: Duration) -> Self {
        lock(&self.state).refresh = refresh;
        self
    }

    /// The runner behind it.
    pub fn engine(&self) -> &MockEngine {
        &self.engine
    }

    /// Says that it is unwell, or well again.
    pub fn set_sick(&self, sick: bool) {
        lock(&self.state).sick = sick;
    }

    /// Somebody else uses so much for so long.
    pub fn use_elsewhere(&self, needs: Resources, time: Duration) {
        lock(&self.state).running.push(Task { until: Instant::now() + time, needs });
    }

    /// How many tasks came.
    pub fn tasks(&self) -> u64 {
        lock(&self.state).tasks
    }

    /// How many of them needed accelerators.
    pub fn gpu_tasks(&self) -> u64 {
        lock(&self.state).gpu_tasks
    }

    /// How many came while there was not enough free for them.
    pub fn too_many(&self) -> u64 {
        lock(&self.state).too_many
    }
}

impl fmt::Debug for ScriptedNeutrino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedNeutrino").field("tasks", &self.tasks()).finish_non_exhaustive()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn answer(&mut self, seen: &Seen) -> Script {
        let now = Instant::now();
        self.running.retain(|task| task.until > now);
        let path = seen.head.uri.path();
        match (seen.head.method.as_str(), path) {
            ("GET", "/health") if self.sick => reply(503, &json!({"status": "unhealthy"})),
            ("GET", "/health") => {
                reply(200, &json!({"status": "healthy", "service": "neutrino-orchestrator"}))
            }
            ("GET", "/capacity") => {
                let is_old = self.said.as_ref().is_none_or(|(at, _)| now - *at >= self.refresh);
                if is_old {
                    self.said = Some((now, self.capacity().to_string()));
                }
                let said = self.said.as_ref().map_or("", |(_, said)| said);
                Script::text(said.to_owned()).header(header::CONTENT_TYPE, "application/json")
            }
            ("POST", path) if path.starts_with("/tasks/") => self.task(seen, now),
            _ => reply(404, &json!({"detail": "Not Found"})),
        }
    }

    fn free(&self) -> Resources {
        self.running.iter().fold(self.total, |left, task| Resources {
            cpus: left.cpus - task.needs.cpus,
            gpus: left.gpus - task.needs.gpus,
            memory_gb: left.memory_gb - task.needs.memory_gb,
        })
    }

    fn capacity(&self) -> Value {
        let free = self.free();
        let idle = (self.workers as usize).saturating_sub(self.running.len());
        if !self.nested {
            return json!({
                "available_cpus": free.cpus, "available_gpus": free.gpus, "available_memory_gb": free.memory_gb,
                "total_workers": self.workers, "idle_workers": idle
            });
        }
        let amounts = |of: &Resources| json!({"cpus": of.cpus, "gpus": of.gpus, "memory_gb": of.memory_gb});
        let taken = Resources {
            cpus: self.total.cpus - free.cpus,
            gpus: self.total.gpus - free.gpus,
            memory_gb: self.total.memory_gb - free.memory_gb,
        };
        let worker = |at: u32| {
            let state = if (at as usize) < idle { "Idle" } else { "Busy" };
            json!({"worker_id": format!("worker-{at}"), "state": state})
        };
        json!({
            "total": amounts(&self.total), "available": amounts(&free), "allocated": amounts(&taken),
            "workers": (0..self.workers).map(worker).collect::<Vec<_>>()
        })
    }

    fn task(&mut self, seen: &Seen, now: Instant) -> Script {
        let args: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
        let amount = |key: &str| args[key].as_f64().unwrap_or(0.0);
        let needs = Resources { cpus: amount("cpus"), gpus: amount("gpus"), memory_gb: amount("memory_gb") };
        let ms = args["ms"].as_u64().unwrap_or(0);
        self.tasks += 1;
        self.gpu_tasks += u64::from(needs.gpus > 0.0);
        // Whole thousandths, because shares do not add up exactly.
        let free = self.free();
        let fits = |free: f64, need: f64| (free * 1e3).round() >= (need * 1e3).round();
        if !(fits(free.cpus, needs.cpus)
            && fits(free.gpus, needs.gpus)
            && fits(free.memory_gb, needs.memory_gb))
        {
            self.too_many += 1;
            return reply(503, &json!({"success": false, "error": "No available workers"}));
        }
        self.running.push(Task { until: now + Duration::from_millis(ms), needs });
        let result = json!({"success": true, "result": null, "error": null, "worker_id": "worker-0", "execution_time_ms": ms});
        // What it had is free before the answer says so.
        reply(200, &result).delay(Duration::from_millis(ms + u64::from(ms > 0)))
    }
}

fn reply(status: u16, body: &Value) -> Script {
    Script::status(status, body.to_string()).header(header::CONTENT_TYPE, "application/json")
}
