use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header;
use serde_json::{Value, json};

use crate::engine::{MockEngine, Seen};
use crate::script::Script;

/// An Ollama that answers as version 0.6.8 does: what is on disk and in memory, loading and unloading by
/// `keep_alive`, NDJSON on its own API and OpenAI's chunks under `/v1`. A request for a model that is not in memory
/// loads it.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let ollama = gateway_testkit::ScriptedOllama::new(["llama3.2:latest", "qwen2.5:0.5b"]);
/// let server = ollama.engine().serve_http().await.unwrap();
/// assert!(server.url().starts_with("http://127.0.0.1:") && ollama.in_memory().is_empty());
/// # });
/// ```
#[derive(Clone)]
pub struct ScriptedOllama {
    engine: MockEngine,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    on_disk: Vec<String>,
    in_memory: Vec<String>,
    refuses: Option<String>,
}

impl ScriptedOllama {
    /// With these models on its disk, and none in memory.
    pub fn new<M: Into<String>>(models: impl IntoIterator<Item = M>) -> Self {
        let on_disk = models.into_iter().map(Into::into).collect();
        let state = Arc::new(Mutex::new(State { on_disk, ..State::default() }));
        let scripted = state.clone();
        let engine = MockEngine::new(move |seen| lock(&scripted).answer(seen));
        Self { engine, state }
    }

    /// The runner behind it.
    pub fn engine(&self) -> &MockEngine {
        &self.engine
    }

    /// The models in its memory.
    pub fn in_memory(&self) -> Vec<String> {
        lock(&self.state).in_memory.clone()
    }

    /// From now on it loads nothing and says this instead.
    pub fn refuse_to_load(&self, complaint: &str) {
        lock(&self.state).refuses = Some(complaint.to_owned());
    }

    /// It restarts: nothing is in memory.
    pub fn forget(&self) {
        lock(&self.state).in_memory.clear();
    }
}

impl fmt::Debug for ScriptedOllama {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedOllama").field("in_memory", &self.in_memory()).finish_non_exhaustive()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Words of every answer.
const WORDS: [&str; 3] = ["Hello", " from", " Ollama."];

impl State {
    fn answer(&mut self, seen: &Seen) -> Script {
        let body: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
        match (seen.head.method.as_str(), seen.head.uri.path()) {
            ("GET", "/") => Script::text("Ollama is running"),
            ("GET", "/api/version") => reply(&json!({"version": "0.6.8"})),
            ("GET", "/api/tags") => {
                let models: Vec<Value> = self.on_disk.iter().map(|name| tag(name)).collect();
                reply(&json!({"models": models}))
            }
            ("GET", "/api/ps") => {
                let models: Vec<Value> = self.in_memory.iter().map(|name| running(name)).collect();
                reply(&json!({"models": models}))
            }
            ("GET", "/v1/models") => {
                let model = |name: &String| json!({"id": name, "object": "model", "created": 1_746_405_464, "owned_by": "library"});
                let models: Vec<Value> = self.on_disk.iter().map(model).collect();
                // An Ollama without models says `null`.
                let data = if models.is_empty() { Value::Null } else { models.into() };
                reply(&json!({"object": "list", "data": data}))
            }
            ("POST", "/api/generate" | "/api/chat") => self.native(seen.head.uri.path(), &body),
            ("POST", "/v1/chat/completions") => self.openai(&body),
            _ => Script::status(404, "404 page not found"),
        }
    }

    /// The name in full, with the model in memory; else the answer that says why not.
    fn load(&mut self, body: &Value) -> Result<String, String> {
        let asked = body["model"].as_str().unwrap_or_default();
        let full = [asked.to_owned(), format!("{asked}:latest")];
        let Some(name) = self.on_disk.iter().find(|name| full.contains(name)).cloned() else {
            return Err(format!("model '{asked}' not found"));
        };
        if !self.in_memory.contains(&name) {
            if let Some(complaint) = &self.refuses {
                return Err(complaint.clone());
            }
            self.in_memory.push(name.clone());
        }
        Ok(name)
    }

