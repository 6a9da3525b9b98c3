//! One request on its way: over an idle connection if there is one, over a new one if that has died.

use std::future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use gateway_core::{LinkBody, LinkError, LinkRequest, LinkResponse, NotRepeatable, RequestBody, UpgradeTo};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body;
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::HttpLink;
use super::answer::{Answer, strip_hop_by_hop};
use super::connection::{Connection, Failure, Head};
use super::outgoing::{BodyFault, Outgoing};
use super::spare::Spare;
use super::upgraded::UpgradedBody;

/// A close that was on its way when the request went out shows within a round trip. Later than this the
/// runner died while it worked, and the request must not kill it twice.
const CROSSED: Duration = Duration::from_secs(1);

/// What [`RunnerLink::send`](gateway_core::RunnerLink::send) gives.
pub(crate) type LinkFuture<'l> = Pin<Box<dyn Future<Output = Result<LinkResponse, LinkError>> + Send + 'l>>;

/// The head of an answer, and the connection over which it came.
type Exchanged = Result<(Response<Incoming>, Connection), LinkError>;

pin_project! {
    /// A request that goes out over a connection that was idle; if that has died, once more over a new one.
    struct OverIdle<'l, H> {
        link: &'l HttpLink,
        #[pin]
        head: H,
        // `None` once the request goes another way.
        over: Option<(Connection, Spare)>,
        // It must not be seen twice.
        once: bool,
        since: Instant,
        // Boxed: it is seldom needed.
        again: Option<Pin<Box<dyn Future<Output = Exchanged> + Send + 'l>>>,
    }
}

impl<H: Head> Future for OverIdle<'_, H> {
    type Output = Exchanged;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Exchanged> {
        let this = self.project();
        if let Some((connection, _)) = this.over {
            let done = ready!(connection.poll_head(cx, this.head));
            match (done, this.over.take()) {
                (Ok(answer), Some((connection, _))) => return Poll::Ready(Ok((answer, connection))),
                (Err(failure), Some((connection, spare))) => {
                    drop(connection);
                    *this.again = Some(Box::pin(this.link.again(failure, spare, *this.once, *this.since)));
                }
                (_, None) => {}
            }
        }
        // Without it it is done, and nobody asks again.
        this.again.as_mut().map_or(Poll::Pending, |again| again.as_mut().poll(cx))
    }
}

