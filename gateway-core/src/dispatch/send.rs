//! One try on one runner, up to the first byte of its answer's body.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame};
use tokio::time::{Instant, timeout, timeout_at};

use super::body::Answer;
use super::outcome::{Cancel, Fault, Outcome};
use crate::balance::Tried;
use crate::body::LinkBody;
use crate::link::{LinkError, LinkResponse};
use crate::runner::Runner;
use crate::stream::Progress;

/// What a try came to, if it is not an answer to pass on as it is.
pub(super) enum Failure {
    /// The runner answered, but another may do better. Kept so that its own words reach the client if none
    /// does.
    Answer(Box<Answer>),
    NotSent(LinkError),
    Fault(Fault, Option<LinkError>),
    Total,
    RequestBody(LinkError),
    /// The link cannot carry such a request.
    Unsupported(LinkError),
}

/// A failure, and where.
pub(super) struct Failed {
    pub(super) failure: Failure,
    pub(super) runner: Arc<Runner>,
}

impl Failed {
    pub(super) fn tried(&self) -> Tried {
        let sent = !matches!(self.failure, Failure::NotSent(_) | Failure::Unsupported(_));
        Tried { runner: self.runner.key().clone(), sent }
    }

    /// Whether it counts against what a request may do to the fleet.
    pub(super) fn counts(&self) -> bool {
        match &self.failure {
            Failure::NotSent(_) | Failure::Unsupported(_) => false,
            Failure::Answer(answer) => matches!(answer.outcome, Outcome::RunnerFault(_)),
            Failure::Fault(..) | Failure::Total | Failure::RequestBody(_) => true,
        }
    }

    /// Whether the runner said that it has too much to do.
    pub(super) fn is_overloaded(&self) -> bool {
        matches!(&self.failure, Failure::Answer(answer) if answer.outcome == Outcome::Overloaded)
    }

    /// Whether the runner certainly did no work for it.
    pub(super) fn did_nothing(&self) -> bool {
        match &self.failure {
            Failure::NotSent(_) | Failure::Unsupported(_) => true,
            Failure::Answer(answer) => declines(answer.outcome),
            Failure::Fault(..) | Failure::Total | Failure::RequestBody(_) => false,
        }
    }

    /// Whether no other runner could make it good.
    pub(super) fn is_final(&self) -> bool {
        matches!(self.failure, Failure::Total | Failure::RequestBody(_))
    }

    pub(super) fn as_str(&self) -> &'static str {
        match &self.failure {
            Failure::Answer(answer) => answer.outcome.as_str(),
            Failure::NotSent(_) => Outcome::NeverSent.as_str(),
            Failure::Fault(fault, _) => Outcome::RunnerFault(*fault).as_str(),
            Failure::Total => Outcome::Cancelled(Cancel::Deadline).as_str(),
            Failure::RequestBody(_) => Outcome::ClientFault.as_str(),
            Failure::Unsupported(_) => "unsupported",
        }
    }
}

/// What a try has to keep to.
pub(super) struct Conditions {
    pub(super) first_byte: Option<Duration>,
    /// When the time for the whole request is up.
    pub(super) total: Option<Instant>,
    pub(super) repeatable: bool,
    pub(super) verbatim: bool,
}

/// What a link's promise of an answer is.
type Answering<'r> = Pin<Box<dyn Future<Output = Result<LinkResponse, LinkError>> + Send + 'r>>;

/// One try whose request its link has.
pub(super) struct Sent<'r> {
    pub(super) runner: &'r Arc<Runner>,
    pub(super) answering: Result<Answering<'r>, LinkError>,
    pub(super) answer: Box<Answer>,
    pub(super) conditions: Conditions,
}

impl Sent<'_> {
    /// Waits until the answer has begun.
    pub(super) async fn begun(self) -> Result<Box<Answer>, Failed> {
        let Self { runner, answering, mut answer, conditions } = self;
        let (sent, upload) = (answer.attempt.sent, answer.upload().cloned());
        let done = {
            let beginning = pin!(begin(&mut answer, answering, &conditions));
            in_time(beginning, sent, &conditions, upload.as_ref()).await
        };
        judge(answer, done, conditions.total).map_err(|failure| Failed { failure, runner: runner.clone() })
    }
}

