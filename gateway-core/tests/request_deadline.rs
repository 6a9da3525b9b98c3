//! A link that passes the request's own time on, and whose runner keeps to it.

use std::sync::Arc;

use async_trait::async_trait;
use gateway_core::{
    Cancel, DispatchErrorKind, Dispatcher, InMemoryRegistry, LinkBody, LinkDescription, LinkError,
    LinkRequest, LinkResponse, ModelId, Outcome, Registry, RunnerId, RunnerLink, RunnerSpec, RunnerStatus,
};
use gateway_testkit::{Recorder, request};
use http_body_util::{BodyExt, StreamBody};

/// Says that the time is up, before the answer or in its middle.
struct Late {
    begins: bool,
}

#[async_trait]
impl RunnerLink for Late {
    fn describe(&self) -> LinkDescription {
        LinkDescription { transport: "test", address: None }
    }

    async fn send(&self, _: LinkRequest) -> Result<LinkResponse, LinkError> {
        let late = || LinkError::deadline("the worker has stopped");
        if !self.begins {
            return Err(late());
        }
        let frames = [Ok(http_body::Frame::data("so far".into())), Err(late())];
        Ok(http::Response::new(LinkBody::new(StreamBody::new(futures_util::stream::iter(frames)))))
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_nobody_s_fault_and_tried_nowhere_else() {
    for begins in [false, true] {
        let registry = Arc::new(InMemoryRegistry::new());
        let model = ModelId::new("m").unwrap();
        for id in ["a", "b"] {
            let spec = RunnerSpec::new(RunnerId::new(id).unwrap());
            registry.join(spec, RunnerStatus::serving([model.clone()]), Arc::new(Late { begins }));
        }
        let recorder = Arc::new(Recorder::default());
        let dispatcher = Dispatcher::builder(registry).observer(recorder.clone()).build();
        match dispatcher.dispatch(request(&model, "{}")).await {
            Ok(answer) => {
                assert!(begins);
                let error = answer.response.into_body().collect().await.expect_err("it breaks off");
                assert!(error.is_deadline(), "{error}");
            }
            Err(error) => {
                assert!(!begins && error.kind() == DispatchErrorKind::Deadline, "{error}");
            }
        }
        assert_eq!(recorder.count(Outcome::Cancelled(Cancel::Deadline)), 1);
        gateway_testkit::assert_all_zero(&dispatcher, []).await;
    }
}
