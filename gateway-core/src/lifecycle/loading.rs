//! What a request holds while it waits for a model to be loaded.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::futures::Notified;
use tokio::time::{Instant, sleep};

use super::Inner;
use super::error::LoadError;
use super::line::News;
use super::state::{Ask, Work};
use crate::bell::Waiting;

/// A model that is being loaded, or will be as soon as there is room. Made by
/// [`Lifecycle::ensure`](super::Lifecycle::ensure), one for each request that waits.
///
/// All that wait for the same load drive it together: it goes on as long as one of them is held *and*
/// waited for with [`wait`](Loading::wait). When the last one is dropped the load is given up: its command's
/// future is dropped, and the fleet shows the model as the runner last reported it.
///
/// Hold it until the request has a reservation: a model is not evicted while somebody for whom it was loaded
/// has not yet had his turn.
#[must_use = "dropping it stops waiting for the model"]
pub struct Loading {
    inner: Arc<Inner>,
    ask: Arc<Ask>,
    stage: Stage,
    _bell: Waiting,
}

pub(super) enum Stage {
    /// Somebody can serve.
    Ready,
    /// A load is under way.
    Job(Held),
    /// It is loaded by another's order.
    Coming,
    /// There is no room; in line with others.
    Room,
}

/// A share of a job.
pub(super) struct Held {
    pub(super) inner: Arc<Inner>,
    pub(super) id: u64,
    pub(super) work: Work,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.inner.let_go(self.id);
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        self.inner.waiting.fetch_sub(1, Ordering::SeqCst);
        self.step_out();
    }
}

impl Loading {
    /// How often it is looked whether there is room although nothing has rung: a report that tells of no
    /// more than load, and a pause that has ended, ring no bell.
    const LOOK_AGAIN: Duration = Duration::from_secs(1);
    /// How often those behind see whether the first in line looks at all: it may be held and not waited for.
    const RELIEF: Duration = Duration::from_secs(5);

    /// `None` if too many wait already.
    pub(super) fn new(inner: Arc<Inner>, ask: Ask) -> Option<Self> {
        let most = inner.rules().policy.max_waiting;
        let one_more = |waiting: usize| (waiting < most).then(|| waiting + 1);
        inner.waiting.fetch_update(Ordering::SeqCst, Ordering::Relaxed, one_more).ok()?;
        let bell = inner.registry.fleet().bell().wait();
        Some(Self { inner, ask: Arc::new(ask), stage: Stage::Ready, _bell: bell })
    }

    /// Finds out what to wait for. `false` if there is nothing.
    pub(super) fn look(&mut self, news: News) -> bool {
        let stage = self.inner.advance(&self.ask, &news);
        let is_some = stage.is_some();
        // The old one is dropped here, without the lock.
        self.stage = stage.unwrap_or(Stage::Ready);
        is_some
    }

    /// Waits until a runner can serve the request (it may be full), having the model loaded on one runner
    /// after the other if need be.
    ///
    /// Without a limit of its own while there is no room; the caller sets one by dropping the future. Cancel
    /// safe: it can be called again, and others who wait do not notice.
    ///
    /// # Errors
    /// Why the last load failed, when nobody is left to try.
    pub async fn wait(&mut self) -> Result<(), LoadError> {
        let inner = self.inner.clone();
        let mut last = None;
        let mut news = News::Anywhere;
        loop {
            // Listening before looking: what changes after the look is not missed.
            let mut fleet_changed = pin!(inner.fleet_changed.notified());
            fleet_changed.as_mut().enable();
            if !matches!(news, News::On(_)) && inner.is_ready(&self.ask) {
                self.step_out();
                return Ok(());
            }
            if !matches!(self.stage, Stage::Job(_)) {
                self.look_again(std::mem::take(&mut news), &mut last)?;
            }
            match &self.stage {
                Stage::Ready => return Ok(()),
                Stage::Job(held) => {
                    let Either::Left((done, _)) = select(held.work.clone(), fleet_changed).await else {
                        continue;
                    };
                    if let Err(error) = done {
                        last = Some(error).filter(|error| !error.is_passing()).or(last);
                    } else if inner.is_ready(&self.ask) {
                        return Ok(());
                    }
                    self.look_again(News::Anywhere, &mut last)?;
                }
                Stage::Coming => {
                    select(fleet_changed, pin!(sleep(Self::LOOK_AGAIN))).await;
                }
                Stage::Room => news = self.turn(fleet_changed).await,
            }
        }
    }

    /// Waits until it is to look for room, and says where.
    async fn turn(&self, mut fleet_changed: Pin<&mut Notified<'_>>) -> News {
        let (inner, ask) = (&self.inner, &self.ask);
        let mut called = pin!(ask.call.notified());
        loop {
            let is_first = inner.line().is_first(ask);
            let pause = pin!(sleep(if is_first { Self::LOOK_AGAIN } else { Self::RELIEF }));
            let changed = async {
                if is_first {
                    fleet_changed.as_mut().await;
                } else {
                    // The first hears of it, and calls those behind if it is something for them.
                    std::future::pending::<()>().await;
                }
            };
            match select(called.as_mut(), select(pin!(changed), pause)).await {
                Either::Left(_) => match inner.line().news(ask) {
                    News::None => called.set(ask.call.notified()),
                    news => return news,
                },
                Either::Right(_) if is_first => return News::Anywhere,
                Either::Right(_) => {
                    if inner.line().is_overdue(ask, Instant::now(), Self::RELIEF) {
                        return News::Anywhere;
                    }
                }
            }
        }
    }

    /// Whether nothing is under way for it: it waits for others to leave room.
    pub(crate) fn lacks_room(&self) -> bool {
        matches!(self.stage, Stage::Room)
    }

    /// Leaves the line, if it is in it, to those behind: they have to see for themselves.
    fn step_out(&mut self) {
        if matches!(self.stage, Stage::Room) {
            self.stage = Stage::Ready;
            self.inner.leave_line(&self.ask);
        }
    }

    fn look_again(&mut self, news: News, last: &mut Option<LoadError>) -> Result<(), LoadError> {
        if self.look(news) {
            return Ok(());
        }
        Err(last.take().unwrap_or_else(|| LoadError::Nobody { model: self.ask.model.clone() }))
    }
}

impl fmt::Debug for Loading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            Stage::Ready => "ready",
            Stage::Job(_) => "loading",
            Stage::Coming => "coming",
            Stage::Room => "waiting for room",
        };
        f.debug_struct("Loading")
            .field("model", &self.ask.model)
            .field("stage", &stage)
            .finish_non_exhaustive()
    }
}
