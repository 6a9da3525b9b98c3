//! Runners out of a slice of a service's endpoints.

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::known::Seen;
use super::{KubernetesPort, Rules, pods};
use crate::source::HttpRunner;

/// The runners that the ready endpoints of a slice are.
pub(super) fn see(slice: EndpointSlice, rules: &Rules) -> Seen {
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    let name = format!("{namespace}/{}", slice.metadata.name.as_deref().unwrap_or_default());
    // A deleted slice is told of as it was.
    let Some(port) = port(&slice, rules.port.as_ref()) else {
        if !slice.endpoints.is_empty() {
            tracing::warn!(slice = name, port = ?rules.port, "endpoints are left out: they have no such port");
        }
        return Seen { name, runners: Vec::new() };
    };
    let ready = slice.endpoints.iter().filter(|endpoint| is_ready(endpoint));
    let runners = ready.filter_map(|endpoint| {
        let runner = runner(endpoint, namespace, port);
        let complain = |problem: &String| tracing::warn!(slice = name, problem, "an endpoint is left out");
        Some((rules.each)(runner.inspect_err(complain).ok()?))
    });
    Seen { runners: runners.collect(), name }
}

fn is_ready(endpoint: &Endpoint) -> bool {
    let Some(conditions) = &endpoint.conditions else { return true };
    // Unknown counts as ready, says the API.
    conditions.ready.unwrap_or(true) && !conditions.terminating.unwrap_or(false)
}

fn runner(endpoint: &Endpoint, namespace: &str, port: u16) -> Result<HttpRunner, String> {
    // All addresses of an endpoint are the same runner.
    let ip = endpoint.addresses.first().ok_or("it has no address")?;
    match &endpoint.target_ref {
        Some(target) => {
            let namespace = target.namespace.as_deref().unwrap_or(namespace);
            let name = format!("{namespace}/{}", target.name.as_deref().unwrap_or_default());
            pods::at(&name, target.uid.as_deref().unwrap_or_default(), ip, port)
        }
        None => pods::at(&format!("{namespace}/{ip}:{port}"), "", ip, port),
    }
}

fn port(slice: &EndpointSlice, wanted: Option<&KubernetesPort>) -> Option<u16> {
    let mut ports = slice.ports.iter().flatten();
    let port = match wanted {
        Some(KubernetesPort::Number(number)) => return Some(*number),
        Some(KubernetesPort::Name(name)) => ports.find(|port| port.name.as_ref() == Some(name)),
        None => ports.next(),
    };
    port?.port.and_then(|port| u16::try_from(port).ok())
}
