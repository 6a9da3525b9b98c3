//! Bodies that can be read once, and requests on terms of their own.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gateway_core::{
    Deadlines, Dispatch, DispatchErrorKind, Dispatched, Dispatcher, Fault, InMemoryRegistry, LinkBody,
    LinkDescription, LinkError, LinkRequest, LinkResponse, ModelId, NotRepeatable, Outcome, Registry,
    RequestBody, RunnerId, RunnerLink, RunnerSpec, RunnerStatus, Terms, UpgradeTo,
};
use gateway_testkit::{MockEngine, Recorder, Script, request};
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;

/// Reads so many frames of each request, and answers with this.
struct Reads(usize, fn() -> Result<LinkResponse, LinkError>);

#[async_trait]
impl RunnerLink for Reads {
    fn describe(&self) -> LinkDescription {
        LinkDescription { transport: "test", address: None }
    }

    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError> {
        let is_once = request.extensions().get::<NotRepeatable>().is_some();
        let mut body = request.into_body();
        for _ in 0..self.0 {
            body.frame().await.unwrap().unwrap();
        }
        drop(body);
        let mut answer = (self.1)()?;
        answer.headers_mut().insert("x-once", is_once.to_string().parse().unwrap());
        Ok(answer)
    }
}

fn model() -> ModelId {
    ModelId::new("m").unwrap()
}

fn dispatcher(links: Vec<Arc<dyn RunnerLink>>) -> (Dispatcher, Arc<Recorder>) {
    let registry = Arc::new(InMemoryRegistry::new());
    for (at, link) in links.into_iter().enumerate() {
        let spec = RunnerSpec::new(RunnerId::new(format!("r{at}")).unwrap());
        registry.join(spec, RunnerStatus::serving([model()]), link);
    }
    let recorder = Arc::new(Recorder::default());
    (Dispatcher::builder(registry).observer(recorder.clone()).build(), recorder)
}

fn streamed() -> RequestBody {
    RequestBody::stream(Full::new(Bytes::from_static(b"once")))
}

async fn ask(
    dispatcher: &Dispatcher,
    body: RequestBody,
    terms: Terms,
) -> Result<Dispatched, DispatchErrorKind> {
    let mut call = request(&model(), "");
    *call.request.body_mut() = body;
    dispatcher.dispatch(Dispatch { terms, ..call }).await.map_err(|error| error.kind())
}

fn fine() -> Result<LinkResponse, LinkError> {
    Ok(http::Response::new(LinkBody::full("fine")))
}

fn lost() -> Result<LinkResponse, LinkError> {
    Err(LinkError::lost("test"))
}

#[tokio::test]
async fn a_stream_comes_back_from_a_try_that_did_not_read_it() {
    // Whichever is first, the other serves.
    for _ in 0..10 {
        let (dispatcher, _) = dispatcher(vec![Arc::new(Reads(0, lost)), Arc::new(Reads(1, fine))]);
        let answer = ask(&dispatcher, streamed(), Terms::default()).await.unwrap();
        assert_eq!(answer.runner.id().as_str(), "r1");
    }
    let (dispatcher, _) = dispatcher(vec![Arc::new(Reads(1, lost)), Arc::new(Reads(1, lost))]);
    let failed = ask(&dispatcher, streamed(), Terms::default()).await.unwrap_err();
    assert_eq!(failed, DispatchErrorKind::RunnerFailed(Fault::Connection));
}

#[tokio::test]
async fn a_stream_that_is_lent_is_with_nobody_else() {
    let mut body = streamed();
    assert!(!body.can_replay() && body.replay().is_none());
    assert_eq!(body.len(), Some(4));
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "once");
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn links_are_told_what_must_not_be_repeated() {
    let (dispatcher, _) = dispatcher(vec![Arc::new(Reads(0, fine))]);
    for repeatable in [true, false] {
        let terms = Terms { repeatable, ..Terms::default() };
        let answer = ask(&dispatcher, RequestBody::empty(), terms).await.unwrap();
        assert_eq!(answer.response.headers()["x-once"], (!repeatable).to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn a_verbatim_head_does_not_wait_for_the_body_and_has_its_own_deadlines() {
    let engine = MockEngine::new(|_| Script::sse(["1"]).interval(Duration::from_secs(50)));
    let (dispatcher, _) = dispatcher(vec![engine.link()]);
    let before = Instant::now();
    let short = Deadlines { idle: Some(Duration::from_secs(20)), ..Deadlines::default() };
    let terms = Terms { verbatim: true, deadlines: Some(short), ..Terms::default() };
    let answer = ask(&dispatcher, RequestBody::empty(), terms).await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO);
    let mut body = pin!(answer.response.into_body());
    assert!(body.frame().await.unwrap().unwrap_err().is_idle_timeout());
    assert_eq!(before.elapsed().as_secs(), 20);
    // Any other waits.
    drop(ask(&dispatcher, RequestBody::empty(), Terms::default()).await.unwrap());
    assert_eq!(before.elapsed().as_secs(), 70);
}

#[tokio::test]
async fn a_client_s_401_is_no_fault_of_the_runner_s_if_the_answer_is_verbatim() {
    for (verbatim, outcome) in [(true, Outcome::ClientFault), (false, Outcome::RunnerFault(Fault::Status))] {
        let engine = MockEngine::new(|_| Script::status(401, "who are you"));
        let (dispatcher, recorder) = dispatcher(vec![engine.link()]);
        let answer = ask(&dispatcher, RequestBody::empty(), Terms { verbatim, ..Terms::default() }).await;
        assert_eq!(answer.is_ok(), verbatim);
        if let Ok(answer) = answer {
            assert_eq!(answer.response.status(), 401);
            assert_eq!(gateway_testkit::text(answer.response).await.unwrap(), "who are you");
        }
        assert_eq!((recorder.count(outcome), recorder.tries()), (1, 1));
    }
}

#[tokio::test]
async fn links_that_cannot_upgrade_see_no_such_request_and_are_not_blamed() {
    let engine = MockEngine::new(|_| Script::text("x"));
    let (dispatcher, recorder) = dispatcher(vec![engine.link()]);
    let mut call = request(&model(), "");
    call.request.extensions_mut().insert(UpgradeTo(http::HeaderValue::from_static("websocket")));
    let failed = dispatcher.dispatch(call).await.unwrap_err();
    assert_eq!(failed.kind(), DispatchErrorKind::Unsupported);
    assert_eq!(engine.counts().started, 0);
    assert_eq!((recorder.count(Outcome::ClientFault), recorder.tries()), (1, 1));
}
