//! The names that documents give to settings, and what is written out of those that are in force.

#[path = "../standalone/config/mod.rs"]
#[allow(dead_code, reason = "what each setting comes to is in standalone_config.rs")]
mod config;

use std::time::Duration;

use clap::Parser;
use config::{Flags, Settings};

fn resolve(flags: &[&str], environment: &[(&str, &str)], file: Option<&str>) -> Result<Settings, String> {
    let flags = Flags::parse_from(std::iter::once(&"standalone").chain(flags));
    let look_up =
        |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Settings::resolve(&flags, look_up, file).map_err(|error| error.to_string())
}

const TOKEN: (&str, &str) = ("GATEWAY_BEARER_TOKEN", "t");

#[test]
fn the_documents_names_are_known() {
    let cluster = [
        TOKEN,
        ("DISCOVERY_MODE", "kubernetes"),
        ("K8S_NAMESPACE", "ml"),
        ("K8S_LABEL_SELECTOR", "app=neutrino-task"),
    ];
    match resolve(&[], &cluster, None) {
        Ok(settings) => assert_eq!(format!("{:?}", settings.mode()), "Kubernetes"),
        Err(error) => assert!(error.contains("--features kubernetes"), "{error}"),
    }
    // What belongs to a cluster has no effect elsewhere, and does no harm.
    let listed = [
        TOKEN,
        ("DISCOVERY_MODE", "static"),
        ("K8S_NAMESPACE", "ml"),
        ("STATIC_BACKENDS", "http://a:1, http://b:2/"),
        ("CAPACITY_UPDATE_INTERVAL", "2"),
        ("CAPACITY_TIMEOUT", "0.5"),
        ("DEFAULT_BACKEND", "ollama"),
        ("DATABASE_PATH", "/tmp/log.db"),
    ];
    let settings = resolve(&[], &listed, None).unwrap();
    assert_eq!(settings.runners.len(), 2);
    for runner in &settings.runners {
        assert_eq!(runner.probe_interval, Some(Duration::from_secs(2)));
        assert_eq!(runner.probe_timeout, Some(Duration::from_millis(500)));
    }
    assert_eq!(settings.default_backend.as_deref(), Some("ollama"));
    assert_eq!(settings.request_log.unwrap().database.to_str(), Some("/tmp/log.db"));
    for (name, value) in
        [("DISCOVERY_MODE", "guess"), ("CAPACITY_TIMEOUT", "soon"), ("CAPACITY_UPDATE_INTERVAL", "0")]
    {
        let error = resolve(&[], &[TOKEN, (name, value)], None).err().unwrap();
        assert!(error.contains(name) && error.contains(value), "{error}");
    }
}

#[test]
fn what_is_in_force_can_be_written_out_and_read_again_without_a_secret() {
    let file = "client_tokens = ['s3cret-a']\nadmin_tokens = ['s3cret-b']\nrunner_token = 's3cret-c'\n\
        strategy = 'peak-ewma'\n\
        [strategy_of]\nbig = { scorers = [{ name = 'load' }] }\n\
        [[client]]\ntoken = 's3cret-d'\nname = 'ci'\n\
        [[runner]]\nurl = 'http://a:1'\napi_key = 's3cret-e'\nprobe_interval_s = 3\n\
        [discovery]\nmode = 'dns'\nnames = ['dns://llm:8000']\napi_key = 's3cret-f'\n\
        [grpc]\nlisten = 'unix:/run/g.sock'\n\
        [[grpc.runner]]\naddress = 'unix:/run/w.sock'\ntoken = 's3cret-g'\n\
        [[generic]]\nprefix = '/tasks'\n";
    let flags = Flags::parse_from(["standalone", "--listen", "[::1]:3"]);
    let look_up = |name: &str| (name == "STATIC_BACKENDS").then(|| "http://b:2".to_owned());
    let written = Settings::effective(&flags, look_up, Some(file)).unwrap();
    assert!(!written.contains("s3cret"), "{written}");
    for part in [
        "peak-ewma",
        "http://a:1",
        "http://b:2",
        "[::1]:3",
        "patience_s = 30.0",
        "dns://llm:8000",
        "(hidden)",
        "unix:/run/g.sock",
        "unix:/run/w.sock",
        "max_message_bytes = 67108864",
    ] {
        assert!(written.contains(part), "{part} is missing in {written}");
    }
    // It is the same again; and nothing of it was left to a default that could be another tomorrow.
    let again = Settings::effective(&Flags::parse_from(["standalone"]), |_| None, Some(&written)).unwrap();
    assert_eq!(again, written);
    assert!(
        Settings::effective(&flags, look_up, Some("client_tokens = ['t']\n[queue]\nlook_s = 0")).is_err()
    );
}

#[test]
fn a_file_that_cannot_be_read_is_told_by_its_line_and_never_quoted() {
    for file in ["listen = 'a:1'\n\nclient_tokens = 's3cret'", "listen = 'a:1'\n\nclient_tokens = [s3cret]"] {
        let error = resolve(&[], &[], Some(file)).err().unwrap();
        assert!(error.contains("line 3") && !error.contains("s3cret"), "{error}");
    }
}
