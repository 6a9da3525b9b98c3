//! Every address behind a name is a runner, and follows the name.

mod sourcing;
mod support;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use gateway_core::{FleetEvent, Registry};
use gateway_transport_http::{DnsNames, HttpRunners, Resolve};
use sourcing::{Running, next, run};
use support::*;
use tokio::time::Instant;

/// `None` never answers.
type Answer = Option<Vec<&'static str>>;

/// A name server of the test's own. A name that is not in it fails.
#[derive(Clone, Default)]
struct Zone {
    answers: Arc<Mutex<HashMap<String, Answer>>>,
    asked: Arc<Mutex<Vec<(String, Instant)>>>,
}

impl Zone {
    fn of<const N: usize>(names: [(&str, Answer); N]) -> Self {
        let zone = Self::default();
        names.into_iter().for_each(|(name, answer)| zone.set(name, answer));
        zone
    }

    fn set(&self, name: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(name.to_owned(), answer);
    }

    fn fail(&self, name: &str) {
        self.answers.lock().unwrap().remove(name);
    }

    fn asked(&self) -> Vec<Instant> {
        self.asked.lock().unwrap().iter().map(|(_, at)| *at).collect()
    }

    /// Waits until every name has been looked up once more.
    async fn looked_up(&self, names: usize) {
        let until = self.asked().len() + names;
        while self.asked().len() < until {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(DnsNames::LIMIT).await;
    }
}

#[async_trait]
impl Resolve for Zone {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.asked.lock().unwrap().push((host.to_owned(), Instant::now()));
        let answer = self.answers.lock().unwrap().get(host).cloned();
        match answer {
            None => Err(io::Error::other("no such name")),
            Some(None) => std::future::pending().await,
            Some(Some(ips)) => Ok(ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect()),
        }
    }
}

fn names<const N: usize>(names: [&str; N], zone: &Zone) -> HttpRunners {
    let names = DnsNames::new(names).unwrap().resolver(zone.clone());
    // With their models given, they join before anybody has answered.
    HttpRunners::from_inventory(names.each(|runner| runner.label("from", "dns"))).models(["m"])
}

fn ids(running: &Running) -> Vec<String> {
    running.registry.fleet().runners().iter().map(|runner| runner.id().to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn every_address_is_a_runner_and_the_name_is_followed() {
    let zone = Zone::of([("llm.test", Some(vec!["127.0.0.2", "127.0.0.1"]))]);
    let running = run(names(["dns://llm.test:9"], &zone));
    running.until("joining", |runners| runners.len() == 2).await;
    assert_eq!(ids(&running), ["llm.test@127.0.0.1:9", "llm.test@127.0.0.2:9"]);
    let fleet = running.registry.fleet();
    let [first, second] = &fleet.runners()[..] else { panic!() };
    assert_eq!(first.spec().labels["from"], "dns");
    assert_eq!(first.link().describe().address.as_deref(), Some("http://127.0.0.1:9"));
    let under_way = second.try_reserve().unwrap();

    // Another order is no change; another address is one.
    zone.set("llm.test", Some(vec!["127.0.0.1", "127.0.0.2"]));
    zone.looked_up(1).await;
    zone.set("llm.test", Some(vec!["127.0.0.3", "127.0.0.1"]));
    zone.looked_up(1).await;
    assert_eq!(ids(&running), ["llm.test@127.0.0.1:9", "llm.test@127.0.0.2:9", "llm.test@127.0.0.3:9"]);
    assert_eq!(running.registry.fleet().runners()[0].key(), first.key(), "one that stays is not disturbed");
    assert!(second.is_draining());
    let mut events = running.registry.events();
    drop(under_way);
    assert!(matches!(next(&mut events).await, FleetEvent::Left(key, _) if key == *second.key()));
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_fails_or_hangs_keeps_what_was_known() {
    let zone = Zone::of([("a.test", Some(vec!["127.0.0.1"])), ("b.test", None)]);
    let running = run(names(["http://a.test:9", "dns://b.test:9", "dns://nobody.test:9"], &zone));
    // One that hangs holds up the others for as long as a look-up may take, and no longer.
    let started = Instant::now();
    running.until("joining", |runners| !runners.is_empty()).await;
    assert!(started.elapsed() <= DnsNames::LIMIT + Duration::from_secs(1));
    zone.fail("a.test");
    zone.set("b.test", Some(vec!["127.0.0.2"]));
    zone.looked_up(3).await;
    assert_eq!(ids(&running), ["a.test@127.0.0.1:9", "b.test@127.0.0.2:9"]);
    assert!(running.registry.fleet().runners().iter().all(|runner| !runner.is_draining()));
    // No address is an answer.
    zone.set("b.test", Some(vec![]));
    zone.looked_up(3).await;
    assert_eq!(ids(&running), ["a.test@127.0.0.1:9"]);
}

#[tokio::test(start_paused = true)]
async fn names_are_looked_up_at_an_interval_that_varies() {
    let zone = Zone::of([("a.test", Some(vec!["127.0.0.1"]))]);
    let names = DnsNames::new(["dns://a.test"]).unwrap().interval(Duration::from_secs(100));
    let _running = run(HttpRunners::from_inventory(names.resolver(zone.clone())));
    tokio::time::sleep(Duration::from_secs(2000)).await;
    let asked = zone.asked();
    let pauses: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.len() >= 17, "{pauses:?}");
    assert!(pauses.iter().all(|pause| (90..=110).contains(&pause.as_secs())), "{pauses:?}");
    assert!(pauses.iter().max() > pauses.iter().min(), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_machine_with_both_kinds_of_addresses_is_one_runner() {
    let zone = Zone::of([
        ("both.test", Some(vec!["::1", "127.0.0.1", "127.0.0.1"])),
        ("six.test", Some(vec!["::1"])),
    ]);
    let running = run(names(["dns://both.test:9", "dns://six.test:9"], &zone));
    running.until("joining", |runners| runners.len() == 2).await;
    assert_eq!(ids(&running), ["both.test@127.0.0.1:9", "six.test@[::1]:9"]);
}

#[tokio::test]
async fn requests_name_the_host_and_the_system_looks_it_up() {
    let models = r#"{"object":"list","data":[{"id":"m","object":"model"}]}"#;
    let server = Scripted::start([("/up/v1/models", 200, models)]).await;
    let port = server.url.rsplit(':').next().unwrap();
    let names = DnsNames::new([format!("dns://localhost:{port}/up")]).unwrap();
    let running = run(HttpRunners::from_inventory(names));
    running.until("joining", |runners| !runners.is_empty()).await;
    assert_eq!(ids(&running), [format!("localhost@127.0.0.1:{port}")]);
    let host = format!("localhost:{port}");
    assert_eq!(server.asked("/up/v1/models")[0].header("host"), Some(&*host));
    running.stopped().await;
}

#[test]
fn what_is_no_name_is_refused() {
    for (name, word) in [("dns://", "URL"), ("llm:8000", "scheme"), ("dns://h:99999", "port")] {
        let error = DnsNames::new(["dns://fine:1", name]).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}
