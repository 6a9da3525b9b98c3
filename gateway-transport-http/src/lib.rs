//! Links from the inference gateway to runners that have an HTTP address.
//!
//! [`HttpLink`] carries requests to one address over a pool of HTTP/1.1 connections of its own.
//! [`EngineLink`] adds what the engine behind the address can tell and do: its models, its load, loading
//! and unloading. [`HttpRunners`] brings such runners into the gateway, from wherever it is known which there
//! are:
//!
//! | inventory | which runners |
//! |---|---|
//! | [`FixedList`] | those that are written down |
//! | [`DnsNames`] | every address of a name |
//! | `WatchedFile` (feature `file`) | those in a file, which may change |
//! | `Kubernetes` (feature `kubernetes`) | ready pods, by label or by service |
//! | [`HttpRunnersHandle`] | those that the host says, at any time |
//! | your own [`Inventory`](gateway_core::Inventory) | whatever it tells |
//!
//! ```
//! use gateway_transport_http::{HttpRunner, HttpRunners};
//!
//! // As short as it gets: models and health are asked from the engines.
//! let runners = HttpRunners::fixed(["http://10.0.0.5:8000", "http://10.0.0.6:8000"]);
//!
//! // Or one by one.
//! let runners = HttpRunners::list([
//!     HttpRunner::new("http://10.0.0.5:8000")?.id("gpu-1").slots(8).machine("gpu"),
//!     HttpRunner::new("http://10.0.0.6:11434")?.label("zone", "eu"),
//! ]);
//! # Ok::<(), gateway_transport_http::InvalidAddress>(())
//! ```
//!
//! # Features
//!
//! None is on by default. `file` and `kubernetes` bring what the table says. `kubernetes` chooses a version of
//! `k8s-openapi`, of which a program can have one only; a host that uses that crate itself takes
//! `kubernetes-any-version` and chooses.
//!
//! # Addresses
//!
//! Only `http://` addresses work here: TLS is not built in.
//!
//! # Cancel safety
//!
//! Every future may be dropped at any moment. A request that is dropped before its head, or whose body is
//! dropped before its end, closes its connection before the drop returns: no task stands between.

mod address;
mod engine;
mod inventory;
mod link;
mod pause;
mod source;

pub use address::InvalidAddress;
pub use engine::{EngineKind, EngineLink, UnknownEngineKind};
pub use inventory::{DnsNames, FixedList, Resolve, RunnerEntry};
#[cfg(feature = "file")]
pub use inventory::{FileProblem, WatchedFile};
#[cfg(feature = "kubernetes-any-version")]
pub use inventory::{Kubernetes, KubernetesPort};
pub use link::{HttpLink, HttpLinkBuilder};
pub use source::{HttpRunner, HttpRunners, HttpRunnersHandle, InvalidRunner};
