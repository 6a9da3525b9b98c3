//! Tasks at a pace that does not wait for answers.

use std::sync::Arc;
use std::time::Duration;

use gateway_core::{LinkResponse, RequestBody, RunnerLink};
use gateway_transport_http::HttpLink;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::BodyExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Cpu,
    Gpu,
}

/// One task that is over.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) kind: Kind,
    /// 0 if there was no answer.
    pub(crate) status: u16,
    /// Beyond the time of the task itself.
    pub(crate) added: Duration,
    /// Whether it had to wait for something to be free, as the gateway says.
    pub(crate) waited: bool,
}

pub(crate) struct Load {
    pub(crate) rate: u64,
    pub(crate) gpu_every: u64,
}

impl Load {
    pub(crate) async fn run(&self, link: &Arc<HttpLink>, time: Duration) -> Vec<Done> {
        let mut tasks = JoinSet::new();
        let mut done = Vec::new();
        let mut clock =
            interval(Duration::from_secs(1) / u32::try_from(self.rate.max(1)).unwrap_or(u32::MAX));
        clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let end = Instant::now() + time;
        // The same tasks each time.
        let mut chance = fastrand::Rng::with_seed(7);
        while Instant::now() < end {
            clock.tick().await;
            let (kind, ms) = if chance.u64(..self.gpu_every) == 0 { (Kind::Gpu, 20) } else { (Kind::Cpu, 5) };
            let link = link.clone();
            tasks.spawn(async move { ask(&link, kind, Duration::from_millis(ms)).await });
            while let Some(Ok(one)) = tasks.try_join_next() {
                done.push(one);
            }
        }
        done.extend(tasks.join_all().await);
        done
    }
}

/// One task.
pub(crate) async fn ask(link: &HttpLink, kind: Kind, time: Duration) -> Done {
    let (path, gpus) = match kind {
        Kind::Cpu => ("/tasks/x/cpu", 0),
        Kind::Gpu => ("/tasks/x/gpu", 1),
    };
    let body = format!(r#"{{"cpus": 1, "gpus": {gpus}, "memory_gb": 1, "ms": {}}}"#, time.as_millis());
    let mut request = Request::new(RequestBody::from(body));
    (*request.method_mut(), *request.uri_mut()) = (Method::POST, Uri::from_static(path));
    let headers = request.headers_mut();
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer t"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let began = Instant::now();
    let answer = whole(link, request).await;
    let (status, waited) = answer.unwrap_or_default();
    // The scripted runner takes a millisecond more than the task.
    let added = began.elapsed().saturating_sub(time + Duration::from_millis(1));
    Done { kind, status, added, waited }
}

/// Status, and whether the gateway says that it had to wait.
async fn whole(link: &HttpLink, request: Request<RequestBody>) -> Option<(u16, bool)> {
    let response: LinkResponse = link.send(request).await.ok()?;
    let status = response.status().as_u16();
    let reason = response.headers().get("x-router-reason").and_then(|reason| reason.to_str().ok());
    let waited = reason.is_some_and(|reason| reason.contains("waited_ms"));
    response.into_body().collect().await.ok()?;
    Some((status, waited))
}

/// Whether the gateway knows so many runners.
pub(crate) async fn has_runners(link: &HttpLink, count: usize) -> bool {
    let mut request = Request::new(RequestBody::empty());
    *request.uri_mut() = Uri::from_static("/admin/runners");
    request.headers_mut().insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer a"));
    let Ok(response) = link.send(request).await else { return false };
    let Ok(body) = response.into_body().collect().await else { return false };
    let json: serde_json::Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    let list = json.get("runners").unwrap_or(&json);
    list.as_array().is_some_and(|runners| runners.len() == count)
}
