//! Where it is known which runners there are. One file each.

mod dns;
mod entry;
#[cfg(feature = "file")]
mod file;
mod fixed;
#[cfg(feature = "kubernetes-any-version")]
mod kubernetes;

pub use dns::{DnsNames, Resolve};
pub use entry::RunnerEntry;
#[cfg(feature = "file")]
pub use file::{FileProblem, WatchedFile};
pub use fixed::FixedList;
#[cfg(feature = "kubernetes-any-version")]
pub use kubernetes::{Kubernetes, KubernetesPort};

use crate::source::HttpRunner;

/// What a host adds to what an inventory knows of each runner.
type Each = Box<dyn Fn(HttpRunner) -> HttpRunner + Send>;
