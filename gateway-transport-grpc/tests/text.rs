//! Whatever text a worker sends, in whatever pieces: the same text comes out, as valid JSON. 256 cases.

mod support;

use std::sync::{Arc, Mutex};

use gateway_core::{LinkRequest, RunnerLink};
use gateway_transport_grpc::GrpcLink;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use support::{DIALECTS, Worker, chat, content, events, link, lock, post, text};

async fn exchange(link: &GrpcLink, request: LinkRequest) -> String {
    text(link.send(request).await.expect("an answer")).await.expect("a whole answer")
}

#[test]
fn text_comes_out_as_it_went_in() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let chunks: Arc<Mutex<Vec<String>>> = Arc::default();
    let says = chunks.clone();
    let worker = Worker::new(move |_, reply| {
        let chunks = lock(&says).clone();
        async move {
            for chunk in chunks {
                reply.text(chunk).await;
            }
            reply.end().await;
        }
    });
    let served = DIALECTS.map(|dialect| runtime.block_on(worker.serve(dialect)));
    let links = served.each_ref().map(link);
    let strategy = (prop::collection::vec("(?s).{0,12}", 0..12), "(?s).{1,12}", any::<bool>());
    let config = Config { cases: 256, failure_persistence: None, ..Config::default() };
    let done = TestRunner::new(config).run(&strategy, |(said, model, packaged)| {
        let all = said.concat();
        lock(&chunks).clone_from(&said);
        let link = &links[usize::from(packaged)];
        let ask = |streams: bool| {
            json!({"model": model, "stream": streams, "prompt": "p", "messages": [{"role": "user", "content": "x"}]})
                .to_string()
        };
        runtime.block_on(async {
            let streamed = events(&exchange(link, chat(ask(true))).await);
            assert_eq!(content(&streamed), all);
            assert!(streamed.iter().all(|event| event["model"] == model.as_str()));
            assert_eq!(streamed[0]["choices"][0]["delta"]["role"], "assistant");
            let whole: Value = serde_json::from_str(&exchange(link, chat(ask(false))).await).expect("JSON");
            assert_eq!(whole["choices"][0]["message"]["content"], all);
            let streamed = events(&exchange(link, post("/v1/completions", ask(true))).await);
            let said: String = streamed.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
            assert_eq!(said, all);
            let whole: Value =
                serde_json::from_str(&exchange(link, post("/v1/completions", ask(false))).await).expect("JSON");
            assert_eq!((&whole["choices"][0]["text"], &whole["object"]), (&json!(all), &json!("text_completion")));
        });
        Ok(())
    });
    done.unwrap();
}
