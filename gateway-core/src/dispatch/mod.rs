//! The one way of a request to a runner and of its answer back.

mod attempt;
mod body;
mod budgets;
mod builder;
mod choose;
mod drain;
mod error;
mod explain;
mod find;
mod hedge;
mod limits;
mod load;
mod outcome;
mod plan;
mod run;
mod send;
mod terms;
mod waiting;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use tower_service::Service;

pub use body::DispatchBody;
pub use builder::DispatcherBuilder;
pub use error::{BodyError, DispatchError, DispatchErrorKind};
pub use explain::{Explained, Explanation};
pub use hedge::HedgePolicy;
pub use limits::{Deadlines, RetryPolicy};
pub use outcome::{Attempt, Cancel, Fault, Observer, Outcome};
pub use terms::{NotRepeatable, Terms};
pub use waiting::Claim;

use crate::health::{HealthPolicy, Outliers, Standing};
use crate::lifecycle::Lifecycle;
use crate::link::LinkRequest;
use crate::names::{ModelId, RequestId};
use crate::permit::Permit;
use crate::queue::QueueReport;
use crate::registry::Registry;
use crate::router::Requirements;
use crate::routes::ModelRoutes;
use crate::runner::Runner;
use budgets::Budgets;
use choose::Chooser;
use drain::Drain;
use waiting::Queue;

/// A request for the dispatcher.
#[derive(Debug)]
pub struct Dispatch {
    /// Its name in logs and errors.
    pub id: RequestId,
    /// Method, path and query, headers and body as they should reach the runner. Hop-by-hop headers and
    /// credentials must be gone.
    pub request: LinkRequest,
    /// What it needs.
    pub requirements: Requirements,
    /// On whose account it is, and how it waits for a slot.
    pub claim: Claim,
    /// What it holds of its tenant's limits. Given back with the answer's end.
    pub permit: Permit,
    /// How it wants to be carried.
    pub terms: Terms,
}

/// An answer, and how it came about.
#[derive(Debug)]
#[must_use = "dropping the answer cancels the request"]
pub struct Dispatched {
    /// The runner's answer. Its body owns reservation and permit.
    pub response: http::Response<DispatchBody>,
    /// Who gives it.
    pub runner: Arc<Runner>,
    /// With which model: the one that the request names, or one that the name stands for.
    pub model: Option<ModelId>,
    /// On how many runners it was tried, this one included.
    pub tries: u32,
    /// The balancer's name.
    pub strategy: &'static str,
    /// Why the balancer chose this runner, if it says so.
    pub reason: Option<&'static str>,
    /// Whether a fallback serves because nobody could serve what was asked for.
    pub is_fallback: bool,
    /// Whether it was sent to a second runner because the first took long.
    pub hedged: bool,
    /// How long it waited for a slot.
    pub waited: Duration,
    /// When this try was sent to the runner.
    pub sent: Instant,
    /// When the first byte of the answer's body was here.
    pub first_byte: Instant,
}

/// Brings a request to a runner and the answer back: route, pick and reserve, send, retry elsewhere until
/// the first byte, and an answer whose body owns the reservation. A [`tower_service::Service`].
///
/// **Cancel safety.** Dropping the future cancels the work on the runner and gives the slot back; so does
/// dropping the answer's body.
///
/// Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

struct Shared {
    chooser: Chooser,
    observers: Vec<Arc<dyn Observer>>,
    deadlines: Deadlines,
    retry: RetryPolicy,
    hedge: Option<HedgePolicy>,
    budgets: Budgets,
    routes: Arc<ModelRoutes>,
    queue: Arc<Queue>,
    lifecycle: Lifecycle,
    outliers: Outliers,
    drain: Arc<Drain>,
}

impl Dispatcher {
    /// A dispatcher over these runners; see [`DispatcherBuilder`] for what else can be set.
    pub fn builder(registry: Arc<dyn Registry>) -> DispatcherBuilder {
        DispatcherBuilder::new(registry)
    }

    /// The runners that it dispatches to.
    pub fn registry(&self) -> &Arc<dyn Registry> {
        &self.shared.chooser.registry
    }

    /// The queue at this moment. Costs a pass over those who wait.
    pub fn queue(&self) -> QueueReport {
        self.shared.queue.report()
    }

    /// How many requests wait for a slot; one read.
    pub fn queue_depth(&self) -> usize {
        self.shared.queue.depth()
    }

    /// What loads and unloads models. The host runs [`Lifecycle::tend`] if idle models are to be unloaded.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.shared.lifecycle
    }

    /// Names that stand for models.
    pub fn routes(&self) -> &ModelRoutes {
        &self.shared.routes
    }

    /// Whether the balancer uses the hashes of prompts; see [`Balancer::reads_prompts`](crate::Balancer::reads_prompts).
    pub fn reads_prompts(&self) -> bool {
        self.shared.chooser.balancer.reads_prompts()
    }

    /// What decides whether a runner deserves requests.
    pub fn health(&self) -> &HealthPolicy {
        &self.shared.chooser.health
    }

    /// What a runner's conduct has earned it, as of now.
    pub fn standing(&self, runner: &Runner) -> Standing {
        runner.standing(Instant::now(), &self.shared.chooser.health)
    }

    /// Requests under way: waiting for an answer, or with an answer whose body has not ended.
    pub fn in_flight(&self) -> usize {
        self.shared.drain.in_flight()
    }

    /// Takes nothing new from now on. What is under way goes on.
    pub fn close(&self) {
        self.shared.drain.close();
    }

    /// Whether it takes nothing new.
    pub fn is_closed(&self) -> bool {
        self.shared.drain.is_closed()
    }

    /// Waits until nothing is under way. Cancel safe.
    pub async fn idle(&self) {
        self.shared.drain.idle().await;
    }

    /// Brings one request to a runner. What [`Service::call`] does, without the box around the future. The request counts
    /// as under way from the call on.
    pub fn dispatch(
        &self,
        call: Dispatch,
    ) -> impl Future<Output = Result<Dispatched, DispatchError>> + Send + '_ {
        run::run(&self.shared, call)
    }
}

impl Service<Dispatch> for Dispatcher {
    type Response = Dispatched;
    type Error = DispatchError;
    type Future = Pin<Box<dyn Future<Output = Result<Dispatched, DispatchError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DispatchError>> {
        // Whether there is room depends on what the request needs, so it is found out in `call`.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Dispatch) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move { run::run(&shared, call).await })
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher")
            .field("balancer", &self.shared.chooser.balancer.name())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}
