//! A gateway drains, then cuts, and leaves nothing behind.

mod common;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::*;
use gateway_core::{
    CancellationToken, Membership, Registry, RunnerId, RunnerSource, RunnerSpec, RunnerStatus,
};
use http_body_util::BodyExt;
use tokio::sync::oneshot;

/// Joins one runner as long as it runs. `ended` is cancelled when it has ended.
struct Source {
    link: Arc<Mock>,
    started: Option<oneshot::Sender<()>>,
    ended: CancellationToken,
    stubborn: bool,
}

impl Source {
    fn new(link: &Arc<Mock>) -> (Self, oneshot::Receiver<()>, CancellationToken) {
        let (started, wait) = oneshot::channel();
        let ended = CancellationToken::new();
        let source =
            Self { link: link.clone(), started: Some(started), ended: ended.clone(), stubborn: false };
        (source, wait, ended)
    }
}

#[async_trait]
impl RunnerSource for Source {
    async fn run(mut self: Box<Self>, registry: Arc<dyn Registry>, stop: CancellationToken) {
        let _ended = self.ended.clone().drop_guard();
        let spec = RunnerSpec::new(RunnerId::new("r1").unwrap());
        let _runner =
            Membership::join(registry, spec, RunnerStatus::serving([model("m")]), self.link.clone());
        let _ = self.started.take().unwrap().send(());
        stop.cancelled().await;
        if self.stubborn {
            std::future::pending::<()>().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_is_finished_and_nothing_new_is_taken() {
    let (link, sender) = Mock::stream("text/event-stream");
    let (source, started, ended) = Source::new(&link);
    let gateway = builder().runners(source).build().unwrap();
    started.await.unwrap();
    sender.try_send(Ok(Bytes::from_static(b"data: 1\n\n"))).unwrap();
    let mut under_way = send(&gateway, chat(r#"{"model":"m"}"#)).await.into_body();
    next_chunk(&mut under_way).await.unwrap();

    let closing = gateway.clone();
    let shutdown = tokio::spawn(async move { closing.shutdown(Duration::from_secs(30)).await });
    tokio::task::yield_now().await;
    let refused = whole(&gateway, chat("no JSON: the body is not even read")).await;
    assert_eq!((refused.status, refused.header("connection")), (503, Some("close")));
    assert_eq!(refused.header("retry-after"), Some("5"));
    assert_eq!(refused.error().1.as_deref(), Some("shutting_down"));
    assert!(!shutdown.is_finished() && !ended.is_cancelled() && !link.closed.is_cancelled());

    sender.try_send(Ok(Bytes::from_static(b"data: [DONE]\n\n"))).unwrap();
    drop(sender);
    let rest = under_way.collect().await.unwrap().to_bytes();
    assert_eq!(rest, "data: [DONE]\n\n");
    let drained = shutdown.await.unwrap();
    assert!(drained.is_clean(), "{drained:?}");
    assert!(ended.is_cancelled() && link.closed.is_cancelled());
    assert!(gateway.dispatcher().registry().fleet().runners().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_in_time_is_cut() {
    // Its answer never begins, and ends only with its link.
    let link = Mock::new(|_| std::future::pending());
    let (source, started, ended) = Source::new(&link);
    let gateway = builder().runners(source).build().unwrap();
    started.await.unwrap();
    let client = gateway.clone();
    let waiting = tokio::spawn(async move { whole(&client, chat(r#"{"model":"m"}"#)).await });
    while gateway.dispatcher().in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    let before = tokio::time::Instant::now();
    let drained = gateway.shutdown(Duration::from_secs(30)).await;
    assert_eq!(before.elapsed(), Duration::from_secs(30));
    assert_eq!((drained.abandoned, drained.sources_left), (1, 0));
    assert!(!drained.is_clean() && ended.is_cancelled());
    assert_eq!(waiting.await.unwrap().status, 502);
    assert_eq!(gateway.dispatcher().in_flight(), 0);
    // Once more does no harm.
    assert!(gateway.shutdown(Duration::from_secs(30)).await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_does_not_end_is_not_waited_for_forever() {
    let (source, started, _ended) = Source::new(&Mock::ok());
    let gateway = builder().runners(Source { stubborn: true, ..source }).build().unwrap();
    started.await.unwrap();
    let before = tokio::time::Instant::now();
    let drained = gateway.shutdown(Duration::from_secs(30)).await;
    assert_eq!((drained.abandoned, drained.sources_left), (0, 1));
    assert_eq!(before.elapsed(), gateway_http::Drained::SOURCES_PATIENCE);
}

#[tokio::test]
async fn dropping_the_last_clone_stops_the_sources_but_not_a_request() {
    let (link, sender) = Mock::stream("text/event-stream");
    let (source, started, ended) = Source::new(&link);
    let gateway = builder().runners(source).build().unwrap();
    started.await.unwrap();
    sender.try_send(Ok(Bytes::from_static(b"data: 1\n\n"))).unwrap();
    let mut under_way = send(&gateway, chat(r#"{"model":"m"}"#)).await.into_body();
    let clone = gateway.clone();
    drop(gateway);
    tokio::task::yield_now().await;
    assert!(!ended.is_cancelled());
    drop(clone);
    ended.cancelled().await;
    assert_eq!(next_chunk(&mut under_way).await.unwrap(), "data: 1\n\n");
    sender.try_send(Ok(Bytes::from_static(b"data: 2\n\n"))).unwrap();
    assert_eq!(next_chunk(&mut under_way).await.unwrap(), "data: 2\n\n");
}
