//! What is set reaches the gateway that `standalone` builds.

#[path = "../standalone/assemble.rs"]
#[allow(dead_code, reason = "gRPC is in standalone_grpc.rs")]
mod assemble;
#[path = "../standalone/config/mod.rs"]
#[allow(dead_code, reason = "what the program itself goes by is in standalone_config.rs")]
mod config;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use assemble::{Assembled, assemble};
use bytes::Bytes;
use clap::Parser;
use config::{Flags, Settings};
use gateway_core::{ModelId, Runner, RunnerId, RunnerSpec, RunnerStatus};
use gateway_testkit::{Fault, MockEngine, Script};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tower_service::Service;

const CHAT: &str = r#"{"model":"m"}"#;

/// A gateway as the file says, with these runners of the model `m`.
fn gateway<const N: usize>(file: &str, engines: [&MockEngine; N]) -> Assembled {
    // What is set before any section comes first.
    let file = format!("client_tokens = ['t']\n{file}");
    let settings = Settings::resolve(&Flags::parse_from(["standalone"]), |_| None, Some(&file)).unwrap();
    let assembled = assemble(&settings).unwrap();
    for (number, engine) in engines.into_iter().enumerate() {
        let spec = RunnerSpec::new(RunnerId::new(format!("r{number}")).unwrap());
        let status = RunnerStatus::serving([ModelId::new("m").unwrap()]);
        assembled.registry.join(spec, status, engine.link());
    }
    assembled
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

async fn ask(assembled: &Assembled, token: &str, body: &str) -> Answer {
    let request = Request::post("/v1/chat/completions").header("authorization", format!("Bearer {token}"));
    let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
    let response = assembled.gateway.clone().call(request).await.unwrap_or_else(|never| match never {});
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        text: String::from_utf8_lossy(&body).into_owned(),
    }
}

fn fine() -> MockEngine {
    MockEngine::new(|_| Script::text("fine"))
}

fn failing() -> MockEngine {
    MockEngine::new(|_| Script::text("").fault(Fault::CutBeforeHead))
}

fn slow() -> MockEngine {
    MockEngine::new(|_| Script::sse(["1"]).delay(Duration::from_secs(25)))
}

#[tokio::test]
async fn clients_are_let_in_by_either_list() {
    let engine = fine();
    let assembled = gateway("[[client]]\ntoken = 'named'\nname = 'n'", [&engine]);
    for (token, status) in [("t", 200), ("named", 200), ("other", 401)] {
        assert_eq!(ask(&assembled, token, CHAT).await.status, status, "{token}");
    }
}

#[tokio::test(start_paused = true)]
async fn retries() {
    for (file, tries) in [
        ("", 3),
        ("[retry]\nmax_failures = 1", 1),
        ("[retry]\nbudget_min_per_second = 0\nbudget_ratio = 0", 1),
    ] {
        let engine = failing();
        let assembled = gateway(file, [&engine; 4]);
        assert_eq!(ask(&assembled, "t", CHAT).await.status, 502);
        assert_eq!(engine.counts().started, tries, "{file}");
    }
}

