//! The heart of the inference gateway: which runners there are, which of them serves a request, and the
//! one path on which request and answer travel.
//!
//! This crate knows no protocol. It has no HTTP server, opens no socket and parses no API's JSON;
//! transport crates implement [`RunnerLink`], `gateway-http` makes a service of it all. What strangers
//! implement is here: [`Registry`], [`Router`], [`Balancer`], [`RunnerLink`], [`RunnerSource`],
//! [`Inventory`], [`Observer`].
//!
//! # The way of a request
//!
//! [`Dispatcher`] takes a [`Dispatch`] and gives a [`Dispatched`]:
//!
//! 1. the [`Router`] says which runners of the [`Fleet`] could serve it;
//! 2. the [`Balancer`] picks one, and the pick *is* the [`Reservation`];
//! 3. the runner's [`RunnerLink`] carries request and answer;
//! 4. if the runner fails before the first byte, another is tried;
//! 5. the answer's body ([`DispatchBody`]) owns reservation and [`Permit`] and gives both back when it
//!    ends, fails or is dropped.
//!
//! ```
//! use std::sync::Arc;
//! use gateway_core::{Dispatcher, InMemoryRegistry, LeastLoaded};
//!
//! let registry = Arc::new(InMemoryRegistry::new());
//! let dispatcher = Dispatcher::builder(registry.clone())
//!     .balancer(Arc::new(LeastLoaded::default()))
//!     .build();
//! # let _ = dispatcher;
//! ```
//!
//! # What it does not do
//!
//! It installs nothing: no logger, metrics recorder, panic hook, signal handler or runtime. It logs
//! through `tracing` to whatever the host has set up, and needs a tokio runtime with time enabled.
//!
//! # Cancel safety
//!
//! Every future may be dropped at any moment. Dropping one that carries a request cancels the work on the
//! runner and gives the slot back.

mod balance;
mod bell;
mod body;
mod command;
mod dispatch;
mod error;
mod features;
mod fleet;
mod health;
mod inventory;
mod lifecycle;
mod link;
mod names;
mod peer;
mod permit;
mod queue;
mod registry;
mod retry;
mod router;
mod routes;
mod runner;
mod source;
mod stream;
mod upgrade;
mod window;
mod workload;

pub use balance::pipeline::{self, Pipeline};
pub use balance::{
    Balancer, BestFit, Candidates, CostAware, Forecast, LeastLoaded, LeastTokens, PeakEwma, PerModel,
    PowerOfTwo, Predictive, PrefixAffinity, PrefixCache, Random, ResourceAware, RoundRobin, Score,
    SessionAffinity, Strategy, Tried, UnknownStrategy, WeightedRoundRobin,
};
pub use bell::{Bell, Listener, Waiting};
pub use body::{LinkBody, RequestBody};
pub use command::{Command, CommandReply};
pub use dispatch::{
    Attempt, BodyError, Cancel, Claim, Deadlines, Dispatch, DispatchBody, DispatchError, DispatchErrorKind,
    Dispatched, Dispatcher, DispatcherBuilder, Explained, Explanation, Fault, HedgePolicy, NotRepeatable,
    Observer, Outcome, RetryPolicy, Terms,
};
pub use error::BoxError;
pub use features::{Feature, Features};
pub use fleet::{Fleet, ModelEntry};
pub use health::{
    BreakerPolicy, BreakerState, HealthPolicy, HeldFor, HoldPolicy, OutlierPolicy, Standing, WarmupPolicy,
};
pub use inventory::{Inventory, InventoryChange};
pub use lifecycle::{
    IdleUnload, Lifecycle, LifecyclePolicy, LoadEnd, LoadError, Loading, ModelLoad, OrderError,
};
pub use link::{LinkAbilities, LinkDescription, LinkError, LinkRequest, LinkResponse, RunnerLink};
pub use names::{Generation, InvalidName, ModelId, RequestId, RunnerId, RunnerKey};
pub use peer::PeerAddr;
pub use permit::Permit;
pub use queue::{
    AdmissionQueue, Arrival, Full, LaneId, LaneReport, Left, Picker, Priority, QueueError, QueueErrorKind,
    QueuePolicy, QueueReport, Round, ServiceOrder, Tenant, Ticket, UnknownPriority, WaitEnd, Waited, Waiter,
};
pub use registry::{
    FleetEvent, FleetEvents, InMemoryRegistry, LeaveReason, Membership, Registry, RunnerChange,
};
pub use retry::{Backoff, BudgetPolicy, InvalidBackoff, RetryBudget};
pub use router::{CapabilityRouter, Pool, Refusal, Requirements, Router};
pub use routes::{ModelRoutes, ModelRoutesBuilder, RouteError};
pub use runner::{
    Capability, CapabilityReport, Health, Labels, Load, Machine, MachineKind, Measured, Modalities, Modality,
    Model, ModelChange, ModelState, Price, ProbeVerdict, ReportedLoad, Reservation, ResourceReport,
    Resources, Runner, RunnerSet, RunnerSpec, RunnerStatus,
};
pub use source::{Door, RunnerSource};
pub use tokio_util::sync::CancellationToken;
pub use upgrade::UpgradeTo;
pub use workload::{PromptBlocks, Workload};
