//! The connections of one link.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use gateway_core::LinkError;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::alarm::Alarm;
use super::connection::{Connection, Wire};
use crate::address::Address;

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) connect_timeout: Duration,
    pub(super) max_connections: usize,
    pub(super) max_idle: usize,
    pub(super) idle_timeout: Duration,
}

/// Idle connections, and a hold on those in use, so that all of them can be cut.
pub(super) struct Pool {
    limits: Limits,
    /// Both locks are held for a push, a pop or a look, never while something is polled or dropped.
    idle: Mutex<Idle>,
    wires: Mutex<Wires>,
    seats: Arc<Semaphore>,
    closed: CancellationToken,
    /// Rung by idle connections that the runner has closed.
    stirred: Arc<Notify>,
}

struct Idle {
    /// The one used last is on top: the fewest stay warm, and the bottom is the oldest.
    stack: Vec<Parked>,
    swept: bool,
    closed: bool,
}

struct Parked {
    connection: Connection,
    since: Instant,
}

#[derive(Default)]
struct Wires {
    next: u64,
    open: HashMap<u64, Arc<Wire>>,
    closed: bool,
}

/// A connection's place among the most that there may be. Given back when the connection is dropped.
pub(super) struct Seat {
    pool: Weak<Pool>,
    key: u64,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            let wire = lock(&pool.wires).open.remove(&self.key);
            drop(wire);
        }
    }
}

impl Pool {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            idle: Mutex::new(Idle { stack: Vec::new(), swept: false, closed: false }),
            wires: Mutex::default(),
            seats: Arc::new(Semaphore::new(limits.max_connections)),
            closed: CancellationToken::new(),
            stirred: Arc::default(),
        })
    }

    /// The idle connection that was used last, if there is one that still lives.
    pub(super) fn check_out(&self, now: Instant) -> Option<Connection> {
        loop {
            let mut idle = lock(&self.idle);
            let parked = idle.stack.pop()?;
            if now.saturating_duration_since(parked.since) >= self.limits.idle_timeout {
                // All others are older.
                let rest = std::mem::take(&mut idle.stack);
                drop(idle);
                drop(rest);
                return None;
            }
            drop(idle);
            if parked.connection.is_fresh() {
                return Some(parked.connection);
            }
        }
    }

    /// Keeps a connection for the next request, or closes it if there are enough.
    pub(super) fn check_in(self: &Arc<Self>, connection: Connection) {
        connection.rest();
        let mut idle = lock(&self.idle);
        if idle.closed || idle.stack.len() >= self.limits.max_idle {
            drop(idle);
            return drop(connection);
        }
        idle.stack.push(Parked { connection, since: Instant::now() });
        if !idle.swept {
            idle.swept = self.start_sweeper();
        }
    }

    /// Makes a new connection.
    pub(super) async fn open(self: &Arc<Self>, address: &Address) -> Result<Connection, LinkError> {
        let Ok(permit) = self.seats.clone().try_acquire_owned() else {
            return Err(LinkError::not_sent("it has the most connections already that its link may make"));
        };
        let connect = tokio::time::timeout(self.limits.connect_timeout, address.connect());
        let connected = tokio::select! {
            biased;
            () = self.closed.cancelled() => return Err(closed()),
            connected = connect => connected,
        };
        let stream = match connected {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(LinkError::not_sent("cannot connect").because(error)),
            Err(_) => return Err(LinkError::not_sent("no connection in time")),
        };
        let seat = {
            let mut wires = lock(&self.wires);
            wires.next += 1;
            Seat { pool: Arc::downgrade(self), key: wires.next, _permit: permit }
        };
        let key = seat.key;
        let connection = Connection::open(stream, Alarm::new(self.stirred.clone()), seat)
            .await
            .map_err(|error| LinkError::not_sent("cannot start HTTP").because(error))?;
        let mut wires = lock(&self.wires);
        if wires.closed {
            drop(wires);
            return Err(closed());
        }
        wires.open.insert(key, connection.wire().clone());
        Ok(connection)
    }

    /// Ready when every connection is to end.
    pub(super) fn closed(&self) -> WaitForCancellationFutureOwned {
        self.closed.clone().cancelled_owned()
    }

    pub(super) fn check_open(&self) -> Result<(), LinkError> {
        if lock(&self.idle).closed { Err(closed()) } else { Ok(()) }
    }

    /// Closes every connection, in use or not, and lets none be made any more.
    pub(super) fn close(&self) {
        self.closed.cancel();
        let parked = {
            let mut idle = lock(&self.idle);
            idle.closed = true;
            std::mem::take(&mut idle.stack)
        };
        let open = {
            let mut wires = lock(&self.wires);
            wires.closed = true;
            std::mem::take(&mut wires.open)
        };
        drop(parked);
        open.values().for_each(|wire| wire.cut());
    }

    /// Starts the task that closes what is too old or dead. It ends when nothing is idle or the pool
    /// closes. Without a runtime it is left for a later time: old connections are never used anyway.
    fn start_sweeper(self: &Arc<Self>) -> bool {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return false };
        let (pool, closed, stirred) = (Arc::downgrade(self), self.closed.clone(), self.stirred.clone());
        let mut next = Instant::now() + self.limits.idle_timeout;
        runtime.spawn(async move {
            loop {
                tokio::select! {
                    () = closed.cancelled() => return,
                    () = stirred.notified() => {}
                    () = tokio::time::sleep_until(next) => {}
                }
                let Some(pool) = pool.upgrade() else { return };
                match pool.sweep() {
                    Some(oldest) => next = oldest + pool.limits.idle_timeout,
                    None => return,
                }
            }
        });
        true
    }

    /// Closes what is too old or dead. Gives the age of the oldest that stays; with none left, the sweeper
    /// has to be started anew.
    fn sweep(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut idle = lock(&self.idle);
        let limit = self.limits.idle_timeout;
        let gone: Vec<Parked> = idle
            .stack
            .extract_if(.., |parked| !parked.connection.is_fresh() || now - parked.since >= limit)
            .collect();
        let oldest = idle.stack.first().map(|parked| parked.since);
        idle.swept = oldest.is_some();
        drop(idle);
        drop(gone);
        oldest
    }
}

fn closed() -> LinkError {
    LinkError::not_sent("its link is closed")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
