//! Where limits hang: a permit is held as long as the answer, and a refusal is told in OpenAI's way.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use gateway_core::{Permit, RequestId, Requirements};
use gateway_http::{Admission, Decision, Identity, Refused};
use tokio::sync::Semaphore;

struct Places(Arc<Semaphore>);

impl Admission for Places {
    fn admit<'a>(
        &'a self,
        identity: &'a Identity,
        requirements: &'a Requirements,
        _: &'a RequestId,
    ) -> Decision<'a, Result<Permit, Refused>> {
        assert_eq!(identity.name(), Some("key-1"));
        let model = requirements.model.as_ref().unwrap().as_str();
        Decision::later(async move {
            match model {
                "forbidden" => Err(Refused::forbidden("Not for you.")),
                "spent" => Err(Refused::quota_used_up("Nothing left.")),
                _ => self.0.clone().try_acquire_owned().map(Permit::holding).map_err(|_| {
                    Refused::too_many("One at a time.").retry_after(Duration::from_millis(1500))
                }),
            }
        })
    }
}

#[tokio::test]
async fn a_permit_is_held_until_the_answer_ends_or_is_dropped() {
    let places = Arc::new(Semaphore::new(1));
    let (link, sender) = Mock::stream("text/event-stream");
    let gateway = builder().admission(Places(places.clone())).build().unwrap();
    join(&gateway, "r1", &["m"], &link);
    sender.try_send(Ok(Bytes::from_static(b"data: 1\n\n"))).unwrap();
    let first = send(&gateway, chat(r#"{"model":"m"}"#)).await;
    assert_eq!(places.available_permits(), 0);

    let refused = whole(&gateway, chat(r#"{"model":"m"}"#)).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("2")));
    let (kind, code, _) = refused.error();
    assert_eq!((&*kind, code.as_deref()), ("requests", Some("rate_limit_exceeded")));
    assert_eq!(link.seen.lock().unwrap().len(), 1);

    drop(first);
    assert_eq!(places.available_permits(), 1);
    // No runner: what was held for the request is given back at once.
    assert_eq!(whole(&gateway, chat(r#"{"model":"unknown"}"#)).await.status, 404);
    assert_eq!(places.available_permits(), 1);
}

#[tokio::test]
async fn other_refusals_have_their_own_words() {
    let gateway = builder().admission(Places(Arc::new(Semaphore::new(1)))).build().unwrap();
    for (model, status, code) in [("forbidden", 403, "forbidden"), ("spent", 429, "insufficient_quota")] {
        let answer = whole(&gateway, chat(format!(r#"{{"model":"{model}"}}"#))).await;
        assert_eq!((answer.status, answer.error().1.as_deref()), (status, Some(code)));
    }
    assert!(gateway.metrics_text().contains(r#"gateway_refused_total{reason="admission"} 2"#));
}