#[tokio::test(start_paused = true)]
async fn breakers() {
    for (file, status) in [("[breaker]\nconsecutive_faults = 1", 503), ("", 502)] {
        let engine = failing();
        let assembled = gateway(file, [&engine]);
        assert_eq!(ask(&assembled, "t", CHAT).await.status, 502);
        assert_eq!(ask(&assembled, "t", CHAT).await.status, status, "{file}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_queue() {
    for (file, status, waited) in [("[queue]\nmax_waiting = 0", 429, 0), ("[queue]\npatience_s = 7", 503, 7)]
    {
        let assembled = gateway(file, []);
        let spec = RunnerSpec::new(RunnerId::new("r").unwrap()).slots(1);
        let status_of = RunnerStatus::serving([ModelId::new("m").unwrap()]);
        assembled.registry.join(spec, status_of, fine().link());
        let _taken = assembled.registry.fleet().runners()[0].try_reserve();
        let started = Instant::now();
        assert_eq!(ask(&assembled, "t", CHAT).await.status, status, "{file}");
        assert_eq!(started.elapsed().as_secs(), waited);
    }
}

#[tokio::test(start_paused = true)]
async fn hedges_and_deadlines() {
    let engine = slow();
    let assembled = gateway("[hedge]\nenabled = true\nratio = 1", [&engine; 2]);
    let answer = ask(&assembled, "t", CHAT).await;
    assert_eq!((answer.status, engine.counts().started), (200, 2));
    assert!(answer.headers["x-router-reason"].to_str().unwrap().ends_with("; hedged"));

    let assembled = gateway("[limits]\ntotal_s = 20", [&engine]);
    let started = Instant::now();
    assert_eq!(ask(&assembled, "t", CHAT).await.status, 504);
    assert_eq!(started.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn comments_while_a_token_is_awaited() {
    let engine = slow();
    for (file, comments) in [("sse_keepalive_s = 10", 2), ("", 0)] {
        let answer = ask(&gateway(file, [&engine]), "t", r#"{"model":"m","stream":true}"#).await;
        assert_eq!(answer.text.matches(": waiting").count(), comments);
    }
}

#[tokio::test]
async fn a_model_has_its_own_strategy() {
    let engine = fine();
    let assembled = gateway("[models.aliases]\nn = 'm'\n[strategy_of]\nm = 'random'", [&engine]);
    let reason = ask(&assembled, "t", CHAT).await.headers["x-router-reason"].clone();
    assert_eq!(reason, "per-model; because=random");
}

#[tokio::test]
async fn names_strategy_and_size() {
    let engine = fine();
    let file = "strategy = 'round-robin'\n[models.aliases]\ngpt = 'm'\n[limits]\nmax_body_bytes = 20";
    let assembled = gateway(file, [&engine]);
    let answer = ask(&assembled, "t", r#"{"model":"gpt"}"#).await;
    assert_eq!((answer.status, &answer.headers["x-model-used"]), (200, &"m".parse().unwrap()));
    assert_eq!(answer.headers["x-router-reason"], "round-robin");
    assert_eq!(ask(&assembled, "t", r#"{"model":"gpt","n":1}"#).await.status, 413);
}

/// Waits until the gateway has the runners that it should.
async fn until(assembled: &Assembled, done: impl Fn(&[Arc<Runner>]) -> bool) {
    let mut events = assembled.registry.events();
    let settled = async {
        while !done(assembled.registry.fleet().runners()) {
            events.next().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), settled).await.expect("the runners do not come");
}

#[tokio::test]
async fn runners_are_found_in_a_file() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("found.toml");
    let entries = ["url = 'http://127.0.0.1:1'\nslots = 2\nmachine = 'cpu'", "url = 'http://127.0.0.1:2'"];
    let written = entries.map(|entry| format!("[[runner]]\n{entry}\n")).concat();
    std::fs::write(&path, &written).unwrap();
    let assembled = gateway(
        &format!(
            "[discovery]\nmode = 'file'\npath = '{}'\ninterval_s = 0.02\ndrain_s = 0\n\
             models = ['m']\nslots = 9\nmachine = 'gpu'\nlabels = {{ zone = 'eu' }}\n\
             [[runner]]\nurl = 'http://127.0.0.1:3'\nid = 'listed'\nmodels = ['m']",
            path.display()
        ),
        [],
    );
    until(&assembled, |runners| runners.len() == 3).await;
    let fleet = assembled.registry.fleet();
    let [first, second, listed] = &fleet.runners()[..] else { panic!() };
    let said = |runner: &Runner| {
        let spec = runner.spec();
        (spec.slots.map(|slots| slots.get()), spec.machine.description.clone(), spec.labels.len())
    };
    assert_eq!(said(first), (Some(2), Some("cpu".to_owned()), 1));
    assert_eq!(said(second), (Some(9), Some("gpu".to_owned()), 1));
    assert_eq!(said(listed), (None, None, 0));
    // With no time to drain, not even a request holds it.
    let _held = first.try_reserve().unwrap();
    std::fs::write(&path, "").unwrap();
    until(&assembled, |runners| runners.len() == 1).await;
}

#[tokio::test]
async fn runners_are_found_by_name_and_there_are_no_more_than_may_be() {
    let found =
        "[discovery]\nmode = 'dns'\nnames = ['dns://localhost:1', 'dns://127.0.0.1:1']\nmodels = ['m']";
    for (more, ids) in [
        ("", &["127.0.0.1@127.0.0.1:1", "localhost@127.0.0.1:1"][..]),
        ("\nmax_runners = 1", &["localhost@127.0.0.1:1"]),
    ] {
        let assembled = gateway(&format!("{found}{more}"), []);
        until(&assembled, |runners| {
            runners.iter().map(|runner| runner.id().as_str()).eq(ids.iter().copied())
        })
        .await;
    }
}

#[tokio::test]
async fn found_runners_get_the_key_that_is_set_for_them() {
    let seen = |file: String| async move {
        let engine = fine();
        let server = engine.serve_http().await.unwrap();
        let file = file.replace("URL", &server.url()).replace("PORT", &server.address().port().to_string());
        let assembled = gateway(&file, []);
        until(&assembled, |runners| runners.len() == 1).await;
        assert_eq!(ask(&assembled, "t", CHAT).await.status, 200);
        engine.last_seen().unwrap().head.headers.get("authorization").cloned()
    };
    let dns = "[discovery]\nmode = 'dns'\nnames = ['dns://127.0.0.1:PORT']\nmodels = ['m']";
    assert_eq!(seen(dns.to_owned()).await, None);
    assert_eq!(seen(format!("{dns}\napi_key = 'k'")).await.unwrap(), "Bearer k");
    let listed = "[[runner]]\nurl = 'URL'\nmodels = ['m']\napi_key = 'own'".to_owned();
    assert_eq!(seen(listed).await.unwrap(), "Bearer own");
}

#[tokio::test]
#[cfg(feature = "sqlite")]
async fn requests_are_logged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("requests.db");
    let engine = fine();
    let assembled = gateway(&format!("[request_log]\ndatabase = '{}'", path.display()), [&engine]);
    assert_eq!(ask(&assembled, "t", CHAT).await.status, 200);
    assert_eq!(ask(&assembled, "wrong-token", CHAT).await.status, 401);
    assert!(assembled.gateway.shutdown(Duration::ZERO).await.is_clean());
    drop(assembled);
    let bytes = std::fs::read(&path).unwrap();
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("/v1/chat/completions") && has("success") && has("unauthorized"));
    assert!(!has("wrong-token"));
}

#[test]
fn a_request_log_that_cannot_be_opened_stops_the_start_and_names_its_key() {
    let file = "client_tokens = ['t']\n[request_log]\ndatabase = '/nowhere/at/all.db'";
    let settings = Settings::resolve(&Flags::parse_from(["standalone"]), |_| None, Some(file)).unwrap();
    let error = assemble(&settings).err().unwrap().to_string();
    assert!(error.starts_with("request_log.database: "), "{error}");
    // Without the feature it says how to build the program.
    assert!(error.contains(if cfg!(feature = "sqlite") {
        "/nowhere/at/all.db"
    } else {
        "--features sqlite"
    }));
}

#[tokio::test]
async fn other_settings_change_runners_tokens_and_strategy_and_keep_the_rest() {
    let (engine, other) = (fine(), fine());
    let (one, two) = (engine.serve_http().await.unwrap(), other.serve_http().await.unwrap());
    let settings =
        |file: String| Settings::resolve(&Flags::parse_from(["standalone"]), |_| None, Some(&file)).unwrap();
    let runner = |url: &str, id: &str| format!("[[runner]]\nurl = '{url}'\nid = '{id}'\nmodels = ['m']\n");
    let first = format!("client_tokens = ['t']\n{}", runner(&one.url(), "one"));
    let assembled = assemble(&settings(first.clone())).unwrap();
    until(&assembled, |runners| runners.len() == 1).await;
    assert_eq!(ask(&assembled, "t", CHAT).await.status, 200);

    let second = format!("client_tokens = ['u']\nstrategy = 'random'\n{}", runner(&two.url(), "two"));
    assembled.change(&settings(second)).unwrap();
    until(&assembled, |runners| runners.iter().map(|runner| runner.id().as_str()).eq(["two"])).await;
    assert_eq!(ask(&assembled, "t", CHAT).await.status, 401);
    let answer = ask(&assembled, "u", CHAT).await;
    assert_eq!((answer.status, answer.headers["x-backend-used"].to_str().unwrap()), (200, "two"));
    assert!(answer.headers["x-router-reason"].to_str().unwrap().starts_with("random"));

    // A strategy that is the same keeps what it knows; and what cannot be changes nothing.
    let before = format!("{:?}", assembled.gateway.dispatcher());
    let broken =
        settings(format!("client_tokens = ['v']\n[[generic]]\nopenapi = '/nowhere.json'\n{first}").replacen(
            "client_tokens = ['t']\n",
            "",
            1,
        ));
    assert!(assembled.change(&broken).is_err());
    assert_eq!(format!("{:?}", assembled.gateway.dispatcher()), before);
    assert_eq!(ask(&assembled, "u", CHAT).await.status, 200);
}
