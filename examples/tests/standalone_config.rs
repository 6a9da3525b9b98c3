//! Every setting of `standalone` has an effect, in the stated order.

#[path = "../standalone/config.rs"]
mod config;

use std::time::Duration;

use clap::Parser;
use config::{Flags, LISTEN, MAX_CONNECTIONS, Settings, Strategy};
use gateway_core::Deadlines;

fn resolve(flags: &[&str], environment: &[(&str, &str)], file: Option<&str>) -> Result<Settings, String> {
    let flags = Flags::parse_from(std::iter::once(&"standalone").chain(flags));
    let look_up =
        |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Settings::resolve(&flags, look_up, file).map_err(|error| error.to_string())
}

const TOKEN: (&str, &str) = ("GATEWAY_BEARER_TOKEN", "t");

#[test]
fn the_address_comes_from_flag_then_environment_then_file_then_default() {
    let file = Some("listen = '10.0.0.1:1'");
    let variables = [TOKEN, ("GATEWAY_HOST", "0.0.0.0"), ("GATEWAY_PORT", "2")];
    let listen = |flags: &[&str], environment: &[(&str, &str)], file| {
        resolve(flags, environment, file).unwrap().listen
    };
    assert_eq!(listen(&["--listen", "[::1]:3"], &variables, file), "[::1]:3");
    assert_eq!(listen(&[], &variables, file), "0.0.0.0:2");
    assert_eq!(listen(&[], &[TOKEN, ("GATEWAY_PORT", "2")], file), "10.0.0.1:2");
    assert_eq!(listen(&[], &[TOKEN, ("GATEWAY_HOST", "::")], file), "[::]:1");
    assert_eq!(listen(&[], &[TOKEN], file), "10.0.0.1:1");
    assert_eq!(listen(&[], &[TOKEN], None), LISTEN);
    assert!(resolve(&[], &[TOKEN, ("GATEWAY_PORT", "http")], None).err().unwrap().contains("listen"));
}

#[test]
fn without_a_token_it_says_what_to_set() {
    let refusal = resolve(&[], &[], None).err().unwrap();
    for way in ["GATEWAY_BEARER_TOKEN", "client_tokens", "allow_anonymous", "--demo"] {
        assert!(refusal.contains(way), "{refusal}");
    }
    assert!(resolve(&["--demo"], &[], None).unwrap().demo);
    assert!(resolve(&[], &[], Some("allow_anonymous = true")).unwrap().allow_anonymous);
    assert!(resolve(&[], &[("GATEWAY_BEARER_TOKEN", " ")], None).is_err(), "a blank token is none");
}

#[test]
fn tokens_of_the_environment_go_before_those_of_the_file() {
    let file = "client_tokens = ['f']\nadmin_tokens = ['fa']\nrunner_token = 'fr'";
    let of_file = resolve(&[], &[], Some(file)).unwrap();
    assert_eq!(of_file.client_tokens, ["f"]);
    assert_eq!(of_file.admin_tokens, ["fa"]);
    assert_eq!(of_file.runner_token.as_deref(), Some("fr"));
    let environment = [
        ("GATEWAY_BEARER_TOKEN", "a"),
        ("GATEWAY_BEARER_TOKENS", "b, c,"),
        ("GATEWAY_ADMIN_TOKEN", "ea"),
        ("GATEWAY_RUNNER_TOKEN", "er"),
    ];
    let of_environment = resolve(&[], &environment, Some(file)).unwrap();
    assert_eq!(of_environment.client_tokens, ["a", "b", "c"]);
    assert_eq!(of_environment.admin_tokens, ["ea"]);
    assert_eq!(of_environment.runner_token.as_deref(), Some("er"));
}