impl HttpLink {
    /// What can be done at once is done before the future is made, and what is rare is in a box of its own: the future of a
    /// request over an idle connection is small.
    pub(super) fn exchange(&self, mut request: LinkRequest) -> LinkFuture<'_> {
        if let Err(error) = self.prepare(&mut request) {
            return Box::pin(future::ready(Err(error)));
        }
        if let Some(UpgradeTo(protocol)) = request.extensions().get() {
            let protocol = protocol.clone();
            return Box::pin(self.exchange_upgrade(request, protocol));
        }
        let answer = |done: Exchanged| done.and_then(|(answer, connection)| self.answer(answer, connection));
        let now = Instant::now();
        match self.idle(&request, now) {
            Some(connection) => Box::pin(self.over_idle(connection, request, now).map(answer)),
            None => Box::pin(self.over_new(request).map(answer)),
        }
    }

    /// An idle connection that this request may go over.
    fn idle(&self, request: &LinkRequest, now: Instant) -> Option<Connection> {
        // What cannot be sent twice goes over a connection that cannot have died unnoticed.
        if Spare::is_possible(request.body()) { self.pool.check_out(now) } else { None }
    }

    /// Hands the request over at once: it is in nobody's state but the connection's.
    fn over_idle(
        &self,
        mut connection: Connection,
        request: LinkRequest,
        since: Instant,
    ) -> OverIdle<'_, impl Head + use<>> {
        let once = request.extensions().get::<NotRepeatable>().is_some();
        let (request, spare) = Spare::split(request);
        let head = connection.send(request);
        OverIdle { link: self, head, over: Some((connection, spare)), once, since, again: None }
    }

    /// What was idle has failed: once more over a new connection, if that may be.
    async fn again(&self, failure: Failure, spare: Spare, once: bool, since: Instant) -> Exchanged {
        let Failure { unsent, error } = failure;
        if is_body_fault(&error) {
            return Err(LinkError::request_body(error));
        }
        self.pool.check_open().map_err(|_| LinkError::lost("its link was closed"))?;
        if unsent.is_none() && error.is_parse() {
            return Err(lost(error));
        }
        // The runner closed the connection while it was idle, as it may at any time: not a failure.
        let seen = unsent.is_none();
        if seen && (once || since.elapsed() > CROSSED) {
            return Err(lost(error));
        }
        match unsent.map(|request| *request).or_else(|| spare.into_request()) {
            Some(request) => self.send_anew(request, seen).await,
            None => Err(lost(error)),
        }
    }

    async fn over_new(&self, request: LinkRequest) -> Exchanged {
        self.pool.check_open()?;
        self.send_anew(request.map(Outgoing::once), false).await
    }

    /// Sends over a new connection. `seen`: the runner may have seen the request already.
    async fn send_anew(&self, request: Request<Outgoing>, seen: bool) -> Exchanged {
        let mut connection = match self.pool.open(&self.address).await {
            Ok(connection) => connection,
            Err(error) if seen => {
                return Err(LinkError::lost("it closed the connection and takes no new one").because(error));
            }
            Err(error) => return Err(error),
        };
        match connection.exchange(request).await {
            Ok(answer) => Ok((answer, connection)),
            Err(Failure { error, .. }) if is_body_fault(&error) => Err(LinkError::request_body(error)),
            Err(Failure { unsent: Some(_), error }) if !seen => {
                Err(LinkError::not_sent("the connection was lost at once").because(error))
            }
            Err(Failure { error, .. }) => Err(lost(error)),
        }
    }

    /// Asks for another protocol. The request's own body waits until the runner has changed to it.
    async fn exchange_upgrade(
        &self,
        request: LinkRequest,
        protocol: HeaderValue,
    ) -> Result<LinkResponse, LinkError> {
        let (mut head, upload) = request.into_parts();
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(header::UPGRADE, protocol);
        let request = Request::from_parts(head, RequestBody::empty());
        let now = Instant::now();
        let (mut answer, mut connection) = match self.idle(&request, now) {
            Some(connection) => self.over_idle(connection, request, now).await?,
            None => self.over_new(request).await?,
        };
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return self.answer(answer, connection);
        }
        let changing = hyper::upgrade::on(&mut answer);
        let io = connection.upgraded(changing).await.map_err(lost)?;
        let (mut head, _) = answer.into_parts();
        let chosen = head.headers.remove(header::UPGRADE);
        tidy(&mut head);
        if let Some(chosen) = chosen {
            head.headers.insert(header::UPGRADE, chosen);
        }
        let body = UpgradedBody::new(io, upload, connection, self.pool.closed());
        Ok(Response::from_parts(head, LinkBody::new(body)))
    }

    /// Makes the head what has to be on the wire.
    fn prepare(&self, request: &mut LinkRequest) -> Result<(), LinkError> {
        let uri = std::mem::take(request.uri_mut());
        *request.uri_mut() = self
            .address
            .wire_uri(uri)
            .ok_or(LinkError::not_sent("the request's path is too long behind the address's own"))?;
        *request.version_mut() = Version::HTTP_11;
        let is_upgrade = request.extensions().get::<UpgradeTo>().is_some();
        let empty = request.body().is_end_stream() && takes_body(request.method());
        // hyper would send nothing of a body that these methods hardly ever have, unless it is announced.
        let odd = !is_upgrade && !request.body().is_end_stream() && request.body().len().is_none();
        let odd = odd && matches!(*request.method(), Method::GET | Method::HEAD);
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.address.host_header().clone());
        if empty {
            // Some servers wait for a body unless they are told that there is none.
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if odd {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        Ok(())
    }

    fn answer(&self, answer: Response<Incoming>, connection: Connection) -> Result<LinkResponse, LinkError> {
        let (mut head, body) = answer.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(LinkError::lost("it switched protocols unasked"));
        }
        tidy(&mut head);
        let body = LinkBody::new(Answer::new(body, connection, self.pool.clone()));
        Ok(Response::from_parts(head, body))
    }
}

fn tidy(head: &mut http::response::Parts) {
    strip_hop_by_hop(&mut head.headers);
    // What hyper notes of the connection is nobody's business, nor is the version behind the gateway.
    head.extensions = http::Extensions::new();
    head.version = Version::HTTP_11;
}

fn takes_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

fn is_body_fault(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<BodyFault>())
}

fn lost(error: hyper::Error) -> LinkError {
    let context = if error.is_parse() { "it did not answer in HTTP" } else { "no answer came" };
    LinkError::lost(context).because(error)
}
