//! Doors of runner sources are mounted at their paths and see the request as the server gave it.

mod common;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use common::*;
use gateway_core::{CancellationToken, Door, Registry, RunnerSource};
use gateway_http::{BuildError, Gateway};
use http::{Response, StatusCode};

#[derive(Clone, Copy, PartialEq, Debug)]
struct Upgrade(u32);

struct TestDoor {
    path: &'static str,
    knocks: Mutex<Vec<(String, Option<Upgrade>)>>,
}

impl Door for TestDoor {
    fn path(&self) -> &str {
        self.path
    }

    fn knock(&self, request: http::request::Parts) -> Response<Bytes> {
        let upgrade = request.extensions.get().copied();
        self.knocks.lock().unwrap().push((request.method.to_string(), upgrade));
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("upgrade", http::HeaderValue::from_static("websocket"));
        response.headers_mut().insert("connection", http::HeaderValue::from_static("upgrade"));
        response
    }
}

struct Dialled(Arc<TestDoor>);

#[async_trait]
impl RunnerSource for Dialled {
    fn door(&self) -> Option<Arc<dyn Door>> {
        Some(self.0.clone())
    }

    async fn run(self: Box<Self>, _: Arc<dyn Registry>, stop: CancellationToken) {
        stop.cancelled().await;
    }
}

fn door(path: &'static str) -> Arc<TestDoor> {
    Arc::new(TestDoor { path, knocks: Mutex::default() })
}

fn build(doors: &[&Arc<TestDoor>]) -> Result<Gateway, BuildError> {
    doors.iter().fold(builder(), |builder, door| builder.runners(Dialled(Arc::clone(door)))).build()
}

#[tokio::test]
async fn a_door_gets_method_and_extensions_without_our_tokens() {
    let (ws, other) = (door("/ws/runners"), door("/ws/others"));
    let gateway = build(&[&ws, &other]).unwrap();
    let mut request = get("/ws/runners?token=x");
    request.extensions_mut().insert(Upgrade(7));
    let answer = send(&gateway, request).await;
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.headers()["upgrade"], "websocket");
    assert_eq!(answer.headers()["connection"], "upgrade");
    assert_eq!(*ws.knocks.lock().unwrap(), [("GET".to_owned(), Some(Upgrade(7)))]);
    assert!(other.knocks.lock().unwrap().is_empty());
    assert_eq!(whole(&gateway, get("/ws/runners/")).await.status, 404);
    let line = r#"gateway_requests_total{method="GET",endpoint="door",status="101"} 1"#;
    assert!(gateway.metrics_text().contains(line));
}

#[tokio::test]
async fn doors_do_not_stand_in_each_other_s_way_or_in_that_of_a_route() {
    let twice = door("/ws/runners");
    for doors in [
        &[&twice, &twice][..],
        &[&door("/health")],
        &[&door("/v1/models/x")],
        &[&door("/admin/runners/x/drain")],
        &[&door("ws")],
        &[&door("")],
    ] {
        let path = doors[0].path.to_owned();
        assert_eq!(build(doors).unwrap_err(), BuildError::DoorTaken { path });
    }
}
