//! The suite that every [`RunnerLink`] must pass.
//!
//! A transport implements [`Subject`]: it connects a link to a given [`MockEngine`]. [`run`] then puts the
//! link through everything that [`RunnerLink`]'s documentation promises. It uses real time, since real
//! links use real sockets, but waits for signals only, with a time limit for each.
//!
//! ```
//! use gateway_testkit::MockEngine;
//! use gateway_testkit::conformance::{self, Connected, Subject};
//!
//! struct InProcess;
//! #[async_trait::async_trait]
//! impl Subject for InProcess {
//!     async fn connect(&self, engine: MockEngine) -> Connected {
//!         Connected::new(engine.link(), ())
//!     }
//! }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
//! #     .block_on(conformance::run_only(&InProcess, |check| check.starts_with("passes")));
//! ```

mod cancel;
mod exchange;
mod faults;
mod flow;

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gateway_core::{LinkBody, LinkError, LinkRequest, RequestBody, RunnerLink};
use http_body::Body;

use crate::engine::MockEngine;

/// Connects links for the suite.
#[async_trait]
pub trait Subject: Send + Sync {
    /// A new link, ready to send, whose runner is `engine`. The engine may be reached in any way that keeps
    /// its promises: over HTTP ([`MockEngine::serve_http`]) or behind an agent.
    async fn connect(&self, engine: MockEngine) -> Connected;

    /// Whether [`RunnerLink::close`] means anything here: `false` for a link without connections.
    fn has_connections(&self) -> bool {
        true
    }

    /// The most bytes that may lie between engine and reader when the reader does not read, kernel buffers
    /// included.
    fn buffered_at_most(&self) -> u64 {
        16 * 1024 * 1024
    }
}

/// A link and what must stay alive for it.
pub struct Connected {
    /// The link under test.
    pub link: Arc<dyn RunnerLink>,
    _keep: Box<dyn Any + Send>,
}

impl Connected {
    /// A link, and whatever must not be dropped while it is used.
    pub fn new(link: Arc<dyn RunnerLink>, keep: impl Any + Send) -> Self {
        Self { link, _keep: Box::new(keep) }
    }
}

/// How long a cancellation may take to reach the runner.
pub const CANCEL_BOUND: Duration = Duration::from_millis(100);

/// How long anything else may take.
const PATIENCE: Duration = Duration::from_secs(10);

type Check = for<'a> fn(&'a dyn Subject) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Every check, by name.
const CHECKS: &[(&str, Check)] = &[
    ("passes the request on untouched", |s| Box::pin(exchange::request_is_untouched(s))),
    ("passes the answer on untouched", |s| Box::pin(exchange::answer_is_untouched(s))),
    ("passes bodies of every size", |s| Box::pin(exchange::bodies_of_every_size(s))),
    ("passes a renamed model", |s| Box::pin(exchange::renamed_model(s))),
    ("passes answers without a body", |s| Box::pin(exchange::no_body(s))),
    ("serves many requests in turn", |s| Box::pin(exchange::many_in_turn(s))),
    ("serves many requests at once", |s| Box::pin(exchange::many_at_once(s))),
    ("forwards chunks as they come", |s| Box::pin(flow::chunks_as_they_come(s))),
    ("forwards a streamed request as it comes", |s| Box::pin(flow::request_as_it_comes(s))),
    ("a stalled reader stops the runner", |s| Box::pin(flow::stalled_reader_stops_the_runner(s))),
    ("a stalled reader stalls nobody else", |s| Box::pin(flow::stalled_reader_stalls_nobody(s))),
    ("cancels before the head", |s| Box::pin(cancel::before_the_head(s))),
    ("cancels before the first byte", |s| Box::pin(cancel::before_the_first_byte(s))),
    ("cancels in mid-answer", |s| Box::pin(cancel::in_mid_answer(s))),
    ("cancels one and no other", |s| Box::pin(cancel::one_and_no_other(s))),
    ("reports a cut before the head", |s| Box::pin(faults::cut_before_head(s))),
    ("reports a cut before the first byte", |s| Box::pin(faults::cut_before_first_byte(s))),
    ("reports a cut in mid-answer", |s| Box::pin(faults::cut_in_mid_answer(s))),
    ("reports a failing request body", |s| Box::pin(faults::failing_request_body(s))),
    ("works on after faults", |s| Box::pin(faults::works_on_after_faults(s))),
    ("close ends everything", |s| Box::pin(faults::close_ends_everything(s))),
];

/// Runs every check.
///
/// # Panics
/// A check failed; its name was printed last.
pub async fn run(subject: &dyn Subject) {
    run_only(subject, |_| true).await;
}

/// Runs the checks whose name is wanted, for work on one of them.
///
/// # Panics
/// As [`run`].
pub async fn run_only(subject: &dyn Subject, wanted: impl Fn(&str) -> bool) {
    for (name, check) in CHECKS.iter().filter(|(name, _)| wanted(name)) {
        println!("conformance: {name}");
        let done = tokio::time::timeout(PATIENCE * 3, check(subject)).await;
        assert!(done.is_ok(), "conformance: \"{name}\" did not end");
    }
}

fn post(path: &str, body: impl Into<RequestBody>) -> LinkRequest {
    let request = http::Request::post(path).header("content-type", "application/json").body(body.into());
    request.expect("the suite's own requests are valid")
}

/// The next chunk of data, or `None` at the end.
async fn next(body: &mut LinkBody) -> Option<Result<Bytes, LinkError>> {
    let read = async {
        loop {
            match std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await? {
                Ok(frame) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Some(Ok(data)),
                    Err(_) => {}
                },
                Err(error) => return Some(Err(error)),
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("a chunk did not come")
}

/// Reads `count` bytes, in however many chunks they come.
async fn take(body: &mut LinkBody, count: usize) -> Vec<u8> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let chunk = next(body).await.expect("the answer ended early").expect("the answer broke off");
        taken.extend_from_slice(&chunk);
    }
    assert_eq!(taken.len(), count, "more came than was sent");
    taken
}

async fn read_all(mut body: LinkBody) -> Result<Vec<u8>, LinkError> {
    let mut all = Vec::new();
    while let Some(chunk) = next(&mut body).await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all)
}

/// Waits for the engine's counts with a limit.
async fn until(
    engine: &MockEngine,
    limit: Duration,
    what: &str,
    wanted: impl FnMut(&crate::engine::Counts) -> bool,
) {
    let done = tokio::time::timeout(limit, engine.until(wanted)).await;
    assert!(done.is_ok(), "{what}: {:?} after {limit:?}", engine.counts());
}
