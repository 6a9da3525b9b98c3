//! Strategies and pipelines, named in configuration.

mod fleet;

use std::collections::BTreeSet;

use fleet::{TestFleet, needs, spec, status};
use gateway_core::pipeline::{Picker, PipelineError, PipelineSpec};
use gateway_core::{Balancer, Strategy};

#[test]
fn every_name_builds_the_strategy_of_that_name() {
    let fleet = TestFleet::new();
    fleet.join(spec("r"), status());
    for strategy in Strategy::ALL {
        let name = strategy.as_str();
        assert_eq!(name.parse(), Ok(*strategy));
        assert_eq!(serde_json::from_str::<Strategy>(&format!("{name:?}")).unwrap(), *strategy);
        let balancer = strategy.build();
        assert_eq!(balancer.name(), name);
        assert!(fleet.try_pick(&*balancer, &needs()).is_some(), "{name}");
    }
    let names: BTreeSet<_> = Strategy::ALL.iter().map(|strategy| strategy.as_str()).collect();
    assert_eq!(names.len(), Strategy::ALL.len());
    assert_eq!(Strategy::default().as_str(), "least-loaded");
}

#[test]
fn a_name_that_is_none_is_answered_with_those_that_are() {
    let error = "fastest".parse::<Strategy>().unwrap_err();
    assert_eq!(error.name(), "fastest");
    let from_config = serde_json::from_str::<Strategy>(r#""fastest""#).unwrap_err().to_string();
    for text in [error.to_string(), from_config] {
        assert!(text.contains("\"fastest\""), "{text}");
        assert!(Strategy::ALL.iter().all(|strategy| text.contains(strategy.as_str())), "{text}");
    }
    assert!("Least-Loaded".parse::<Strategy>().is_err(), "names are written in one way");
}

fn pipeline(json: &str) -> Result<PipelineSpec, serde_json::Error> {
    serde_json::from_str(json)
}

#[test]
fn a_pipeline_is_written_down_and_built() {
    let spec = pipeline(
        r#"{
            "filters": [{"name": "max-load", "share": 0.9}, {"name": "deadline"}],
            "preferences": [{"name": "label", "label": "zone=eu"}, {"name": "warm"}],
            "scorers": [
                {"name": "load", "weight": 2}, {"name": "queue"}, {"name": "tokens"}, {"name": "latency"},
                {"name": "finish"}, {"name": "session", "weight": 0.5}, {"name": "cost"}, {"name": "warm"},
                {"name": "label", "label": "rack=a=b"}
            ],
            "picker": "weighted"
        }"#,
    )
    .unwrap();
    let built = spec.build().unwrap();
    assert_eq!(built.name(), "pipeline");
    let shown = format!("{built:?}");
    assert!(
        shown.contains(r#"filters: ["max-load", "deadline"], preferences: ["label", "warm"]"#),
        "{shown}"
    );
    // The weights of all are 9.5 together.
    for part in [r#"("load", 0.2105"#, r#"("queue", 0.105"#, r#"("session", 0.0526"#] {
        assert!(shown.contains(part), "{shown}");
    }
    let runners = TestFleet::new();
    runners.join(fleet::spec("r").label("rack", "a=b"), status());
    let scores = runners.scores(&built, &needs(), "r");
    let names: Vec<_> = scores.iter().map(|score| score.name).collect();
    assert_eq!(
        names,
        [
            "max-load", "deadline", "label", "warm", "load", "queue", "tokens", "latency", "finish",
            "session", "cost", "warm", "label", "total"
        ]
    );
    assert_eq!(scores[12].value, 1.0, "all behind the first = is the value");
    assert!(runners.try_pick(&built, &needs()).is_some());
}

#[test]
fn pickers_by_name() {
    let picker = |json: &str| {
        pipeline(&format!(r#"{{"scorers": [{{"name": "load"}}], "picker": {json}}}"#)).unwrap().picker
    };
    assert_eq!(picker(r#""best""#), Picker::Best);
    assert_eq!(picker(r#""weighted""#), Picker::Weighted);
    assert_eq!(picker(r#"{"best-of": 3}"#), Picker::BestOf(3));
    assert_eq!(pipeline(r#"{"scorers": [{"name": "load"}]}"#).unwrap().picker, Picker::Best);
}

#[test]
fn what_makes_no_sense_is_an_error_that_says_so() {
    for (json, says) in [
        (r#"{}"#, "scorers"),
        (r#"{"scorers": [], "colour": 1}"#, "colour"),
        (r#"{"scorers": [{"name": "charm"}]}"#, "`load`"),
        (r#"{"scorers": [{"name": "load", "wait": 1}]}"#, "wait"),
        (r#"{"scorers": [], "filters": [{"name": "charm"}]}"#, "`max-load`"),
        (r#"{"scorers": [], "picker": "worst"}"#, "`best-of`"),
    ] {
        let text = pipeline(json).unwrap_err().to_string();
        assert!(text.contains(says), "{json}: {text}");
    }
    for (json, says) in [
        (r#"{"scorers": []}"#, "at least one scorer"),
        (r#"{"scorers": [{"name": "load", "weight": -1}]}"#, "0 or more"),
        (r#"{"scorers": [{"name": "label"}]}"#, "key=value"),
        (r#"{"scorers": [{"name": "label", "label": "eu"}]}"#, "key=value"),
        (r#"{"scorers": [{"name": "load", "label": "zone=eu"}]}"#, "no use for a `label`"),
        (
            r#"{"scorers": [{"name": "load"}], "filters": [{"name": "warm", "share": 1}]}"#,
            "no use for a `share`",
        ),
        (
            r#"{"scorers": [{"name": "load"}], "filters": [{"name": "warm", "label": "a=b"}]}"#,
            "no use for a `label`",
        ),
        (
            r#"{"scorers": [{"name": "load"}], "preferences": [{"name": "max-load", "share": 7}]}"#,
            "from 0 to 1",
        ),
        (r#"{"scorers": [{"name": "load"}], "preferences": [{"name": "max-load"}]}"#, "from 0 to 1"),
        (r#"{"scorers": [{"name": "load"}], "picker": {"best-of": 1}}"#, "2 to 16"),
    ] {
        let error: PipelineError = pipeline(json).unwrap().build().unwrap_err();
        assert!(error.to_string().contains(says), "{json}: {error}");
    }
}