/// Waits until the answer has begun, and says whether another runner may do better.
async fn begin(
    answer: &mut Answer,
    answering: Result<Answering<'_>, LinkError>,
    conditions: &Conditions,
) -> Result<bool, LinkError> {
    let (mut head, mut body) = answering?.await?.into_parts();
    let outcome = Outcome::of_status(head.status, conditions.verbatim);
    // Whoever knows the length has written all of it.
    let streamed = !head.headers.contains_key(CONTENT_LENGTH);
    let mut for_another = is_for_another(&head, outcome);
    if for_another {
        answer.attempt.retry_after = retry_after(&head.headers);
        for_another = !conditions.verbatim
            || (conditions.repeatable || declines(outcome))
                && !answer.upload().is_some_and(Progress::has_begun);
    }
    if for_another {
        // Boxed: failures are few, and all requests would carry its size.
        body = Box::pin(last_words(&mut head, body)).await;
    }
    // The head alone proves little: engines send it before they have begun. Until a byte of the body
    // is here, another runner can still do it.
    let at_once = for_another || conditions.verbatim || is_upgraded(&head) || body.is_end_stream();
    answer.outcome = outcome;
    answer.head = Some(head);
    let body = answer.body.insert(body);
    if !at_once {
        answer.first = next_frame(body).await?;
    }
    answer.attempt.streamed = streamed && !for_another;
    answer.attempt.begun();
    Ok(for_another)
}

/// What the try came to.
fn judge(
    mut answer: Box<Answer>,
    done: Result<Result<bool, LinkError>, Late>,
    total: Option<Instant>,
) -> Result<Box<Answer>, Failure> {
    let (outcome, failure) = match done {
        Ok(Ok(false)) => {
            answer.attempt.proved(answer.outcome);
            return Ok(answer);
        }
        Ok(Ok(true)) => {
            // The runner is done with it. Its slot must not wait for what the next one makes of it.
            answer.attempt.finish(answer.outcome);
            let distrusts = |head: &http::response::Parts| matches!(head.status.as_u16(), 401 | 403 | 407);
            let is_own_fault = answer.outcome == Outcome::RunnerFault(Fault::Status);
            return Err(if is_own_fault && answer.head.as_ref().is_some_and(distrusts) {
                Failure::Fault(Fault::Status, None)
            } else {
                Failure::Answer(answer)
            });
        }
        Ok(Err(error)) if error.is_not_sent() => (Outcome::NeverSent, Failure::NotSent(error)),
        Ok(Err(error)) if error.is_request_body() => (Outcome::ClientFault, Failure::RequestBody(error)),
        // Not to be taken for a runner that cannot be reached.
        Ok(Err(error)) if error.is_unsupported() => (Outcome::ClientFault, Failure::Unsupported(error)),
        Ok(Err(error)) if error.is_deadline() => (Outcome::Cancelled(Cancel::Deadline), Failure::Total),
        Ok(Err(error)) => {
            let fault = Fault::Connection;
            (Outcome::RunnerFault(fault), Failure::Fault(fault, Some(error)))
        }
        Err(Late) if total.is_some_and(|total| total <= Instant::now()) => {
            (Outcome::Cancelled(Cancel::Deadline), Failure::Total)
        }
        Err(Late) => {
            let fault = Fault::FirstByteTimeout;
            (Outcome::RunnerFault(fault), Failure::Fault(fault, None))
        }
    };
    // The runner is told to stop before its slot is free.
    answer.body = None;
    answer.attempt.finish(outcome);
    Err(failure)
}

/// The time is up.
struct Late;

/// The time to the first byte counts from the last of the request's own: a long upload is no fault of the
/// runner's.
async fn in_time<T>(
    mut work: Pin<&mut impl Future<Output = T>>,
    sent: Instant,
    conditions: &Conditions,
    upload: Option<&Progress>,
) -> Result<T, Late> {
    loop {
        let began = upload.and_then(Progress::last).map_or(sent, |last| last.max(sent));
        let first_byte = conditions.first_byte.and_then(|limit| began.checked_add(limit));
        let Some(limit) = first_byte.into_iter().chain(conditions.total).min() else {
            return Ok(work.await);
        };
        if let Ok(done) = timeout_at(limit, work.as_mut()).await {
            return Ok(done);
        }
        let is_moving = upload.and_then(Progress::last).is_some_and(|last| last > began);
        if !is_moving || conditions.total.is_some_and(|total| total <= Instant::now()) {
            return Err(Late);
        }
    }
}

async fn next_frame(body: &mut LinkBody) -> Result<Option<Frame<Bytes>>, LinkError> {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await.transpose()
}

/// Whether the runner has changed to another protocol, so that its answer is a connection.
pub(super) fn is_upgraded(head: &http::response::Parts) -> bool {
    head.status == StatusCode::SWITCHING_PROTOCOLS
}

/// Whether a runner that answers so has done nothing.
fn declines(outcome: Outcome) -> bool {
    // "Not implemented" is a fault of the request's.
    matches!(outcome, Outcome::Overloaded | Outcome::ClientFault)
}

/// Whether another runner may do better than this answer.
fn is_for_another(head: &http::response::Parts, outcome: Outcome) -> bool {
    // "Not implemented" is nobody's fault, but another engine may have it.
    matches!(outcome, Outcome::RunnerFault(_) | Outcome::Overloaded)
        || head.status == StatusCode::NOT_IMPLEMENTED
}

/// For how many seconds the runner asks to be left alone. The other form that RFC 9110 (section 10.2.3) allows,
/// a date, is not understood: it is as wrong as the two machines' clocks differ.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
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
