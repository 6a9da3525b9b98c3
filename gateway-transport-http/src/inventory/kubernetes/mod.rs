//! The ready pods of a Kubernetes cluster.

mod client;
mod known;
mod pods;
mod slices;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use gateway_core::{Inventory, InventoryChange};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

use crate::source::HttpRunner;
use client::Connecting;
use known::{Known, Seen};

/// The ready pods of a Kubernetes cluster. Needs the feature `kubernetes`.
///
/// Either the pods that a label selector means, or the endpoints of a service. A pod is a runner while it is
/// ready, has an address and is not being deleted; otherwise it is gone, and drains. It is told of in the
/// moment the cluster tells: nothing is polled. Its id is `namespace/name@uid` with the beginning of the
/// pod's uid, so a pod of a StatefulSet that was made anew is a new runner.
///
/// Lost connections and expired watches (`410 Gone`) are made good with a growing pause of 0.8 s to 30 s; until
/// then what is known stays. The gateway's service account needs `get`, `list` and `watch` on pods, or on
/// endpointslices in `discovery.k8s.io`; `examples/kubernetes/` has the manifests.
///
/// ```no_run
/// use gateway_transport_http::{HttpRunners, Kubernetes};
///
/// let pods = Kubernetes::pods("app=llm").namespace("inference").port("http").label_prefix("inference/");
/// let runners = HttpRunners::from_inventory(pods).slots(16);
/// # drop(runners);
/// ```
pub struct Kubernetes {
    scope: Scope,
    namespace: Option<String>,
    rules: Rules,
    state: State,
}

#[derive(Debug, Clone)]
enum Scope {
    Pods(String),
    Service(String),
}

/// How a runner is made of a pod.
struct Rules {
    port: Option<KubernetesPort>,
    label_prefix: Option<String>,
    each: Arc<dyn Fn(HttpRunner) -> HttpRunner + Send + Sync>,
}

/// A pod's port: its number, or its name in the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KubernetesPort {
    /// Its number.
    Number(u16),
    /// Its name, such as `http`.
    Name(String),
}

impl From<u16> for KubernetesPort {
    fn from(number: u16) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for KubernetesPort {
    /// A port's name has a letter in it, so what is a number is one.
    fn from(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Number)
    }
}

type Events = BoxStream<'static, Result<watcher::Event<Seen>, watcher::Error>>;

enum State {
    Connecting(Connecting),
    Watching(Box<Events>, Known),
}

impl Kubernetes {
    /// The most objects (pods, or slices of endpoints) that are kept in mind at once; those beyond are left
    /// out. As many as [`HttpRunners::MAX_RUNNERS`](crate::HttpRunners::MAX_RUNNERS).
    pub const MAX_OBJECTS: usize = 10_000;

    /// The pods that a label selector means, such as `app=llm,tier!=canary`.
    pub fn pods(selector: impl Into<String>) -> Self {
        Self::new(Scope::Pods(selector.into()))
    }

    /// The endpoints of a service, from its EndpointSlices. Their labels are not known.
    pub fn service(name: impl Into<String>) -> Self {
        Self::new(Scope::Service(name.into()))
    }

    fn new(scope: Scope) -> Self {
        let rules = Rules { port: None, label_prefix: None, each: Arc::new(|runner| runner) };
        Self { scope, namespace: None, rules, state: State::Connecting(Connecting::default()) }
    }

    /// Where they are. Default: the client's own namespace, which in a cluster is the gateway's.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// The port where they serve, by number or by name. Default: the first that the pod, or the slice of
    /// endpoints, lists.
    pub fn port(mut self, port: impl Into<KubernetesPort>) -> Self {
        self.rules.port = Some(port.into());
        self
    }

    /// Labels of a pod that begin with `prefix` become labels of the runner, without the prefix. Default:
    /// none do.
    pub fn label_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.rules.label_prefix = Some(prefix.into());
        self
    }

    /// Says more of each runner than the cluster does.
    pub fn each(mut self, more: impl Fn(HttpRunner) -> HttpRunner + Send + Sync + 'static) -> Self {
        self.rules.each = Arc::new(more);
        self
    }

    /// The client for the cluster. Default: one that finds its way as `kubectl` does, or by the pod's service
    /// account; if there is none, that is logged and tried again, with a growing pause of 1 s to 30 s.
    ///
    /// Making that one lets `rustls` choose the process's cryptography if nobody has chosen; a host that
    /// minds gives its own client.
    pub fn client(mut self, client: Client) -> Self {
        self.state = State::Connecting(Connecting::with(client));
        self
    }

    /// A stream of what the cluster tells. It never ends: it recovers by itself.
    fn watch(&self, client: Client) -> Events {
        let rules = Arc::new(self.rules.copy());
        let config = watcher::Config::default();
        match &self.scope {
            Scope::Pods(selector) => {
                let stream = watcher(self.api::<Pod>(client), config.labels(selector)).default_backoff();
                stream.map(move |event| Ok(seen(event?, |pod| pods::see(pod, &rules)))).boxed()
            }
            Scope::Service(name) => {
                let config = config.labels(&format!("kubernetes.io/service-name={name}"));
                let stream = watcher(self.api::<EndpointSlice>(client), config).default_backoff();
                stream.map(move |event| Ok(seen(event?, |slice| slices::see(slice, &rules)))).boxed()
            }
        }
    }

    fn api<K>(&self, client: Client) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::default_namespaced(client),
        }
    }
}

impl Rules {
    fn copy(&self) -> Self {
        Self { port: self.port.clone(), label_prefix: self.label_prefix.clone(), each: self.each.clone() }
    }
}

fn seen<K>(event: watcher::Event<K>, see: impl Fn(K) -> Seen) -> watcher::Event<Seen> {
    use watcher::Event::*;
    match event {
        Apply(object) => Apply(see(object)),
        Delete(object) => Delete(see(object)),
        Init => Init,
        InitApply(object) => InitApply(see(object)),
        InitDone => InitDone,
    }
}

#[async_trait]
impl Inventory for Kubernetes {
    type Entry = HttpRunner;

    async fn next(&mut self) -> Option<InventoryChange<HttpRunner>> {
        loop {
            match &mut self.state {
                State::Connecting(connecting) => {
                    let client = connecting.client().await;
                    self.state = State::Watching(Box::new(self.watch(client)), Known::default());
                }
                State::Watching(events, known) => {
                    if let Some(change) = known.next() {
                        return Some(change);
                    }
                    match events.next().await? {
                        Ok(event) => known.hear(event),
                        Err(error) => {
                            let (scope, kept) = (&self.scope, known.len());
                            tracing::warn!(?scope, %error, kept, "the cluster cannot be watched now; what was known stays");
                        }
                    }
                }
            }
        }
    }
}

impl fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Kubernetes");
        shown.field("scope", &self.scope).field("namespace", &self.namespace);
        shown.field("port", &self.rules.port).finish_non_exhaustive()
    }
}
