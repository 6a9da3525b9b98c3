//! What files say of a runner reaches it, and errors name what is wrong and no secret.

use gateway_transport_http::{FixedList, HttpRunner, RunnerEntry};
use serde_json::{Value, json};

fn entry(json: Value) -> Result<RunnerEntry, String> {
    serde_json::from_value(json).map_err(|error| error.to_string())
}

#[test]
fn every_key_reaches_the_runner() {
    let all = json!({
        "url": "http://h:1", "id": "gpu-1", "models": ["m"], "slots": 8, "labels": {"zone": "eu"},
        "machine": "gpu", "api_key": "k",
    });
    let expected =
        HttpRunner::new("http://h:1").unwrap().id("gpu-1").models(["m"]).slots(8).label("zone", "eu");
    let expected = expected.machine("gpu").api_key("k");
    assert_eq!(entry(all.clone()).unwrap().runner().unwrap(), expected);
    for key in ["id", "models", "slots", "labels", "machine", "api_key"] {
        let mut less = all.clone();
        less.as_object_mut().unwrap().remove(key);
        assert_ne!(entry(less).unwrap().runner().unwrap(), expected, "{key} has no effect");
    }
    assert_eq!(RunnerEntry::at("http://h:1").runner().unwrap(), HttpRunner::new("http://h:1").unwrap());
    assert!(entry(json!({"url": "http://h:1", "weight": 1})).unwrap_err().contains("weight"));
}

#[test]
fn errors_name_what_is_wrong_and_no_secret() {
    for (bad, word) in [
        (json!({"url": "https://u:secret@h"}), "TLS"),
        (json!({"url": "http://h:1", "id": ""}), "http://h:1"),
        (json!({"url": "http://h:1", "models": [""]}), "http://h:1"),
        (json!({"url": "http://h:1", "api_key": "secret\n"}), "API key"),
    ] {
        let entry = entry(bad).unwrap();
        let error = entry.runner().unwrap_err().to_string();
        assert!(error.contains(word) && !error.contains("secret"), "{error}");
        assert!(!format!("{entry:?}").contains("secret"));
    }
}

#[test]
fn addresses_with_commas_in_between() {
    let list = FixedList::csv(" http://a:1,http://b:2/ ,, nonsense,");
    assert_eq!(list.len(), 3);
    assert!(!format!("{list:?}").contains("nonsense"));
    assert!(FixedList::csv(" , ").is_empty());
}
