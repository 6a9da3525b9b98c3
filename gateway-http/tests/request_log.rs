//! One event for each request, when it is over, with nothing in it that is secret.

mod common;

use std::fmt::Write;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::*;
use gateway_core::LinkError;
use http_body_util::BodyExt;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Keeps the events of `gateway::request` as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// The one event there is.
    fn one(&self) -> String {
        let mut events = self.take();
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }
}

struct Text(String);

impl tracing::field::Visit for Text {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        write!(self.0, " {}={value}", field.name()).unwrap();
    }
}

impl<S: tracing::Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut text = Text(event.metadata().level().to_string());
        event.record(&mut text);
        if event.metadata().target() == "gateway::request" {
            self.0.lock().unwrap().push(text.0);
        }
    }
}

fn listen() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(log.clone()));
    (log, guard)
}

#[tokio::test]
async fn a_request_is_told_when_its_answer_has_been_read() {
    let (log, _guard) = listen();
    let gateway = with_runner(&Mock::ok());
    let mut request = chat(r#"{"model":"m","prompt":"my secret prompt"}"#);
    request.headers_mut().insert("x-request-id", "abc".parse().unwrap());
    *request.uri_mut() = "/v1/chat/completions?key=query-secret".parse().unwrap();
    let response = send(&gateway, request).await;
    assert!(log.take().is_empty(), "its body has not been read");
    Whole::of(response).await;
    let event = log.one();
    for part in [
        "INFO",
        "request_id=abc",
        "method=POST",
        "path=/v1/chat/completions",
        "model=m",
        "runner=r1",
        "status=200",
        "tries=1",
        "duration_ms=",
        "outcome=success",
    ] {
        assert!(event.contains(part), "no {part} in {event}");
    }
    for secret in [CLIENT, "secret prompt", "query-secret", "ok\":true"] {
        assert!(!event.contains(secret), "{event}");
    }
}

#[tokio::test]
async fn every_way_to_end_has_its_word() {
    let (log, _guard) = listen();
    let gateway = with_runner(&Mock::ok());
    whole(&gateway, get("/nowhere")).await;
    assert!(log.one().contains("outcome=not_found"));
    whole(&gateway, with_key(chat("{}"), "wrong-key")).await;
    let event = log.one();
    assert!(event.contains("outcome=unauthorized") && !event.contains("wrong-key"), "{event}");
    whole(&gateway, chat(r#"{"model":"nope"}"#)).await;
    let event = log.one();
    assert!(event.contains("outcome=unknown_model") && event.contains("model=nope"), "{event}");

    // Which machines refused, and why, is told here and nowhere else.
    let gateway = builder().build().unwrap();
    let failing = Mock::new(|_| async { Err(LinkError::lost("reset by peer")) });
    join(&gateway, "gpu-7", &["m"], &failing);
    assert_eq!(whole(&gateway, chat(r#"{"model":"m"}"#)).await.status, 502);
    let event = log.one();
    assert!(event.contains("gpu-7") && event.contains("reset by peer"), "{event}");

    let error = Mock::new(|_| async { Ok(json(400, "{}")) });
    whole(&with_runner(&error), chat(r#"{"model":"m"}"#)).await;
    assert!(log.one().contains("outcome=client_fault"));
}

#[tokio::test]
async fn streams_are_told_at_their_end_however_it_comes() {
    let (log, _guard) = listen();
    for (end, word) in [(0, "success"), (1, "broken_off"), (2, "cancelled")] {
        let (link, sender) = Mock::stream("text/event-stream");
        let gateway = with_runner(&link);
        sender.try_send(Ok(Bytes::from_static(b"data: 1\n\n"))).unwrap();
        let mut response = send(&gateway, chat(r#"{"model":"m"}"#)).await;
        next_chunk(response.body_mut()).await.unwrap();
        assert!(log.take().is_empty());
        match end {
            0 => drop(sender),
            1 => sender.try_send(Err(LinkError::lost("killed"))).unwrap(),
            _ => {
                drop(response);
                assert!(log.one().contains("outcome=cancelled"));
                continue;
            }
        }
        Whole::of(response).await;
        let event = log.one();
        assert!(event.contains(&format!("outcome={word}")), "{event}");
    }
    // An answer that is no event stream is cut.
    let (link, sender) = Mock::stream("application/json");
    sender.try_send(Ok(Bytes::from_static(b"{"))).unwrap();
    sender.try_send(Err(LinkError::lost("killed"))).unwrap();
    let body = send(&with_runner(&link), chat(r#"{"model":"m"}"#)).await.into_body();
    assert!(body.collect().await.is_err());
    assert!(log.one().contains("outcome=broken_off"));
    // Before there was any answer.
    let gateway = with_runner(&Mock::new(|_| std::future::pending()));
    {
        let mut waiting = std::pin::pin!(send(&gateway, chat(r#"{"model":"m"}"#)));
        must_wait(waiting.as_mut()).await;
    }
    let event = log.one();
    assert!(event.contains("outcome=cancelled") && event.contains("status=499"), "{event}");
}
