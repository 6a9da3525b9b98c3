//! The loop: route, pick, send; again elsewhere if nothing has begun.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body::{Body, Frame};
use tokio::time::{Instant, timeout, timeout_at};

use super::attempt::Try;
use super::body::{Answer, DispatchBody};
use super::error::{DispatchError, DispatchErrorKind};
use super::limits::RetryPolicy;
use super::outcome::{Cancel, Fault, Outcome};
use super::{Dispatch, Dispatched, Shared};
use crate::balance::{Candidates, Tried};
use crate::body::{LinkBody, RequestBody};
use crate::link::{LinkError, LinkRequest};
use crate::names::{ModelId, RequestId};
use crate::permit::Permit;
use crate::router::Requirements;
use crate::runner::{Reservation, Runner};

/// What a try came to, if it is not an answer to pass on as it is.
enum Failure {
    /// The runner answered, but another may do better. Kept so that its own words reach the client if none
    /// does.
    Answer(http::response::Parts, Box<Answer>),
    NotSent(LinkError),
    Fault(Fault, Option<LinkError>),
    Total,
    RequestBody(LinkError),
}

/// The last failure, and where.
struct Failed {
    failure: Failure,
    runner: Arc<Runner>,
}

pub(super) async fn run(shared: &Arc<Shared>, call: Dispatch) -> Result<Dispatched, DispatchError> {
    let Dispatch { id, request, requirements, permit } = call;
    let model = requirements.model.as_ref();
    let fail = |kind| DispatchError::new(kind, &id, model);
    let Some(in_flight) = shared.drain.enter() else {
        return Err(fail(DispatchErrorKind::Draining).retry_after_secs(5));
    };
    let total = shared.deadlines.total.and_then(|total| Instant::now().checked_add(total));

    let (head, body) = request.into_parts();
    let mut body = Some(body);
    let mut tried: Vec<Tried> = Vec::new();
    let mut failures = 0;
    let mut last: Option<Failed> = None;

    loop {
        let reservation = match pick(shared, &requirements, &tried) {
            Some(reservation) if tried.len() < RetryPolicy::MAX_TRIES => reservation,
            _ => break,
        };
        let runner = reservation.runner().clone();
        let request_body = match body.as_ref().and_then(RequestBody::replay) {
            Some(copy) => copy,
            None => match body.take() {
                Some(only) => only,
                // A stream that was sent once already.
                None => break,
            },
        };
        let renamed = match model.and_then(|model| runner.rename(model)) {
            Some(name) => request_body.rename_model(name),
            None => request_body,
        };
        let request = http::Request::from_parts(head.clone(), renamed);
        let attempt = Try::new(shared, reservation, &id, &requirements);
        let failure = match send(shared, request, attempt, total).await {
            Ok((head, answer)) => {
                return Ok(dispatched(shared, head, answer, tried.len(), total, permit, in_flight));
            }
            Err(failure) => failure,
        };
        tracing::debug!(request_id = %id, runner = %runner.key(), failure = describe(&failure), "try failed");
        let sent = !matches!(failure, Failure::NotSent(_));
        tried.push(Tried { runner: runner.key().clone(), sent });
        let counts = match &failure {
            Failure::NotSent(_) => false,
            Failure::Answer(_, answer) => matches!(answer.outcome, Outcome::RunnerFault(_)),
            Failure::Fault(..) => true,
            Failure::Total | Failure::RequestBody(_) => {
                last = Some(Failed { failure, runner });
                break;
            }
        };
        failures += u32::from(counts);
        last = Some(Failed { failure, runner });
        if failures >= shared.retry.max_failures.max(1) {
            break;
        }
    }

    let Some(Failed { failure, runner }) = last else {
        return Err(nobody(shared, &requirements, &id, &tried));
    };
    let fail = |kind| fail(kind).on(runner.id());
    Err(match failure {
        Failure::Answer(head, answer) => {
            let before = tried.len() - 1;
            return Ok(dispatched(shared, head, *answer, before, total, permit, in_flight));
        }
        Failure::NotSent(error) => {
            fail(DispatchErrorKind::Unreachable).because(Some(error)).retry_after_secs(1)
        }
        Failure::Fault(fault, error) => fail(DispatchErrorKind::RunnerFailed(fault)).because(error),
        Failure::Total => fail(DispatchErrorKind::Deadline),
        Failure::RequestBody(error) => fail(DispatchErrorKind::RequestBody).because(Some(error)),
    })
}

