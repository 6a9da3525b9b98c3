//! What is read of an OpenAPI document, and what is said of one that makes no sense.

use gateway_core::Resources;
use gateway_http::OpenApi;

fn wrong(text: &str) -> String {
    OpenApi::parse(text).unwrap_err().to_string()
}

fn operation(extension: &str) -> String {
    format!(r#"{{"openapi":"3.1.0","paths":{{"/t/{{id}}":{{"post":{{{extension}}}}}}}}}"#)
}

#[test]
fn resources_have_the_defaults_of_their_extension() {
    let resources =
        |extension: &str| OpenApi::from_json(&operation(extension)).unwrap().operations()[0].resources();
    assert_eq!(resources(""), None);
    let neutrino = Resources { cpus: 1.0, gpus: 0.5, memory_gb: 1.0 };
    assert_eq!(resources(r#""x-neutrino-resources": {"num_gpus": 0.5, "later": true}"#), Some(neutrino));
    assert_eq!(resources(r#""x-neutrino-resources": {}"#), Some(OpenApi::NEUTRINO_DEFAULT));
    let own = Resources { cpus: 0.0, gpus: 2.0, memory_gb: 0.0 };
    let both = r#""x-neutrino-resources": {}, "x-gateway": {"resources": {"gpus": 2}}"#;
    assert_eq!(resources(both), Some(own));
}

#[test]
fn errors_name_the_place_and_what_should_be_there() {
    let post = "paths./t/{id}.post";
    for (extension, place, words) in [
        (r#""x-gateway": {"upgrade": "yes"}"#, ".x-gateway.upgrade", "true or false"),
        (r#""x-gateway": {"upgrades": true}"#, ".x-gateway.upgrades", "upgrade, timeout_s"),
        (r#""x-gateway": {"resources": {"gpu": 1}}"#, ".x-gateway.resources.gpu", "cpus, gpus, memory_gb"),
        (r#""x-gateway": {"resources": {"gpus": -1}}"#, ".x-gateway.resources.gpus", "from 0 on"),
        (r#""x-gateway": {"labels": {"zone": 1}}"#, ".x-gateway.labels.zone", "a text"),
        (r#""x-gateway": {"timeout_s": 0}"#, ".x-gateway.timeout_s", "seconds"),
        (r#""x-gateway": {"max_body_bytes": 1.5}"#, ".x-gateway.max_body_bytes", "bytes"),
        (r#""x-gateway": {"model": ""}"#, ".x-gateway.model", "empty"),
        (r#""x-gateway": []"#, ".x-gateway", "an object"),
        (r#""x-neutrino-resources": {"num_cpus": "2"}"#, ".x-neutrino-resources.num_cpus", "not \"2\""),
    ] {
        let error = wrong(&operation(extension));
        assert!(error.starts_with(&format!("{post}{place}: ")), "{error}");
        assert!(error.contains(words), "{error}");
    }
    for (text, words) in [
        ("{", "not JSON"),
        ("{}", "openapi"),
        (r#"{"openapi":"4.0.0","paths":{}}"#, "openapi: "),
        (r#"{"openapi":"3.0.0"}"#, "paths: "),
        (r#"{"openapi":"3.0.0","paths":[]}"#, "paths: it must be an object"),
        (r#"{"openapi":"3.0.0","paths":{"t":{}}}"#, "paths.t: a path must begin"),
        (r#"{"openapi":"3.0.0","paths":{"/{}":{}}}"#, "braces"),
        (r#"{"openapi":"3.0.0","paths":{"/{a":{}}}"#, "braces"),
        (r#"{"openapi":"3.0.0","paths":{"/a}":{}}}"#, "braces"),
        (r#"{"openapi":"3.0.0","paths":{"/a?b=c":{}}}"#, "query"),
        (r##"{"openapi":"3.0.0","paths":{"/a":{"$ref":"#/x"}}}"##, "paths./a.$ref: "),
        (r#"{"openapi":"3.0.0","paths":{},"servers":[{"url":"/{x}"}]}"#, "servers[0].url: "),
        (r#"{"openapi":"3.0.0","paths":{},"servers":[{}]}"#, "servers[0]: "),
    ] {
        let error = wrong(text);
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn the_place_can_be_asked_for() {
    let error = OpenApi::parse(&operation(r#""x-gateway": {"upgrade": 1}"#)).unwrap_err();
    assert_eq!(error.place(), "paths./t/{id}.post.x-gateway.upgrade");
}

#[cfg(not(feature = "yaml"))]
#[test]
fn without_the_feature_yaml_says_what_to_do() {
    let error = wrong("openapi: 3.0.3\npaths: {}\n");
    assert!(error.contains("feature `yaml`"), "{error}");
}

#[cfg(feature = "yaml")]
#[test]
fn yaml_is_read_like_json() {
    let yaml = r#"
openapi: 3.0
info: {title: Tasks, version: "1"}
servers:
  - url: /v2
x-shared:
  gpu: &gpu {num_gpus: 1}
paths:
  /tasks/{id}/run:
    summary: Runs a task
    post:
      responses:
        200: {description: done}
        default: {description: else}
      x-neutrino-resources:
        <<: *gpu
        memory_gb: 8
  /tasks/{id}:
    get:
      x-gateway: {upgrade: true, timeout_s: 2.5, labels: {zone: eu}}
"#;
    let api = OpenApi::parse(yaml).unwrap();
    assert_eq!(api.base_paths(), ["/v2"]);
    let run = api.operations().iter().find(|one| one.path() == "/tasks/{id}/run").unwrap();
    assert_eq!(run.method(), http::Method::POST);
    assert_eq!(run.resources(), Some(Resources { cpus: 1.0, gpus: 1.0, memory_gb: 8.0 }));

    let error = wrong("openapi: 3.0.3\npaths:\n  /a:\n    get:\n      x-gateway: {upgrade: perhaps}\n");
    assert!(error.starts_with("paths./a.get.x-gateway.upgrade: "), "{error}");
    assert!(wrong("openapi: [").contains("not YAML"));
}
