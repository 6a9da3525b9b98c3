//! What the file says of generic routes reaches the gateway that `standalone` builds.

#[path = "../standalone/assemble.rs"]
#[allow(dead_code, reason = "settings that change are in standalone_assembled.rs")]
mod assemble;
#[path = "../standalone/config/mod.rs"]
#[allow(dead_code, reason = "what the program itself goes by is in standalone_config.rs")]
mod config;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use assemble::{Assembled, assemble};
use bytes::Bytes;
use clap::Parser;
use config::{Flags, Settings};
use gateway_core::{Health, PeerAddr, ResourceReport, Resources, RunnerId, RunnerSpec, RunnerStatus};
use gateway_testkit::{MockEngine, Script};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower_service::Service;

const TASKS: &str = "
openapi: 3.1.0
servers: [{url: /v2}]
paths:
  /tasks/{id}/run:
    post: {}
  /tasks/{id}/train:
    post:
      x-neutrino-resources: {num_gpus: 1}
";

/// A document in a file of its own.
fn document(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
    std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
    path
}

fn build(file: &str) -> Result<Assembled, String> {
    let file = format!("client_tokens = ['t']\n{file}");
    let settings = Settings::resolve(&Flags::parse_from(["standalone"]), |_| None, Some(&file));
    assemble(&settings.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
}

/// A gateway with two runners without models: one says that it has a GPU, of the other nothing is known.
fn gateway(file: &str) -> (Assembled, MockEngine) {
    let assembled = build(file).unwrap();
    let engine = MockEngine::new(|_| Script::text("fine"));
    let one = Resources { cpus: 4.0, gpus: 1.0, memory_gb: 8.0 };
    for (id, free) in [("gpu", Some(one)), ("unknown", None)] {
        let resources = ResourceReport { total: free, available: free, ..ResourceReport::default() };
        let status = RunnerStatus { health: Health::Healthy, resources, ..RunnerStatus::default() };
        let spec = RunnerSpec::new(RunnerId::new(id).unwrap()).label("is", id);
        assembled.registry.join(spec, status, engine.link());
    }
    (assembled, engine)
}

fn task(path: &str) -> Request<Full<Bytes>> {
    let request = Request::post(path).header("authorization", "Bearer t");
    request.body(Full::new(Bytes::from_static(b"12345"))).unwrap()
}

async fn ask(assembled: &Assembled, request: Request<Full<Bytes>>) -> Response<Bytes> {
    let response = assembled.gateway.clone().call(request).await.unwrap_or_else(|never| match never {});
    let (head, body) = response.into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

/// The status, and which runners answer.
async fn who(assembled: &Assembled, path: &str) -> (u16, Vec<String>) {
    let mut names = Vec::new();
    let mut status = 0;
    for _ in 0..30 {
        let answer = ask(assembled, task(path)).await;
        status = answer.status().as_u16();
        names.extend(answer.headers().get("x-backend-used").map(|id| id.to_str().unwrap().to_owned()));
    }
    names.sort_unstable();
    names.dedup();
    (status, names)
}

#[tokio::test]
async fn documents_and_prefixes() {
    let path = document("tasks.yaml", TASKS);
    let file = format!(
        "[[generic]]\nopenapi = '{}'\n[[generic]]\nprefix = '/gpu'\nneeds = {{ gpus = 0.5 }}\n\
         [[generic]]\nprefix = '/unknown'\nlabels = {{ is = 'unknown' }}\n[[generic]]\nprefix = '/all'\n\
         [[generic]]\nprefix = '/m'\nmodel = 'm'",
        path.display()
    );
    let (assembled, _) = gateway(&file);
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    for (path, expected) in [
        // The document speaks of resources, so this needs what is usual there.
        ("/v2/tasks/7/run", (200, names(&["gpu"]))),
        ("/v2/tasks/7/train", (200, names(&["gpu"]))),
        ("/tasks/7/train", (404, vec![])),
        ("/gpu/x", (200, names(&["gpu"]))),
        ("/unknown/x", (200, names(&["unknown"]))),
        ("/all", (200, names(&["gpu", "unknown"]))),
        ("/m/x", (404, vec![])),
        ("/other", (404, vec![])),
    ] {
        assert_eq!(who(&assembled, path).await, expected, "{path}");
    }
}

#[tokio::test]
async fn needs_by_path_and_headers() {
    let path = document("needs.yaml", TASKS);
    let of_path = format!(
        "[[generic]]\nopenapi = '{}'\n[generic.needs_of]\n'/tasks/{{id}}/train' = {{ gpus = 2 }}",
        path.display()
    );
    let (assembled, _) = gateway(&of_path);
    assert_eq!(who(&assembled, "/v2/tasks/7/train").await.0, 503);
    for (from_headers, status) in [(false, 200), (true, 503)] {
        let (assembled, _) =
            gateway(&format!("[[generic]]\nprefix = '/'\n[needs]\nfrom_headers = {from_headers}"));
        let mut request = task("/x");
        request.headers_mut().insert("x-gateway-gpus", "2".parse().unwrap());
        assert_eq!(ask(&assembled, request).await.status(), status);
    }
    let model = "[needs.models]\nm = { gpus = 2 }\n[[generic]]\nprefix = '/'\nmodel = 'm'";
    let (assembled, engine) = gateway(model);
    let serving = RunnerStatus::serving([gateway_core::ModelId::new("m").unwrap()]);
    assembled.registry.join(RunnerSpec::new(RunnerId::new("m").unwrap()), serving, engine.link());
    assert_eq!(who(&assembled, "/x").await.0, 503);
}

#[tokio::test(start_paused = true)]
async fn what_else_a_route_says() {
    let route = |more: &str| format!("[[generic]]\nprefix = '/'\n{more}");
    let (assembled, _) = gateway(&route("max_body_bytes = 4"));
    assert_eq!(ask(&assembled, task("/x")).await.status(), 413);
    let (assembled, engine) = gateway(&route("pass_credentials = true"));
    assert_eq!(ask(&assembled, task("/x")).await.status(), 200);
    assert!(engine.last_seen().unwrap().head.headers.contains_key("authorization"));
    let upgrade = || {
        let mut request = task("/x");
        request.headers_mut().insert("connection", "upgrade".parse().unwrap());
        request.headers_mut().insert("upgrade", "websocket".parse().unwrap());
        request
    };
    for (upgrades, words) in [(false, "This route does not let"), (true, "server does not let")] {
        let (assembled, _) = gateway(&route(&format!("upgrades = {upgrades}")));
        let answer = ask(&assembled, upgrade()).await;
        assert!(String::from_utf8_lossy(answer.body()).contains(words), "{:?}", answer.body());
    }
    for key in ["timeout_s", "first_byte_s"] {
        let assembled = build(&route(&format!("{key} = 2.5"))).unwrap();
        let slow = MockEngine::new(|_| Script::text("late").delay(Duration::from_secs(60)));
        let status = RunnerStatus { health: Health::Healthy, ..RunnerStatus::default() };
        assembled.registry.join(RunnerSpec::new(RunnerId::new("slow").unwrap()), status, slow.link());
        let before = tokio::time::Instant::now();
        assert_eq!(ask(&assembled, task("/x")).await.status(), 504);
        assert_eq!(before.elapsed().as_millis(), 2_500, "{key}");
    }
}

#[tokio::test]
async fn who_is_believed() {
    for (forwarded, trusted, proto) in [
        ("", false, "http"),
        ("[forwarded]\ntrust = ['10.0.0.0/8']", false, "http"),
        ("[forwarded]\ntrust = ['192.0.2.0/24']\nover_tls = true", true, "https"),
        ("[forwarded]\ntrust = ['*']", true, "http"),
    ] {
        let (assembled, engine) = gateway(&format!("{forwarded}\n[[generic]]\nprefix = '/'"));
        let mut request = task("/x");
        request.headers_mut().insert("x-forwarded-for", "203.0.113.5".parse().unwrap());
        request.extensions_mut().insert(PeerAddr(SocketAddr::from(([192, 0, 2, 7], 1))));
        assert_eq!(ask(&assembled, request).await.status(), 200);
        let headers = engine.last_seen().unwrap().head.headers;
        let expected = if trusted { "203.0.113.5, 192.0.2.7" } else { "192.0.2.7" };
        assert_eq!(headers["x-forwarded-for"], expected);
        assert_eq!(headers["x-forwarded-proto"], proto);
    }
}

#[test]
fn mistakes_name_the_key() {
    let broken =
        document("broken.yaml", "openapi: 3.0.3\npaths:\n  /a:\n    get: {x-gateway: {upgrade: 1}}\n");
    for (file, words) in [
        ("[[generic]]".to_owned(), "`openapi` or `prefix`"),
        ("[[generic]]\nprefix = '/a'\nopenapi = 'x'".to_owned(), "`openapi` or `prefix`"),
        ("[[generic]]\nprefix = '/a'\nlabel = 'x'".to_owned(), "label"),
        ("[[generic]]\nprefix = 'a'".to_owned(), "`a`"),
        ("[[generic]]\nprefix = '/a'\nneeds = { gpu = 1 }".to_owned(), "gpu"),
        ("[[generic]]\nprefix = '/a'\nneeds_of = { '/a' = {} }".to_owned(), "`/a`"),
        ("[[generic]]\nprefix = '/a'\nmodel = ''".to_owned(), "generic.model"),
        ("[[generic]]\nopenapi = '/nowhere/tasks.yaml'".to_owned(), "generic.openapi (/nowhere/tasks.yaml)"),
        (format!("[[generic]]\nopenapi = '{}'", broken.display()), "paths./a.get.x-gateway.upgrade"),
        ("[forwarded]\ntrust = ['10.0.0.0/99']".to_owned(), "forwarded.trust"),
        ("[needs.models]\nm = { gpus = -1 }".to_owned(), "`m`"),
        ("[needs]\nheaders = true".to_owned(), "headers"),
    ] {
        let error = build(&file).err().unwrap_or_else(|| panic!("{file}"));
        assert!(error.contains(words), "{file}: {error}");
    }
}