fn pick(shared: &Shared, requirements: &Requirements, tried: &[Tried]) -> Option<Reservation> {
    let fleet = shared.registry.fleet();
    let from = |pool| {
        let mut candidates = Candidates::new(pool, &*shared.router, requirements, tried);
        loop {
            match shared.balancer.pick(requirements, &candidates) {
                Some(reservation) => return Some(reservation),
                // Better one that should be spared than nobody.
                None => candidates = candidates.more_lenient()?,
            }
        }
    };
    from(shared.router.pool(requirements, &fleet))
        .or_else(|| from(shared.router.fallback(requirements, &fleet)?))
}

fn dispatched(
    shared: &Shared,
    head: http::response::Parts,
    answer: Answer,
    tries_before: usize,
    total: Option<Instant>,
    permit: Permit,
    in_flight: super::drain::InFlight,
) -> Dispatched {
    let runner = answer.attempt.runner().clone();
    let sent = answer.attempt.sent;
    let first_byte = answer.attempt.first_byte().unwrap_or_else(Instant::now);
    let body = DispatchBody::new(answer, shared.deadlines.idle, total, permit, in_flight);
    Dispatched {
        response: http::Response::from_parts(head, body),
        runner,
        tries: u32::try_from(tries_before + 1).unwrap_or(u32::MAX),
        strategy: shared.balancer.name(),
        sent,
        first_byte,
    }
}

/// One try, up to the first byte of the answer's body.
async fn send(
    shared: &Shared,
    request: LinkRequest,
    mut attempt: Try,
    total: Option<Instant>,
) -> Result<(http::response::Parts, Answer), Failure> {
    let first_byte = shared.deadlines.first_byte.and_then(|limit| attempt.sent.checked_add(limit));
    let limit = first_byte.into_iter().chain(total).min();
    let runner = attempt.runner().clone();
    let exchange = async {
        let (mut head, mut body) = runner.link().send(request).await?.into_parts();
        let outcome = Outcome::of_status(head.status);
        if is_for_another(&head, outcome) {
            let words = last_words(&mut head, body).await;
            return Ok((head, words, outcome, None));
        }
        // The head alone proves little: engines send it before they have begun. Until a byte of the body
        // is here, another runner can still do it.
        let first = if !body.is_end_stream() { next_frame(&mut body).await? } else { None };
        Ok::<_, LinkError>((head, body, outcome, first))
    };
    let done = match limit {
        Some(limit) => timeout_at(limit, exchange).await,
        None => Ok(exchange.await),
    };
    match done {
        Ok(Ok((head, body, outcome, first))) => {
            attempt.begun();
            if is_for_another(&head, outcome) {
                // The runner is done with it. Its slot must not wait for what the next one makes of it.
                attempt.finish(outcome);
                if matches!(head.status.as_u16(), 401 | 403 | 407) {
                    return Err(Failure::Fault(Fault::Status, None));
                }
                let answer = Answer { first: None, body, attempt, outcome };
                return Err(Failure::Answer(head, Box::new(answer)));
            }
            Ok((head, Answer { first, body, attempt, outcome }))
        }
        Ok(Err(error)) => {
            let (outcome, failure) = if error.is_not_sent() {
                (Outcome::NeverSent, Failure::NotSent(error))
            } else if error.is_request_body() {
                (Outcome::ClientFault, Failure::RequestBody(error))
            } else {
                let fault = Fault::Connection;
                (Outcome::RunnerFault(fault), Failure::Fault(fault, Some(error)))
            };
            attempt.finish(outcome);
            Err(failure)
        }
        Err(_) if total.is_some_and(|total| total <= Instant::now()) => {
            attempt.finish(Outcome::Cancelled(Cancel::Deadline));
            Err(Failure::Total)
        }
        Err(_) => {
            attempt.finish(Outcome::RunnerFault(Fault::FirstByteTimeout));
            Err(Failure::Fault(Fault::FirstByteTimeout, None))
        }
    }
}

