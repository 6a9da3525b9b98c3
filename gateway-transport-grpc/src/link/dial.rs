//! The connection there is, or the way to the next one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gateway_core::{Backoff, CancellationToken, LinkError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::connection::{Live, TooManyPings, Wire, drive};
use super::detect::detect;
use super::settings::Settings;
use crate::address::Stream;
use crate::contract::Dialect;

/// The pause after a connection could not be made, before the next is tried: a worker that restarts is back
/// within a second or two, and one that is gone is asked for every five seconds at most.
const PAUSES: (Duration, Duration, f64) = (Duration::from_millis(100), Duration::from_secs(5), 0.5);

/// Pings further apart than this are no use.
const SLOWEST_PINGS: Duration = Duration::from_secs(3600);

/// Why there is no connection.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum DialError {
    #[error("it could not be connected: {0}")]
    Connect(Arc<std::io::Error>),
    #[error("it did not answer within {0:?}")]
    Timeout(Duration),
    #[error("it does not speak HTTP/2: {0}")]
    Http2(Arc<h2::Error>),
    #[error("its dialect could not be found out: {0}")]
    Detect(Arc<super::detect::DetectError>),
}

#[derive(Clone)]
enum Phase {
    Down {
        /// No new try before that.
        until: Instant,
        error: Option<DialError>,
    },
    Dialling,
    Up(Arc<Live>),
    Closed,
}

/// Keeps one connection, and makes a new one when somebody needs it.
pub(super) struct Dialler {
    pub(super) settings: Arc<Settings>,
    phase: watch::Sender<Phase>,
    work: Mutex<Work>,
    backoff: Backoff,
}

struct Work {
    /// One per connection. Those that their worker takes nothing new on end with their last call.
    tasks: JoinSet<()>,
    keepalive: Duration,
    failures: u32,
}

impl Dialler {
    pub(super) fn new(settings: Settings) -> Arc<Self> {
        let (shortest, longest, jitter) = PAUSES;
        let down = Phase::Down { until: Instant::now(), error: None };
        Arc::new(Self {
            work: Mutex::new(Work { tasks: JoinSet::new(), keepalive: settings.keepalive, failures: 0 }),
            settings: Arc::new(settings),
            phase: watch::Sender::new(down),
            backoff: Backoff::new(shortest, longest, jitter).unwrap_or_default(),
        })
    }

    /// The connection; waits while it is made. Cancel safe: it is made all the same.
    pub(super) async fn live(self: &Arc<Self>) -> Result<Arc<Live>, LinkError> {
        if let Phase::Up(live) = &*self.phase.borrow()
            && !live.is_over()
        {
            return Ok(live.clone());
        }
        let mut phases = self.phase.subscribe();
        let mut waited = false;
        loop {
            // Not to be held while anything else is done.
            let phase = phases.borrow_and_update().clone();
            match phase {
                Phase::Up(live) if !live.is_over() => return Ok(live),
                Phase::Closed => return Err(LinkError::not_sent("the link is closed")),
                Phase::Down { until, error } if waited || Instant::now() < until => {
                    let failed = LinkError::not_sent("no connection to the worker");
                    return Err(match error {
                        Some(error) => failed.because(error),
                        None => failed,
                    });
                }
                Phase::Down { .. } | Phase::Up(_) => self.dial(),
                Phase::Dialling => {}
            }
            waited = true;
            if phases.changed().await.is_err() {
                return Err(LinkError::not_sent("the link is closed"));
            }
        }
    }

    /// No new call goes over this connection: it will end with those that it has.
    pub(super) fn spent(&self, live: &Arc<Live>) {
        self.phase.send_if_modified(|phase| {
            let is_it = matches!(phase, Phase::Up(up) if Arc::ptr_eq(up, live));
            if is_it {
                *phase = Phase::Down { until: Instant::now(), error: None };
            }
            is_it
        });
    }

    /// The dialect of the connection there is.
    pub(super) fn dialect(&self) -> Option<Dialect> {
        match &*self.phase.borrow() {
            Phase::Up(live) if !live.is_over() => Some(live.dialect),
            _ => None,
        }
    }

    /// How many calls at once the worker allows, if there is a connection and it allows less than was set.
    pub(super) fn allowed(&self) -> Option<usize> {
        let most = match &*self.phase.borrow() {
            Phase::Up(live) => live.wire.most_calls(),
            _ => return None,
        };
        Some(most).filter(|most| *most < self.settings.max_streams as usize)
    }

    pub(super) fn close(&self) {
        let mut work = self.lock();
        self.phase.send_replace(Phase::Closed);
        work.tasks.abort_all();
    }

