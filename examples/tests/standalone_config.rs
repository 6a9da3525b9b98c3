//! Every setting of `standalone` has an effect, in the stated order.

#[path = "../standalone/config/mod.rs"]
#[allow(dead_code, reason = "what is written out of them is in standalone_effective.rs")]
mod config;

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use config::{Flags, LISTEN, MAX_CONNECTIONS, RequestLogSetting, Settings, StrategySetting};
use gateway_core::{
    Backoff, BreakerPolicy, Deadlines, HealthPolicy, HedgePolicy, IdleUnload, OutlierPolicy, Priority,
    QueuePolicy, RetryPolicy, Strategy,
};
use gateway_http::PromptHashing;
#[cfg(feature = "sqlite")]
use gateway_http::SqliteLog;

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
    assert_eq!((runners[3].id.as_deref(), runners[3].kind.as_str()), (Some("ollama"), "ollama"));
}

#[test]
fn what_is_not_set_has_its_default() {
    let usual = resolve(&[], &[TOKEN], None).unwrap();
    assert_eq!(usual.deadlines, Deadlines::default());
    assert_eq!((usual.max_connections, usual.max_body_bytes), (MAX_CONNECTIONS, None));
    assert_eq!(usual.strategy, StrategySetting::Named(Strategy::LeastLoaded));
    assert!(usual.strategy_of.is_empty());
    assert_eq!((usual.queue, usual.retry), (QueuePolicy::default(), RetryPolicy::default()));
    assert_eq!(usual.health, HealthPolicy::default());
    assert_eq!((usual.hedge, usual.sse_keepalive), (None, None));
    assert_eq!(usual.prompts, PromptHashing::default());
    assert!(usual.routes.is_empty() && usual.clients.is_empty());
}

/// Whether a setting has come through.
type Check = fn(&Settings) -> bool;