#[test]
fn runners_come_from_file_and_environment() {
    let file = "[[runner]]\nurl = 'http://a:1'\nid = 'one'\nmodels = ['m']\nslots = 3\nmachine = 'gpu'\n\
                labels = { zone = 'eu' }";
    let environment =
        [TOKEN, ("STATIC_BACKENDS", "http://b:2/, http://c:3"), ("OLLAMA_BASE_URL", "http://o:11434")];
    let runners = resolve(&[], &environment, Some(file)).unwrap().runners;
    let urls: Vec<&str> = runners.iter().map(|runner| runner.url.as_str()).collect();
    assert_eq!(urls, ["http://a:1", "http://b:2", "http://c:3", "http://o:11434"]);
    assert_eq!((runners[0].slots, runners[0].machine.as_deref()), (Some(3), Some("gpu")));
    assert_eq!(runners[0].models, ["m"]);
    assert_eq!(runners[0].labels["zone"], "eu");
    assert_eq!(runners[3].id.as_deref(), Some("ollama"));
}

#[test]
fn limits_have_defaults_and_zero_is_no_limit() {
    let usual = resolve(&[], &[TOKEN], None).unwrap();
    assert_eq!(usual.deadlines, Deadlines::default());
    assert_eq!((usual.max_connections, usual.max_body_bytes), (MAX_CONNECTIONS, None));
    assert_eq!(usual.strategy, Strategy::LeastLoaded);
    let file = "strategy = 'best-fit'\n[limits]\nmax_body_bytes = 5\nmax_connections = 6\nmax_failures = 7\n\
                first_byte_s = 8\nidle_s = 0";
    let set = resolve(&[], &[TOKEN], Some(file)).unwrap();
    assert_eq!(set.strategy, Strategy::BestFit);
    assert_eq!((set.max_body_bytes, set.max_connections), (Some(5), 6));
    assert_eq!(set.retry.max_failures, 7);
    assert_eq!((set.deadlines.first_byte, set.deadlines.idle), (Some(Duration::from_secs(8)), None));
    assert_eq!(set.deadlines.total, Deadlines::default().total);
    for wrong in ["max_failures = 0", "max_connections = 0"] {
        assert!(resolve(&[], &[TOKEN], Some(&format!("[limits]\n{wrong}"))).is_err());
    }
}

#[test]
fn unknown_keys_are_errors_that_name_the_key() {
    for (file, key) in [
        ("lisen = 'x'", "lisen"),
        ("[limits]\nidle = 3", "idle"),
        ("[[runner]]\nurl = 'http://a'\nweight = 3", "weight"),
        ("strategy = 'random'", "random"),
    ] {
        let error = resolve(&[], &[TOKEN], Some(file)).err().unwrap();
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn observability_starts_when_its_host_or_port_is_set() {
    let observability =
        |environment: &[(&str, &str)], file| resolve(&[], environment, file).unwrap().observability;
    assert_eq!(observability(&[TOKEN], None), None);
    let host = [TOKEN, ("OBSERVABILITY_HOST", "0.0.0.0")];
    assert_eq!(observability(&host, None).as_deref(), Some("0.0.0.0:8801"));
    assert_eq!(observability(&[TOKEN, ("OBSERVABILITY_PORT", "9")], None).as_deref(), Some("127.0.0.1:9"));
    let both = [TOKEN, ("OBSERVABILITY_HOST", "0.0.0.0"), ("OBSERVABILITY_PORT", "9")];
    assert_eq!(observability(&both, None).as_deref(), Some("0.0.0.0:9"));
    let file = Some("observability = '127.0.0.1:7'");
    assert_eq!(observability(&[TOKEN], file).as_deref(), Some("127.0.0.1:7"));
}

#[test]
fn workers_are_counted_from_one() {
    assert_eq!(Flags::parse_from(["standalone", "--workers", "1"]).workers, Some(1));
    assert!(Flags::try_parse_from(["standalone", "--workers", "0"]).is_err());
}

#[test]
fn the_example_file_is_valid() {
    let settings = resolve(&[], &[], Some(include_str!("../standalone/gateway.toml"))).unwrap();
    assert_eq!(settings.runners.len(), 1);
    assert_eq!(settings.deadlines, Deadlines::default(), "the example shows the defaults");
}