    fn native(&mut self, path: &str, body: &Value) -> Script {
        let is_empty = |key: &str| body[key].as_str().is_none_or(str::is_empty);
        let is_bare = is_empty("prompt") && body["messages"].as_array().is_none_or(Vec::is_empty);
        let unloads = is_bare && (body["keep_alive"] == json!(0) || body["keep_alive"] == json!("0"));
        if unloads {
            let asked = body["model"].as_str().unwrap_or_default().to_owned();
            self.in_memory.retain(|name| *name != asked && *name != format!("{asked}:latest"));
            return reply(&done(&asked, path, "unload"));
        }
        let name = match self.load(body) {
            Ok(name) => name,
            Err(complaint) => return failure(&complaint, &json!({"error": complaint})),
        };
        if is_bare {
            return reply(&done(&name, path, "load"));
        }
        let part = |word: &str, is_done: bool| {
            let mut part = json!({"model": name, "created_at": CREATED, "done": is_done});
            match path {
                "/api/chat" => part["message"] = json!({"role": "assistant", "content": word}),
                _ => part["response"] = json!(word),
            }
            part
        };
        if body["stream"] == json!(false) {
            return reply(&part(&WORDS.concat(), true));
        }
        let lines = WORDS.iter().map(|word| format!("{}\n", part(word, false)));
        let lines = lines.chain([format!("{}\n", done(&name, path, "stop"))]);
        Script::chunks(lines).header(header::CONTENT_TYPE, "application/x-ndjson")
    }

    fn openai(&mut self, body: &Value) -> Script {
        let name = match self.load(body) {
            Ok(name) => name,
            Err(complaint) => {
                let error = json!({"message": complaint, "type": "api_error", "param": null, "code": null});
                return failure(&complaint, &json!({"error": error}));
            }
        };
        let id = "chatcmpl-917";
        if body["stream"] != json!(true) {
            let message = json!({"role": "assistant", "content": WORDS.concat()});
            let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
            return reply(&json!({
                "id": id, "object": "chat.completion", "created": 1_746_405_464, "model": name,
                "system_fingerprint": "fp_ollama", "choices": [choice],
                "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
            }));
        }
        let chunk = |content: &str, reason: Value| {
            let delta = json!({"role": "assistant", "content": content});
            let choice = json!({"index": 0, "delta": delta, "finish_reason": reason});
            json!({
                "id": id, "object": "chat.completion.chunk", "created": 1_746_405_464, "model": name,
                "system_fingerprint": "fp_ollama", "choices": [choice]
            })
            .to_string()
        };
        let words = WORDS.iter().map(|word| chunk(word, Value::Null));
        Script::sse(words.chain([chunk("", json!("stop"))]))
    }
}

const CREATED: &str = "2025-05-04T17:37:44.706015396Z";

fn reply(body: &Value) -> Script {
    Script::text(body.to_string()).header(header::CONTENT_TYPE, "application/json; charset=utf-8")
}

fn failure(complaint: &str, body: &Value) -> Script {
    let status = if complaint.contains("not found") { 404 } else { 500 };
    Script::status(status, body.to_string()).header(header::CONTENT_TYPE, "application/json; charset=utf-8")
}

fn done(name: &str, path: &str, reason: &str) -> Value {
    let mut done = json!({"model": name, "created_at": CREATED, "done": true, "done_reason": reason});
    match path {
        "/api/chat" => done["message"] = json!({"role": "assistant", "content": ""}),
        _ => done["response"] = json!(""),
    }
    done
}

fn details() -> Value {
    json!({
        "parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
        "parameter_size": "3.2B", "quantization_level": "Q4_K_M"
    })
}

fn tag(name: &str) -> Value {
    json!({
        "name": name, "model": name, "modified_at": CREATED, "size": 2_019_393_189_u64,
        "digest": "a80c4f17acd55265feec403c7aef86be0c25983ab279d83f3bcd3abbcb5b8b72", "details": details()
    })
}

fn running(name: &str) -> Value {
    let mut running = tag(name);
    running["expires_at"] = json!("2318-08-11T17:14:43.831537Z");
    running["size_vram"] = json!(3_222_835_200_u64);
    running["context_length"] = json!(4096);
    running
}
