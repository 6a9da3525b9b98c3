//! `/admin/explain` says of each runner whether it could serve a request and why not, and sends nothing.

mod common;

use common::*;
use gateway_core::{
    Balancer, Candidates, Health, Model, ModelRoutes, ModelState, Requirements, Reservation, Runner,
    RunnerChange, RunnerId, RunnerSpec, RunnerStatus, Score,
};
use gateway_http::Gateway;
use serde_json::{Value, json};

/// Scores what it was told of the request.
struct Scoring;

impl Balancer for Scoring {
    fn name(&self) -> &'static str {
        "scoring"
    }

    fn pick(&self, _: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        (0..candidates.len()).find_map(|at| candidates.try_reserve(at))
    }

    fn reads_prompts(&self) -> bool {
        true
    }

    fn scores(&self, requirements: &Requirements, runner: &Runner, scores: &mut Vec<Score>) {
        let blocks = requirements.workload.prefix.hashes().len();
        scores.push(Score { name: "zeal", value: f64::from(runner.load().in_flight) });
        scores.push(Score { name: "blocks", value: blocks as f64 });
        scores.push(Score { name: "unknown", value: f64::NAN });
    }
}

fn explain(body: &str) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    as_admin(post("/admin/explain", body.to_owned()))
}

async fn explained(gateway: &Gateway, body: &str) -> Value {
    let answer = whole(gateway, explain(body)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn verdicts(explanation: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let runners = explanation["runners"].as_array().unwrap().iter();
    runners.map(|runner| (text(&runner["id"]), text(&runner["verdict"]), text(&runner["why"]))).collect()
}

#[tokio::test]
async fn each_runner_has_a_verdict_and_nothing_is_sent() {
    let gateway = builder().build().unwrap();
    let link = Mock::ok();
    let spec = |id: &str| RunnerSpec::new(RunnerId::new(id).unwrap()).slots(1);
    let available = vec![Model::new(model("m"), ModelState::Available)];
    let status = || RunnerStatus::serving([model("m")]);
    join_with(&gateway, spec("a-free"), status(), &link);
    let drained = join_with(&gateway, spec("b-drained"), status(), &link);
    gateway.dispatcher().registry().update(&drained, RunnerChange::Drain(true));
    join_with(&gateway, spec("c-full"), status(), &link);
    let _taken = gateway.dispatcher().registry().fleet().runner("c-full").unwrap().try_reserve();
    let sick = RunnerStatus { health: Health::Unhealthy, ..status() };
    join_with(&gateway, spec("d-sick"), sick, &link);
    let cold = RunnerStatus { models: available, ..RunnerStatus::serving([]) };
    join_with(&gateway, spec("e-cold"), cold, &link);
    join(&gateway, "f-other", &["n"], &link);

    let explanation = explained(&gateway, r#"{"model":"m"}"#).await;
    let expected = [
        ("a-free", "eligible", "-"),
        ("b-drained", "draining", "is draining"),
        ("c-full", "full", "is full"),
        ("d-sick", "health", "is unhealthy"),
        ("e-cold", "model_not_loaded", "has the model, but not loaded"),
    ];
    let expected = expected.map(|(id, verdict, why)| (id.to_owned(), verdict.to_owned(), why.to_owned()));
    assert_eq!(verdicts(&explanation), expected);
    assert_eq!(explanation["strategy"], "least-loaded");
    let full = &explanation["runners"][2];
    assert_eq!((&full["load"]["in_flight"], &full["load"]["slots"]), (&json!(1), &json!(1)));
    assert_eq!(full["model_state"], "loaded");
    assert_eq!(explanation["runners"][4]["model_state"], "available");
    assert_eq!(explanation["runners"][1]["draining"], true);

    assert!(link.seen.lock().unwrap().is_empty() && link.commands.lock().unwrap().is_empty());
    let load = gateway.dispatcher().registry().fleet().runner("a-free").unwrap().load();
    assert_eq!(load.in_flight, 0);
    // It is no request for inference.
    assert!(!gateway.metrics_text().contains("inference_requests_total{"));

    // A model that nobody has: everybody says so.
    let explanation = explained(&gateway, r#"{"model":"nope"}"#).await;
    assert!(verdicts(&explanation).iter().all(|(_, verdict, _)| verdict == "unknown_model"));
    assert_eq!(verdicts(&explanation).len(), 6);
}

#[tokio::test]
async fn names_are_resolved_and_the_strategy_tells_what_it_looks_at() {
    let routes = ModelRoutes::builder().class("fast", ["m", "n"]).fallback("n", ["o"]).build().unwrap();
    let gateway = builder().strategy(Scoring).routes(routes).build().unwrap();
    join(&gateway, "r1", &["m", "o"], &Mock::ok());
    join(&gateway, "r2", &["n"], &Mock::ok());
    let body = format!(
        r#"{{"model":"class:fast","messages":[{{"content":"{}"}}],"max_tokens":9,"user":"u",
            "service_tier":"flex"}}"#,
        "x".repeat(1500)
    );
    let mut request = explain(&body);
    request.headers_mut().insert("x-request-timeout-ms", "250".parse().unwrap());
    let explanation = whole(&gateway, request).await.json();
    assert_eq!(explanation["model"], "class:fast");
    assert_eq!(explanation["targets"], json!(["m", "n", "o"]));
    let models: Vec<_> = (0..3).map(|at| explanation["runners"][at]["model"].clone()).collect();
    assert_eq!(models, ["m", "n", "o"]);
    let ranks: Vec<_> = (0..3)
        .map(|at| {
            (explanation["runners"][at]["rank"].clone(), explanation["runners"][at]["is_fallback"].clone())
        })
        .collect();
    assert_eq!(ranks, [(json!(0), json!(false)), (json!(1), json!(false)), (json!(2), json!(true))]);
    assert_eq!(explanation["runners"][0]["scores"], json!({"zeal": 0.0, "blocks": 2.0, "unknown": null}));
    assert_eq!(explanation["priority"], "low");
    let work = &explanation["workload"];
    assert_eq!((&work["max_tokens"], &work["deadline_ms"]), (&json!(9), &json!(250)));
    assert_eq!(work["prompt_blocks"], 2);
    assert!(work["prompt_tokens"].as_u64().is_some_and(|tokens| (375..400).contains(&tokens)));
    let session = work["session"].as_str().unwrap().to_owned();

    // In the place of a tenant.
    let mut request = explain(&body);
    request.headers_mut().insert("x-tenant", "team-a".parse().unwrap());
    let other = whole(&gateway, request).await.json();
    assert_ne!(other["workload"]["session"], session);
    let mut request = explain(&body);
    request.headers_mut().insert("x-tenant", " ".parse().unwrap());
    assert_eq!(whole(&gateway, request).await.status, 400);
}

#[tokio::test]
async fn it_is_for_admins_and_takes_what_an_inference_request_does() {
    let gateway = with_runner(&Mock::ok());
    let as_a_client = as_client(post("/admin/explain", r#"{"model":"m"}"#));
    assert_eq!(whole(&gateway, as_a_client).await.status, 401);
    assert_eq!(whole(&gateway, as_admin(get("/admin/explain"))).await.status, 405);
    let answer = whole(&gateway, explain("{}")).await;
    assert_eq!((answer.status, answer.error().2.as_deref()), (400, Some("model")));
}

#[tokio::test]
async fn a_generic_request_is_explained_by_its_path_and_method() {
    use gateway_http::{GenericRoute, OpenApi};
    let document = r#"{"openapi": "3.1.0", "paths": {"/tasks/{id}/run": {"post": {
        "x-neutrino-resources": {"num_gpus": 2}, "x-gateway": {"labels": {"pool": "tasks"}}}}}}"#;
    let route = GenericRoute::openapi(OpenApi::from_json(document).unwrap());
    let gateway = builder().generic(route).build().unwrap();
    join(&gateway, "r1", &["m"], &Mock::ok());
    let ask =
        async |query: &str| whole(&gateway, as_admin(post(&format!("/admin/explain{query}"), ""))).await;
    for path in ["/tasks/7/run", "%2Ftasks%2F7%2frun"] {
        let answer = ask(&format!("?path={path}&method=POST")).await.json();
        assert_eq!(answer["needs"]["gpus"], 2.0);
        assert_eq!(answer["labels"]["pool"], "tasks");
        assert!(answer["model"].is_null());
        assert_eq!(answer["runners"][0]["verdict"], "label");
    }
    for query in ["?path=/tasks/7/run", "?path=/nowhere&method=POST", "?path=/x&method=%20"] {
        assert_eq!(ask(query).await.status, 400, "{query}");
    }
}
