//! A runner out of a pod.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::known::Seen;
use super::{KubernetesPort, Rules};
use crate::source::HttpRunner;

/// The runner that a pod is, if it is one now.
pub(super) fn see(pod: Pod, rules: &Rules) -> Seen {
    let name = format!(
        "{}/{}",
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.name.as_deref().unwrap_or_default()
    );
    let runner = runner(&pod, &name, rules).unwrap_or_else(|problem| {
        tracing::warn!(pod = name, problem, "a pod is left out");
        None
    });
    Seen { runners: runner.into_iter().collect(), name }
}

fn runner(pod: &Pod, name: &str, rules: &Rules) -> Result<Option<HttpRunner>, String> {
    let Some(ip) = address(pod) else { return Ok(None) };
    let port = port(pod.spec.as_ref(), rules.port.as_ref())?;
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let mut runner = at(name, uid, ip, port)?;
    if let Some(prefix) = &rules.label_prefix {
        let labels = pod.metadata.labels.iter().flatten();
        let ours = labels.filter_map(|(key, value)| Some((key.strip_prefix(prefix.as_str())?, value)));
        runner = ours.fold(runner, |runner, (key, value)| runner.label(key, value));
    }
    Ok(Some((rules.each)(runner)))
}

/// The runner of that pod at that place.
pub(super) fn at(name: &str, uid: &str, ip: &str, port: u16) -> Result<HttpRunner, String> {
    let ip: IpAddr = ip.parse().map_err(|_| format!("its address {ip:?} cannot be read"))?;
    let runner = HttpRunner::new(format!("http://{}", SocketAddr::new(ip, port)));
    let runner = runner.map_err(|error| error.to_string())?;
    // The whole uid would be most of the id. It is random, so its beginning tells a pod from its namesake.
    let beginning = uid.split('-').next().unwrap_or_default();
    let runner = runner.id(format!("{name}@{beginning}"));
    runner.validate().map_err(|error| error.to_string())?;
    Ok(runner)
}

/// Where it serves, if it does: ready, with an address, and not on its way out.
fn address(pod: &Pod) -> Option<&str> {
    let status = pod.status.as_ref()?;
    let mut conditions = status.conditions.iter().flatten();
    let is_ready = conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let ip = status.pod_ip.as_deref().filter(|ip| !ip.is_empty())?;
    (is_ready && pod.metadata.deletion_timestamp.is_none()).then_some(ip)
}

fn port(spec: Option<&PodSpec>, wanted: Option<&KubernetesPort>) -> Result<u16, String> {
    if let Some(KubernetesPort::Number(number)) = wanted {
        return Ok(*number);
    }
    let containers = spec.into_iter().flat_map(|spec| {
        // A container that starts first and stays is listed with those that only start first.
        spec.containers.iter().chain(spec.init_containers.iter().flatten())
    });
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let port = match wanted {
        Some(KubernetesPort::Name(name)) => ports.find(|port| port.name.as_ref() == Some(name)),
        _ => ports.next(),
    };
    let number = port.and_then(|port| u16::try_from(port.container_port).ok());
    number.ok_or_else(|| match wanted {
        Some(KubernetesPort::Name(name)) => format!("it has no port of the name {name:?}"),
        _ => "it lists no port: set one".to_owned(),
    })
}