async fn next_frame(body: &mut LinkBody) -> Result<Option<Frame<Bytes>>, LinkError> {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await.transpose()
}

/// Whether another runner may do better than this answer.
fn is_for_another(head: &http::response::Parts, outcome: Outcome) -> bool {
    // "Not implemented" is nobody's fault, but another engine may have it.
    matches!(outcome, Outcome::RunnerFault(_) | Outcome::Overloaded)
        || head.status == StatusCode::NOT_IMPLEMENTED
}

/// Takes what a runner says of its failure off the link, so that neither connection nor stream waits for
/// what becomes of the request elsewhere. What is too long or too slow is left out.
async fn last_words(head: &mut http::response::Parts, mut body: LinkBody) -> LinkBody {
    const LONGEST: usize = 64 * 1024;
    const PATIENCE: Duration = Duration::from_secs(1);
    let mut words = BytesMut::new();
    let read = async {
        while let Some(frame) = next_frame(&mut body).await? {
            words.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            if words.len() > LONGEST {
                return Err(LinkError::lost("its error is too long"));
            }
        }
        Ok(())
    };
    if matches!(timeout(PATIENCE, read).await, Ok(Ok(()))) {
        return LinkBody::full(words);
    }
    for about_the_body in [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING] {
        head.headers.remove(about_the_body);
    }
    LinkBody::full(Bytes::new())
}

/// Nobody could be picked and nobody was tried: says why.
fn nobody(shared: &Shared, requirements: &Requirements, id: &RequestId, tried: &[Tried]) -> DispatchError {
    let model: Option<&ModelId> = requirements.model.as_ref();
    let fleet = shared.registry.fleet();
    let pool = shared.router.pool(requirements, &fleet);
    let candidates = Candidates::new(pool, &*shared.router, requirements, tried);
    let fail = |kind| DispatchError::new(kind, id, model);
    let fallback = shared
        .router
        .fallback(requirements, &fleet)
        .map(|pool| Candidates::new(pool, &*shared.router, requirements, tried));
    if candidates.iter().next().or_else(|| fallback.as_ref()?.iter().next()).is_some() {
        return fail(DispatchErrorKind::Overloaded).retry_after_secs(1);
    }
    let entry = model.and_then(|model| fleet.model(model.as_str()));
    if pool.runners().is_empty() && model.is_some() && entry.is_none() {
        return fail(DispatchErrorKind::UnknownModel);
    }
    let runners = entry.map_or(fleet.runners(), |entry| entry.known());
    let refusals = runners
        .iter()
        .filter_map(|runner| Some((runner.id().clone(), candidates.refusal(runner)?)))
        .take(DispatchError::MAX_REFUSALS)
        .collect();
    fail(DispatchErrorKind::NoneEligible).refused_by(refusals).retry_after_secs(5)
}

fn describe(failure: &Failure) -> &'static str {
    match failure {
        Failure::Answer(_, answer) => answer.outcome.as_str(),
        Failure::NotSent(_) => Outcome::NeverSent.as_str(),
        Failure::Fault(fault, _) => Outcome::RunnerFault(*fault).as_str(),
        Failure::Total => Outcome::Cancelled(Cancel::Deadline).as_str(),
        Failure::RequestBody(_) => Outcome::ClientFault.as_str(),
    }
}
