use std::collections::VecDeque;

use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use proptest::prelude::*;

use super::*;

/// Gives what was written down; `Waits` is a moment in which nothing is ready.
struct Script(VecDeque<Step>);

#[derive(Debug, Clone)]
enum Step {
    Data(Vec<u8>),
    Waits,
    Trailers,
    Fails,
}

impl Body for Script {
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        Poll::Ready(match self.0.pop_front() {
            Some(Step::Data(data)) => Some(Ok(Frame::data(data.into()))),
            Some(Step::Waits) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Step::Trailers) => {
                let mut trailers = HeaderMap::new();
                trailers.insert("x-end", HeaderValue::from_static("1"));
                Some(Ok(Frame::trailers(trailers)))
            }
            Some(Step::Fails) => Some(Err(LinkError::lost("the script says so"))),
            None => None,
        })
    }
}

/// What comes out, frame by frame, and how it ends.
async fn played(script: Vec<Step>) -> (Vec<Vec<u8>>, &'static str) {
    let mut body = EngineBody::new(LinkBody::new(Script(script.into())));
    let mut frames = Vec::new();
    loop {
        match body.frame().await {
            Some(Ok(frame)) if frame.is_trailers() => return (frames, "trailers"),
            Some(Ok(frame)) => frames.push(frame.into_data().unwrap().to_vec()),
            Some(Err(_)) => return (frames, "failed"),
            None => return (frames, "ended"),
        }
    }
}

#[tokio::test]
async fn what_is_ready_together_goes_together_and_nothing_waits() {
    let data = |text: &str| Step::Data(text.as_bytes().to_vec());
    let script =
        vec![data("a"), data(""), data("b"), Step::Waits, data("c"), Step::Waits, data("d"), data("e")];
    let (frames, end) = played(script).await;
    assert_eq!(frames, [b"ab".to_vec(), b"c".to_vec(), b"de".to_vec()]);
    assert_eq!(end, "ended");
}

#[tokio::test]
async fn what_is_large_is_not_copied() {
    let large = Bytes::from(vec![7; LARGE]);
    let body = LinkBody::full(large.clone());
    let frame = EngineBody::new(body).frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap().as_ptr(), large.as_ptr());
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Data),
        1 => (0..3 * LARGE).prop_map(|len| Step::Data(vec![1; len])),
        2 => Just(Step::Waits),
    ];
    let end = prop_oneof![Just(None), Just(Some(Step::Trailers)), Just(Some(Step::Fails))];
    (prop::collection::vec(step, 0..40), end).prop_map(|(mut steps, end)| {
        steps.extend(end);
        steps
    })
}

proptest! {
    #[test]
    fn the_bytes_and_the_end_are_the_same(script in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (frames, end) = runtime.block_on(played(script.clone()));
        let sent: Vec<u8> = script.iter().flat_map(|step| match step {
            Step::Data(data) => data.clone(),
            _ => Vec::new(),
        }).collect();
        prop_assert_eq!(frames.concat(), sent);
        prop_assert!(frames.iter().all(|frame| !frame.is_empty()));
        let wanted = match script.last() {
            Some(Step::Trailers) => "trailers",
            Some(Step::Fails) => "failed",
            _ => "ended",
        };
        prop_assert_eq!(end, wanted);
    }
}
