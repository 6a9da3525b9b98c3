//! Which dialect a worker speaks is found out, and told if it cannot be.

mod support;

use gateway_core::RunnerLink;
use gateway_transport_grpc::{Dialect, GrpcLink};
use support::{DIALECTS, Worker, build, content, events, link, sent, streamed, text};
use tonic::Status;

#[tokio::test]
async fn whatever_it_says_of_its_health_it_has_the_method() {
    for dialect in DIALECTS {
        let worker = Worker::says(["hi"]);
        worker.fail_health(Status::internal("no idea"));
        let served = worker.serve(dialect).await;
        let link = link(&served);
        assert_eq!(content(&events(&text(sent(&link, streamed()).await).await.unwrap())), "hi");
        assert_eq!(link.dialect(), Some(dialect));
    }
}

#[tokio::test]
async fn who_speaks_neither_is_told_of() {
    let worker = Worker::says(["hi"]);
    worker.fail_health(Status::unimplemented("what is that?"));
    let served = worker.serve(Dialect::Packaged).await;
    let link = link(&served);
    let error = link.send(streamed()).await.unwrap_err();
    assert!(error.is_not_sent() && error.to_string().contains("cy.llm.AiInference"), "{error}");
    assert_eq!(link.dialect(), None);
}

#[tokio::test]
async fn one_that_is_known_is_not_asked_for() {
    let worker = Worker::says(["hi"]);
    worker.fail_health(Status::unimplemented("what is that?"));
    let served = worker.serve(Dialect::Plain).await;
    let link = build(GrpcLink::builder(served.address()).dialect(Dialect::Plain));
    assert_eq!(content(&events(&text(sent(&link, streamed()).await).await.unwrap())), "hi");
    // The wrong one is the worker's own "unimplemented".
    let wrong = build(GrpcLink::builder(served.address()).dialect(Dialect::Packaged));
    assert_eq!(sent(&wrong, streamed()).await.status(), 501);
}

#[tokio::test]
async fn a_door_that_is_shut_says_nothing_of_the_dialect() {
    let worker = Worker::says(["hi"]);
    worker.fail_health(Status::unauthenticated("who are you?"));
    let served = worker.serve(Dialect::Packaged).await;
    let error = link(&served).send(streamed()).await.unwrap_err();
    assert!(error.is_not_sent() && error.to_string().contains("token"), "{error}");
}

#[tokio::test]
async fn what_is_no_grpc_at_all_is_told_of() {
    let engine = gateway_testkit::MockEngine::new(|_| gateway_testkit::Script::text("hello"));
    let server = engine.serve_http().await.expect("a free port");
    let address = server.url().strip_prefix("http://").unwrap().to_owned();
    let error = build(GrpcLink::builder(&address)).send(streamed()).await.unwrap_err();
    assert!(error.is_not_sent(), "{error}");
}
