//! Runners follow a file that changes; one that is broken changes nothing.
#![cfg(feature = "file")]

mod sourcing;
mod support;

use std::path::PathBuf;
use std::time::Duration;

use gateway_core::{Inventory, InventoryChange, Registry};
use gateway_transport_http::{HttpRunners, WatchedFile};
use sourcing::{Running, run};

/// A file of the test's own, replaced as one should: in one step.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    fn write(&self, text: &str) {
        let other = self.0.with_extension("new");
        std::fs::write(&other, text).unwrap();
        std::fs::rename(other, &self.0).unwrap();
    }

    fn watched(&self) -> WatchedFile {
        WatchedFile::new(&self.0).interval(Duration::from_millis(10))
    }

    fn run(&self) -> Running {
        run(HttpRunners::from_inventory(self.watched()))
    }
}

/// Joins before anybody has answered.
fn entry(id: &str, more: &str) -> String {
    format!("[[runner]]\nurl = 'http://127.0.0.1:1'\nid = '{id}'\nmodels = ['m']\n{more}\n")
}

fn serving(runners: &[std::sync::Arc<gateway_core::Runner>]) -> Vec<&str> {
    runners.iter().filter(|runner| !runner.is_draining()).map(|runner| runner.id().as_str()).collect()
}

#[tokio::test]
async fn it_is_read_at_the_start_and_whenever_it_changes() {
    let file = File::new("changes.toml");
    file.write(&(entry("a", "slots = 3\nmachine = 'gpu'\nlabels = { zone = 'eu' }") + &entry("b", "")));
    let running = file.run();
    running.until("joining", |runners| serving(runners) == ["a", "b"]).await;
    let a = running.runner();
    assert_eq!((a.spec().slots.unwrap().get(), a.spec().labels["zone"].as_str()), (3, "eu"));
    assert_eq!(a.spec().machine.description.as_deref(), Some("gpu"));

    file.write(&(entry("c", "") + &entry("a", "slots = 3\nmachine = 'gpu'\nlabels = { zone = 'eu' }")));
    running.until("the change", |runners| serving(runners) == ["a", "c"]).await;
    assert_eq!(running.runner().key(), a.key(), "one that is as before is not disturbed");
    file.write("");
    running.until("the end of the list", |runners| runners.is_empty()).await;
    running.stopped().await;
}

#[tokio::test]
async fn a_broken_file_keeps_what_was_known_and_says_where() {
    let file = File::new("broken.toml");
    file.write(&entry("a", ""));
    let running = file.run();
    running.until("joining", |runners| serving(runners) == ["a"]).await;
    let a = running.runner();
    for (text, line, word) in [
        ("[[runner]]\nurl = 'http://h:1'\napi_key = 'secret' oops\n", "line 3", ""),
        ("[[runner]]\nurl = 'http://h:1'\n\nwight = 3\n", "line 4", "wight"),
        ("[[runner]]\nid = 'x'\n", "line 1", "url"),
        ("[[runners]]\nurl = 'http://h:1'\n", "line 1", "runners"),
    ] {
        file.write(text);
        let error = file.watched().read().unwrap_err().to_string();
        assert!(error.contains(line) && error.contains(word) && error.contains("broken.toml"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    // An entry that cannot be is left out; it does not break the file.
    file.write(&(entry("a", "") + &entry("b", "") + "[[runner]]\nurl = 'https://tls'\n" + &entry("", "")));
    running.until("mending", |runners| serving(runners) == ["a", "b"]).await;
    assert_eq!(running.runner().key(), a.key());
    assert_eq!(file.watched().read().unwrap().len(), 2);
    // Nor does it matter that it has gone.
    std::fs::remove_file(&file.0).unwrap();
    assert!(file.watched().read().unwrap_err().to_string().contains("broken.toml"));
    file.write(&entry("c", ""));
    running.until("coming back", |runners| serving(runners) == ["c"]).await;
    running.stopped().await;
}

#[tokio::test]
async fn a_file_that_is_not_there_may_come() {
    let file = File::new("later.toml");
    let running = file.run();
    assert!(running.registry.fleet().runners().is_empty());
    file.write(&entry("a", ""));
    running.until("joining", |runners| serving(runners) == ["a"]).await;
    running.stopped().await;
}

#[tokio::test]
async fn it_may_be_json() {
    let file = File::new("list.json");
    file.write(r#"{"runner": [{"url": "http://127.0.0.1:1", "id": "a", "models": ["m"], "slots": 2}]}"#);
    let running = file.run();
    running.until("joining", |runners| serving(runners) == ["a"]).await;
    running.stopped().await;
    file.write("{\"runner\": [\n{\"url\": 3}]}");
    let error = file.watched().read().unwrap_err().to_string();
    assert!(error.contains("line 2:"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_half_written_is_not_taken_for_a_short_one() {
    let file = File::new("half.toml");
    let whole = entry("a", "") + &entry("b", "");
    file.write(&whole);
    let mut watched = file.watched();
    let count = |change: Option<InventoryChange<_>>| match change {
        Some(InventoryChange::All(runners)) => runners.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(count(watched.next().await), 2);
    file.write(&entry("a", ""));
    {
        let mut next = std::pin::pin!(watched.next());
        // Long enough to be seen, too short to stand.
        let seen = Duration::from_millis(100);
        assert!(tokio::time::timeout(seen, next.as_mut()).await.is_err());
        file.write(&(whole + &entry("c", "")));
        assert_eq!(count(next.await), 3);
    }
    file.write(&entry("a", ""));
    assert_eq!(count(watched.next().await), 1, "what stands counts");
}