/// Checks each of these lines of a section by itself: none of them is a default.
fn each(section: &str, lines: &[(&str, Check)]) {
    let usual = resolve(&[], &[TOKEN], None).unwrap();
    for (line, check) in lines {
        let file = format!("{section}\n{line}");
        let set = resolve(&[], &[TOKEN], Some(&file)).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(check(&set), "{section} {line} has no effect");
        assert!(!check(&usual), "{section} {line} is the default: the test shows nothing");
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

#[test]
fn limits_and_what_clients_see() {
    each(
        "[limits]",
        &[
            ("max_body_bytes = 5", |set| set.max_body_bytes == Some(5)),
            ("max_connections = 6", |set| set.max_connections == 6),
            ("first_byte_s = 8.5", |set| set.deadlines.first_byte == Some(seconds(8.5))),
            ("idle_s = 0", |set| set.deadlines.idle.is_none()),
            ("total_s = 9", |set| set.deadlines.total == Some(seconds(9.0))),
        ],
    );
    each("", &[("sse_keepalive_s = 15", |set| set.sse_keepalive == Some(seconds(15.0)))]);
    each(
        "[prompts]",
        &[
            ("block_bytes = 64", |set| set.prompts.block_bytes == 64),
            ("separate_tenants = true", |set| set.prompts.separate_tenants),
        ],
    );
}

#[test]
fn strategies_by_name_by_model_and_from_parts() {
    let name = |file: &str| resolve(&[], &[TOKEN], Some(file)).unwrap().balancer().unwrap().name();
    for strategy in Strategy::ALL {
        assert_eq!(name(&format!("strategy = '{strategy}'")), strategy.as_str());
        let text = include_str!("../standalone/gateway.toml");
        assert!(text.contains(strategy.as_str()), "{strategy} is not in gateway.toml");
    }
    assert_eq!(name("[strategy]\nscorers = [{ name = 'load' }]"), "pipeline");
    assert_eq!(name("[strategy_of]\nm = 'random'"), "per-model");
    let set = resolve(&[], &[TOKEN], Some("[strategy_of.m]\nscorers = [{ name = 'load' }]")).unwrap();
    assert!(matches!(set.strategy_of["m"], StrategySetting::Pipeline(_)));
    for (file, problem) in [
        ("strategy = 'guess'", "least-loaded"),
        ("strategy = 3", "the name of a strategy"),
        ("[strategy]\nscorers = []", "strategy: "),
        ("[strategy]\nscorers = [{ name = 'load' }]\nnonsense = 3", "nonsense"),
        ("[strategy]\nscorers = [{ name = 'guess' }]", "guess"),
        (
            "[strategy_of.m]\nfilters = [{ name = 'max-load' }]\nscorers = [{ name = 'load' }]",
            "strategy_of.m: ",
        ),
        ("[strategy_of]\n'' = 'random'", "strategy_of"),
    ] {
        let error = resolve(&[], &[TOKEN], Some(file)).err().unwrap_or_else(|| panic!("{file} is accepted"));
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn how_requests_wait() {
    each(
        "[queue]",
        &[
            ("max_waiting = 0", |set| set.queue.max_waiting == 0),
            ("max_per_tenant = 3", |set| set.queue.max_per_tenant == 3),
            ("patience_s = 5", |set| set.queue.patience == seconds(5.0)),
            ("ageing_s = 60", |set| set.queue.ageing == seconds(60.0)),
            ("look_s = 1", |set| set.queue.look == seconds(1.0)),
        ],
    );
}

#[test]
fn retries_and_hedges() {
    each(
        "[retry]",
        &[
            ("max_failures = 7", |set| set.retry.max_failures == 7),
            ("budget = false", |set| set.retry.budget.is_none()),
            ("budget_ratio = 0.5", |set| set.retry.budget.unwrap().ratio == 0.5),
            ("budget_min_per_second = 1", |set| set.retry.budget.unwrap().min_per_second == 1.0),
            ("budget_window_s = 5", |set| set.retry.budget.unwrap().window == seconds(5.0)),
            ("pause_s = 0.5\njitter = 0", |set| set.retry.backoff.pause(0) == seconds(0.5)),
            ("longest_pause_s = 3\njitter = 0", |set| set.retry.backoff.pause(20) == seconds(3.0)),
            ("jitter = 0", |set| set.retry.backoff.pause_at(0, 0.0) == Backoff::SHORTEST),
        ],
    );
    each(
        "[hedge]\nenabled = true",
        &[
            ("", |set| set.hedge == Some(HedgePolicy::after(seconds(2.0)))),
            ("after_s = 0.5", |set| set.hedge.is_some_and(|hedge| hedge.after == seconds(0.5))),
            ("ratio = 0.1", |set| set.hedge.is_some_and(|hedge| hedge.ratio == 0.1)),
        ],
    );
}

#[test]
fn what_is_done_about_runners_that_fail() {
    fn breaker(set: &Settings) -> BreakerPolicy {
        set.health.breaker.unwrap()
    }
    each(
        "[breaker]",
        &[
            ("enabled = false", |set| set.health.breaker.is_none()),
            ("consecutive_faults = 2", |set| breaker(set).consecutive_faults == 2),
            ("fault_rate = 0.9", |set| breaker(set).fault_rate == 0.9),
            ("min_requests = 3", |set| breaker(set).min_requests == 3),
            ("window_s = 60", |set| set.health.window == seconds(60.0)),
            ("open_s = 1", |set| breaker(set).open_for == seconds(1.0)),
            ("longest_open_s = 9", |set| breaker(set).longest_open == seconds(9.0)),
            ("probes = 4", |set| breaker(set).probes == 4),
            ("close_after = 5", |set| breaker(set).close_after == 5),
        ],
    );
    each(
        "[hold]",
        &[
            ("enabled = false", |set| set.health.hold.is_none()),
            ("after = 9", |set| set.health.hold.unwrap().after == 9),
            ("shortest_s = 2", |set| set.health.hold.unwrap().shortest == seconds(2.0)),
            ("longest_s = 20", |set| set.health.hold.unwrap().longest == seconds(20.0)),
            ("longest_asked_s = 0", |set| set.health.hold.unwrap().longest_asked.is_zero()),
        ],
    );
    each(
        "[slow_start]",
        &[
            ("over_s = 0", |set| set.health.warmup.is_none()),
            ("over_s = 60", |set| set.health.warmup.unwrap().over == seconds(60.0)),
            ("from = 0.5", |set| set.health.warmup.unwrap().from == 0.5),
        ],
    );
    fn outliers(set: &Settings) -> OutlierPolicy {
        set.health.outliers.unwrap()
    }
    each(
        "[outliers]",
        &[
            ("enabled = false", |set| set.health.outliers.is_none()),
            ("min_peers = 3", |set| outliers(set).min_peers == 3),
            ("min_requests = 50", |set| outliers(set).min_requests == 50),
            ("deviations = 3", |set| outliers(set).deviations == 3.0),
            ("least_gap = 0.2", |set| outliers(set).least_gap == 0.2),
            ("times_median = 5", |set| outliers(set).times_median == 5.0),
            ("least_latency_s = 1", |set| outliers(set).least_latency == seconds(1.0)),
            ("eject_s = 5", |set| outliers(set).eject_for == seconds(5.0)),
            ("longest_s = 50", |set| outliers(set).longest == seconds(50.0)),
            ("most = 0.5", |set| outliers(set).most == 0.5),
        ],
    );
}

#[test]
fn when_models_are_loaded_and_unloaded() {
    fn keeps(set: &Settings, model: &str) -> Option<Option<Duration>> {
        set.lifecycle.keep_alive_of.get(model).copied()
    }
    each(
        "[lifecycle]",
        &[
            ("enabled = false", |set| !set.lifecycle.enabled),
            ("max_waiting = 7", |set| set.lifecycle.max_waiting == 7),
            ("unload_timeout_s = 5", |set| set.lifecycle.unload_timeout == seconds(5.0)),
            ("memory_factor = 2", |set| set.lifecycle.memory_factor == 2.0),
            ("shortest_pause_s = 5", |set| set.lifecycle.backoff.shortest() == seconds(5.0)),
            ("longest_pause_s = 50", |set| set.lifecycle.backoff.longest() == seconds(50.0)),
            ("max_failed = 2", |set| set.lifecycle.max_failed == 2),
            ("load_timeout_s = 5", |set| set.lifecycle.load_timeout == seconds(5.0)),
            ("keep_alive_s = 60", |set| set.lifecycle.keep_alive == Some(seconds(60.0))),
            ("keep_alive_s_of = { m = 5 }", |set| keeps(set, "m") == Some(Some(seconds(5.0)))),
            ("keep_alive_s_of = { m = 0 }", |set| keeps(set, "m") == Some(None)),
            ("unload_all = true", |set| set.lifecycle.idle_unload == IdleUnload::All),
            ("pinned = [\"m\"]", |set| set.lifecycle.pinned.iter().any(|model| model.as_str() == "m")),
            ("max_loaded = 2", |set| set.lifecycle.max_loaded.is_some_and(|most| most.get() == 2)),
        ],
    );
}

#[test]
fn names_of_models() {
    fn targets(set: &Settings, name: &str) -> Vec<String> {
        set.routes.targets(name).map(ToString::to_string).collect()
    }
    each("[models.aliases]", &[("gpt = 'llama'", |set| targets(set, "gpt") == ["llama"])]);
    each("[models.classes]", &[("fast = ['a', 'b']", |set| targets(set, "class:fast") == ["a", "b"])]);
    each("[models.fallbacks]", &[("big = ['small']", |set| targets(set, "big") == ["big", "small"])]);
    let circle = resolve(&[], &[TOKEN], Some("[models.aliases]\na = 'b'\nb = 'a'")).err().unwrap();
    assert!(circle.contains("circle"), "{circle}");
}

#[test]
fn where_requests_are_logged() {
    fn log(set: &Settings) -> RequestLogSetting {
        set.request_log.clone().unwrap_or_else(|| RequestLogSetting {
            database: "none".into(),
            max_age: Some(DAY * 30),
            max_bytes: 1 << 30,
            queue: 8192,
        })
    }
    const DAY: Duration = Duration::from_secs(24 * 3600);
    each(
        "[request_log]\ndatabase = 'a.db'",
        &[
            ("", |set| log(set).database == Path::new("a.db")),
            ("max_age_days = 7", |set| log(set).max_age == Some(DAY * 7)),
            ("max_age_days = 0", |set| log(set).max_age.is_none()),
            ("max_size_mib = 5", |set| log(set).max_bytes == 5 << 20),
            ("queue = 9", |set| log(set).queue == 9),
        ],
    );
    let variables = [TOKEN, ("DATABASE_PATH", "b.db")];
    for file in [None, Some("[request_log]\ndatabase = 'a.db'")] {
        let set = resolve(&[], &variables, file).unwrap();
        assert_eq!(log(&set).database, Path::new("b.db"));
    }
    assert_eq!(resolve(&[], &[TOKEN], Some("[request_log]")).unwrap().request_log, None);
}

#[test]
#[cfg(feature = "sqlite")]
fn the_request_log_has_the_library_s_defaults() {
    let set = resolve(&[], &[TOKEN, ("DATABASE_PATH", "b.db")], None).unwrap().request_log.unwrap();
    let library = (Some(SqliteLog::MAX_AGE), SqliteLog::MAX_BYTES, SqliteLog::QUEUE);
    assert_eq!((set.max_age, set.max_bytes, set.queue), library);
}

#[test]
fn clients_of_whom_more_is_said() {
    let file = "[[client]]\ntoken = 't1'\nname = 'batch'\ntenant = 'team'\nmax_priority = 'high'\n\
                [[client]]\ntoken = 't2'\nname = 'other'";
    let set = resolve(&[], &[], Some(file)).unwrap();
    let [batch, other] = [0, 1].map(|at| set.clients[at].identity().unwrap());
    assert_eq!(set.clients[0].token.0, "t1");
    assert_eq!((batch.name(), batch.max_priority()), (Some("batch"), Priority::High));
    assert_eq!(batch.tenant().map(|tenant| tenant.as_str()), Some("team"));
    assert_eq!(other.tenant().map(|tenant| tenant.as_str()), Some("other"));
    assert_eq!(other.max_priority(), Priority::Normal);
    assert!(!format!("{:?}", set.clients).contains("t1"));
    for (line, problem) in [("max_priority = 'urgent'", "urgent"), ("tenant = ''", "client.tenant")] {
        let file = format!("[[client]]\ntoken = 't'\nname = 'n'\n{line}");
        let error = resolve(&[], &[], Some(&file)).err().unwrap();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_its_key() {
    for (section, line) in [
        ("limits", "max_connections = 0"),
        ("queue", "look_s = 0"),
        ("retry", "max_failures = 0"),
        ("retry", "budget_ratio = -1"),
        ("retry", "budget_min_per_second = -1"),
        ("retry", "budget_window_s = 0"),
        ("breaker", "fault_rate = -0.1"),
        ("breaker", "probes = 0"),
        ("breaker", "close_after = 64"),
        ("breaker", "window_s = 0"),
        ("hold", "after = 0"),
        ("slow_start", "from = 1.5"),
        ("outliers", "min_peers = 1"),
        ("outliers", "deviations = -1"),
        ("outliers", "least_gap = 2"),
        ("outliers", "times_median = 0.5"),
        ("outliers", "most = 1.1"),
        ("hedge", "ratio = 2"),
        ("prompts", "block_bytes = 63"),
        ("request_log", "max_size_mib = 0"),
        ("request_log", "queue = 0"),
    ] {
        let error = resolve(&[], &[TOKEN], Some(&format!("[{section}]\n{line}"))).err();
        let error = error.unwrap_or_else(|| panic!("{section}.{line} is accepted"));
        let key = line.split(' ').next().unwrap();
        assert!(error.contains(&format!("{section}.{key}")), "{error}");
    }
    for (file, problem) in [
        ("[retry]\npause_s = 2", "longest"),
        ("[retry]\njitter = 2", "jitter"),
        ("[limits]\nidle_s = -1", "seconds"),
        ("[limits]\nidle_s = nan", "seconds"),
        ("sse_keepalive_s = 0.05", "sse_keepalive_s"),
    ] {
        let error = resolve(&[], &[TOKEN], Some(file)).err().unwrap();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn unknown_keys_are_errors_that_name_the_key() {
    for section in [
        "limits",
        "prompts",
        "retry",
        "breaker",
        "hold",
        "slow_start",
        "outliers",
        "hedge",
        "lifecycle",
        "models",
        "discovery",
        "request_log",
    ] {
        let error = resolve(&[], &[TOKEN], Some(&format!("[{section}]\nnonsense = 3"))).err().unwrap();
        assert!(error.contains("nonsense"), "{error}");
    }
    for (file, key) in [
        ("lisen = 'x'", "lisen"),
        ("[[runner]]\nurl = 'http://a'\nweight = 3", "weight"),
        ("[[client]]\ntoken = 'a'\nname = 'b'\ntier = 3", "tier"),
        ("strategy = 'guess'", "guess"),
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
fn how_runners_are_found() {
    let found = |file: &str| {
        let settings = resolve(&[], &[TOKEN], Some(file)).unwrap();
        (settings.runners.len(), format!("{:?}", settings.mode()))
    };
    assert_eq!(found(""), (0, "Static".to_owned()));
    assert_eq!(found("[[runner]]\nurl = 'http://a'"), (1, "Static".to_owned()));
    assert_eq!(
        found("[discovery]\nmode = 'dns'\nnames = ['dns://llm:8000']\n[[runner]]\nurl = 'http://a'"),
        (1, "Dns".to_owned())
    );
    let file = "[discovery]\nmode = 'file'\npath = '/nowhere'\ninterval_s = 5";
    assert_eq!(found(file), (0, "File".to_owned()));
    for (file, key, word) in [
        ("mode = 'guess'", "guess", "kubernetes"),
        ("mode = 'dns'", "discovery.names", "needs"),
        ("mode = 'dns'\nnames = ['llm:8000']", "discovery.names", "scheme"),
        ("mode = 'file'", "discovery.path", "needs"),
        ("mode = 'file'\npath = 'x'\nselector = 'a=b'", "discovery.selector", "kubernetes"),
        ("names = ['dns://llm:8000']", "discovery.names", "mode = \"dns\""),
        ("slots = 3", "discovery.slots", "[[runner]]"),
        ("kind = 'vllm'", "discovery.kind", "[[runner]]"),
        ("capacity_age_s = 0", "discovery.capacity_age_s", "[[runner]]"),
        ("mode = 'file'\npath = 'x'\nkind = 'tgi'", "tgi", "neutrino"),
        ("max_runners = 0", "discovery.max_runners", "from 1"),
        ("mode = 'kubernetes'", "discovery.selector", "discovery.service"),
        ("mode = 'kubernetes'\nselector = 'a=b'\nservice = 's'", "discovery.selector", "either"),
        ("mode = 'kubernetes'\nselector = 'a=b'\ninterval_s = 5", "discovery.interval_s", "remove"),
    ] {
        let error = resolve(&[], &[TOKEN], Some(&format!("[discovery]\n{file}"))).err().unwrap();
        assert!(error.contains(key) && error.contains(word), "{error}");
    }
    let error = resolve(&[], &[TOKEN], Some("[[runner]]\nurl = 'https://a'")).err().unwrap();
    assert!(error.starts_with("runner: ") && error.contains("TLS"), "{error}");
}

#[test]
fn kubernetes_has_to_be_built_in() {
    let file = "[discovery]\nmode = 'kubernetes'\nselector = 'app=llm'\nport = 'http'";
    let set = resolve(&[], &[TOKEN], Some(file));
    if cfg!(feature = "kubernetes") {
        assert!(set.unwrap().found().is_ok());
    } else {
        let error = set.err().unwrap();
        assert!(error.contains("discovery.mode") && error.contains("--features kubernetes"), "{error}");
    }
}

#[test]
fn the_settings_of_the_kubernetes_example_are_settings() {
    let manifest = include_str!("../kubernetes/config.yaml");
    let text = manifest.split("gateway.toml: |\n").nth(1).unwrap();
    let file: String = text.lines().map(|line| line.trim_start().to_owned() + "\n").collect();
    let set = resolve(&[], &[TOKEN], Some(&file));
    assert_eq!(set.is_ok(), cfg!(feature = "kubernetes"), "{:?}", set.err());
}

#[test]
fn workers_are_counted_from_one() {
    assert_eq!(Flags::parse_from(["standalone", "--workers", "1"]).workers, Some(1));
    assert!(Flags::try_parse_from(["standalone", "--workers", "0"]).is_err());
}

#[test]
fn the_example_file_shows_every_key_and_the_defaults() {
    let text = include_str!("../standalone/gateway.toml");
    let settings = resolve(&[], &[], Some(text)).unwrap();
    assert_eq!((settings.runners.len(), settings.clients.len()), (1, 1));
    let usual = resolve(&[], &[TOKEN], None).unwrap();
    assert_eq!(settings.listen, usual.listen);
    assert_eq!(settings.strategy, usual.strategy);
    assert_eq!(settings.max_connections, usual.max_connections);
    assert_eq!(settings.deadlines, usual.deadlines);
    assert_eq!(settings.prompts, usual.prompts);
    assert_eq!((settings.queue, settings.retry), (usual.queue, usual.retry));
    assert_eq!(settings.health, usual.health);
    assert_eq!(settings.lifecycle.load_timeout, usual.lifecycle.load_timeout);
    assert_eq!(settings.lifecycle.keep_alive, usual.lifecycle.keep_alive);
    assert_eq!((settings.hedge, settings.sse_keepalive), (usual.hedge, usual.sse_keepalive));
    let log = settings.request_log.unwrap();
    let other = resolve(&[], &[TOKEN, ("DATABASE_PATH", "requests.db")], None).unwrap().request_log;
    assert_eq!(Some(log), other);
    // An unknown key makes the error list all that there are.
    let file: toml::Table = text.parse().unwrap();
    for (section, written) in [("", &file)].into_iter().chain(sections(&file)) {
        let header = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
        let error = resolve(&[], &[TOKEN], Some(&format!("{header}nonsense = 3"))).err().unwrap();
        let expected = error.split("expected").nth(1).unwrap_or_default();
        // A table of names has no keys of its own.
        if section == "strategy_of" {
            continue;
        }
        let keys: Vec<_> = expected.split('`').skip(1).step_by(2).collect();
        assert!(!keys.is_empty(), "{error}");
        for key in keys {
            assert!(written.contains_key(key), "{section}.{key} is not in gateway.toml");
        }
    }
}

fn sections(file: &toml::Table) -> impl Iterator<Item = (&str, &toml::Table)> {
    file.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_table()?)))
}

#[test]
fn generic_routes_are_what_the_library_takes() {
    let add = |file: &str| {
        let settings = resolve(&[], &[TOKEN], Some(file))?;
        let added = settings.generic.add_to(gateway_http::Gateway::builder());
        added.map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(add(""), Ok(()));
    assert_eq!(add("[[generic]]\nprefix = '/apps'\nkept_body_bytes = 0"), Ok(()));
    assert!(add("[[generic]]\nopenapi = '/nowhere/tasks.yaml'").unwrap_err().contains("generic.openapi"));
    assert!(add("[needs]\nmodels = { '' = {} }").unwrap_err().contains("needs.models."));
}