    fn dial(self: &Arc<Self>) {
        let mut work = self.lock();
        let begins = self.phase.send_if_modified(|phase| {
            let free = match phase {
                Phase::Down { .. } => true,
                Phase::Up(live) => live.is_over(),
                Phase::Dialling | Phase::Closed => false,
            };
            if free {
                *phase = Phase::Dialling;
            }
            free
        });
        if begins {
            // The set keeps what has ended until it is asked.
            while work.tasks.try_join_next().is_some() {}
            work.tasks.spawn(self.clone().run());
        }
    }

    async fn run(self: Arc<Self>) {
        // Whatever happens in here, nobody waits for ever.
        let mut dialling = Dialling { dialler: &self, done: false };
        let limit = self.settings.connect_timeout;
        let connected = match timeout(limit, self.settings.address.connect()).await {
            Ok(Ok(stream)) => match stream {
                Stream::Tcp(stream) => self.serve(stream, &mut dialling).await,
                #[cfg(unix)]
                Stream::Unix(stream) => self.serve(stream, &mut dialling).await,
            },
            Ok(Err(error)) => Err(DialError::Connect(Arc::new(error))),
            Err(_) => Err(DialError::Timeout(limit)),
        };
        if let Err(error) = connected {
            tracing::debug!(address = %self.settings.address, %error, "no connection to a worker");
            dialling.failed(Some(error));
        }
    }

    /// Opens a connection over the socket, and drives it to its end.
    async fn serve<T>(&self, io: T, dialling: &mut Dialling<'_>) -> Result<(), DialError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let opened = Wire::open(io, self.settings.clone()).await;
        let (wire, connection) = opened.map_err(|error| DialError::Http2(Arc::new(error)))?;
        let keepalive = self.lock().keepalive;
        let mut driven = std::pin::pin!(drive(connection, wire.clone(), keepalive));
        let detecting = timeout(self.settings.question_timeout, detect(&wire, self.settings.dialect));
        let dialect = tokio::select! {
            biased;
            detected = detecting => match detected {
                Ok(Ok(dialect)) => dialect,
                Ok(Err(error)) => return Err(DialError::Detect(Arc::new(error))),
                Err(_) => return Err(DialError::Timeout(self.settings.question_timeout)),
            },
            ended = &mut driven => {
                self.mind(&ended);
                let ended = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                return Err(DialError::Connect(Arc::new(ended)));
            }
        };
        let over = CancellationToken::new();
        let _over = over.clone().drop_guard();
        dialling.up(Arc::new(Live { wire, dialect, over }));
        let ended = driven.await;
        self.mind(&ended);
        Ok(())
    }

    /// As gRPC's keepalive has it: a server that finds the pings too many gets half as many.
    fn mind(&self, ended: &Result<(), TooManyPings>) {
        if ended.is_err() {
            let mut work = self.lock();
            work.keepalive = work.keepalive.saturating_mul(2).min(SLOWEST_PINGS);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A try that is under way. Dropped before it is known how it went, it has failed.
struct Dialling<'a> {
    dialler: &'a Dialler,
    done: bool,
}

impl Dialling<'_> {
    fn up(&mut self, live: Arc<Live>) {
        self.dialler.lock().failures = 0;
        self.end(Phase::Up(live));
    }

    fn failed(&mut self, error: Option<DialError>) {
        if self.done {
            return;
        }
        let mut work = self.dialler.lock();
        let failures = work.failures;
        work.failures = failures.saturating_add(1);
        drop(work);
        let until = Instant::now() + self.dialler.backoff.pause(failures);
        self.end(Phase::Down { until, error });
    }

    fn end(&mut self, with: Phase) {
        self.done = true;
        self.dialler.phase.send_if_modified(|phase| {
            let is_open = matches!(phase, Phase::Dialling);
            if is_open {
                *phase = with;
            }
            is_open
        });
    }
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        self.failed(None);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::link::GrpcLink;

    #[tokio::test]
    async fn a_worker_that_finds_pings_too_many_gets_half_as_many() {
        let dialler = GrpcLink::new("127.0.0.1:1").unwrap().dialler.clone();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let complains = async {
            let mut far = h2::server::handshake(far).await.unwrap();
            far.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
            let _: Option<Result<(http::Request<_>, h2::server::SendResponse<Bytes>), _>> =
                far.accept().await;
        };
        let drives = async {
            let (wire, connection) = Wire::open(near, dialler.settings.clone()).await.unwrap();
            // Somebody still wants it.
            let _kept = wire.clone();
            drive(connection, wire, GrpcLink::KEEPALIVE).await
        };
        let ((), ended) = tokio::join!(complains, drives);
        assert_eq!(ended, Err(TooManyPings));
        dialler.mind(&ended);
        assert_eq!(dialler.lock().keepalive, GrpcLink::KEEPALIVE * 2);
        for _ in 0..20 {
            dialler.mind(&ended);
        }
        assert_eq!(dialler.lock().keepalive, SLOWEST_PINGS);
        dialler.mind(&Ok(()));
        assert_eq!(dialler.lock().keepalive, SLOWEST_PINGS, "it is remembered");
    }
}
