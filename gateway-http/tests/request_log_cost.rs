//! What a record costs on the way of a request, in allocations: nothing if there is no sink.
#![cfg(feature = "sqlite")]

mod common;

use std::sync::Arc;

use common::*;
use gateway_http::{Gateway, GatewayBuilder, RequestRecord, RequestSink, SqliteLog};

const ANSWER: &str = r#"{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15}}"#;

/// Per request, averaged over many: the queue's growth is shared by all of them.
fn allocations(builder: GatewayBuilder) -> f64 {
    const REQUESTS: u32 = 1_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let gateway: Gateway = builder.build().unwrap();
    join(&gateway, "r1", &["m"], &Mock::new(|_| async { Ok(json(200, ANSWER)) }));
    let ask = || {
        let answer = runtime.block_on(whole(&gateway, chat(r#"{"model":"m"}"#)));
        assert_eq!(answer.status, 200);
    };
    (0..100).for_each(|_| ask());
    let counted = allocation_counter::measure(|| (0..REQUESTS).for_each(|_| ask()));
    counted.count_total as f64 / f64::from(REQUESTS)
}

struct Nothing;

impl RequestSink for Nothing {
    fn record(&self, _: &RequestRecord<'_>) {}
}

#[test]
fn a_record_costs_one_allocation() {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(SqliteLog::builder(folder.path().join("requests.db")).open().unwrap());
    let without = allocations(builder());
    let with_sink = allocations(builder().request_sink(Arc::new(Nothing))) - without;
    let with_file = allocations(builder().request_sink(log.clone())) - without;
    println!(
        "{without:.2} allocations per request, {with_sink:+.2} with a sink, {with_file:+.2} with a file"
    );
    // What the sink is told lies in a box of its own; the mock's list of requests grows now and then.
    assert!((0.5..1.1).contains(&with_sink), "{with_sink}");
    assert!((0.5..1.2).contains(&with_file), "{with_file}");
    assert_eq!(log.dropped(), 0);
}
