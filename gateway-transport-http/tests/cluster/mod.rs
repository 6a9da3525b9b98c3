//! An API server of Kubernetes, as far as lists and watches go. The test decides every answer.
#![allow(dead_code, unreachable_pub)]

use gateway_transport_http::Kubernetes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::support::{Peer, Received, Server, soon};

const NAMESPACE: &str = "inference";

pub struct Cluster {
    server: Server,
    /// Each request, with its connection to answer on. One request for each connection.
    requests: mpsc::Receiver<(Received, Peer)>,
}

impl Cluster {
    pub async fn start() -> Self {
        let (tell, requests) = mpsc::channel(8);
        let server = Server::start(move |_, mut peer| {
            let tell = tell.clone();
            async move {
                if let Some(request) = peer.request().await {
                    let _ = tell.send((request, peer)).await;
                }
            }
        })
        .await;
        Self { server, requests }
    }

    fn client(&self) -> kube::Client {
        let config = kube::Config::new(self.server.url.parse().unwrap());
        kube::Client::try_from(config).unwrap()
    }

    pub fn pods(&self, selector: &str) -> Kubernetes {
        Kubernetes::pods(selector).namespace(NAMESPACE).client(self.client())
    }

    pub fn service(&self, name: &str) -> Kubernetes {
        Kubernetes::service(name).namespace(NAMESPACE).client(self.client())
    }

    async fn request(&mut self) -> (String, Peer) {
        let (request, peer) = soon("a request to the cluster", self.requests.recv()).await.unwrap();
        (request.line().to_owned(), peer)
    }

    /// Answers the next request, which is for a list, and gives its first line.
    pub async fn list<const N: usize>(&mut self, version: &str, items: [Value; N]) -> String {
        let (line, mut peer) = self.request().await;
        assert!(line.starts_with("GET ") && !line.contains("watch=true"), "{line}");
        let kind = if line.contains("/pods") { "PodList" } else { "EndpointSliceList" };
        let list = json!({
            "kind": kind, "apiVersion": "v1",
            "metadata": {"resourceVersion": version},
            "items": items.to_vec(),
        });
        peer.write(last_answer(200, &list)).await;
        line
    }

    pub async fn refuse(&mut self, status: u16, message: &str) {
        let (_, mut peer) = self.request().await;
        let reply = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Forbidden",
            "message": message, "code": status,
        });
        peer.write(last_answer(status, &reply)).await;
    }

    /// The next request, which is for a watch from that version on.
    pub async fn watch(&mut self, version: &str) -> Watch {
        let (line, mut peer) = self.request().await;
        assert!(line.contains("watch=true") && line.contains("allowWatchBookmarks=true"), "{line}");
        assert!(line.contains(&format!("resourceVersion={version}")), "{line} is not from {version} on");
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        peer.write(head).await;
        Watch { peer, is_slices: line.contains("endpointslices") }
    }
}

fn last_answer(status: u16, body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Some\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

pub struct Watch {
    peer: Peer,
    is_slices: bool,
}

impl Watch {
    pub async fn tell(&mut self, kind: &str, object: Value) {
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        // In two pieces: a line need not come in one.
        let (one, two) = line.split_at(line.len() / 2);
        for piece in [one, two] {
            self.peer.write(format!("{:x}\r\n{piece}\r\n", piece.len())).await;
        }
    }

    pub async fn bookmark(&mut self, version: &str) {
        let (kind, api) = match self.is_slices {
            true => ("EndpointSlice", "discovery.k8s.io/v1"),
            false => ("Pod", "v1"),
        };
        let metadata = json!({"resourceVersion": version, "creationTimestamp": null});
        let spec = json!({"containers": null});
        self.tell("BOOKMARK", json!({"kind": kind, "apiVersion": api, "metadata": metadata, "spec": spec}))
            .await;
    }

    /// As the server does after some minutes.
    pub async fn end(mut self) {
        self.peer.write("0\r\n\r\n").await;
    }

    /// As a network does at any time.
    pub async fn cut(mut self) {
        self.peer.write("40\r\n{\"type\":\"ADDED\",\"obj").await;
    }
}

/// A pod as the API server tells of it.
#[derive(Clone)]
pub struct Pod {
    name: String,
    uid: String,
    ip: String,
    is_ready: bool,
    is_terminating: bool,
    version: String,
    labels: serde_json::Map<String, Value>,
    ports: Vec<(String, u16)>,
}

impl Pod {
    pub fn ready(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            uid: format!("{name:0<8}-1111-4222-8333-444455556666"),
            ip: "127.0.0.1".to_owned(),
            is_ready: true,
            is_terminating: false,
            version: "10".to_owned(),
            labels: serde_json::Map::new(),
            ports: Vec::new(),
        }
    }

    pub fn uid(mut self, uid: &str) -> Self {
        self.uid = uid.to_owned();
        self
    }

    pub fn ip(mut self, ip: &str) -> Self {
        self.ip = ip.to_owned();
        self
    }

    pub fn not_ready(mut self) -> Self {
        self.is_ready = false;
        self
    }

    pub fn terminating(mut self) -> Self {
        self.is_terminating = true;
        self
    }

    pub fn version(mut self, version: &str) -> Self {
        self.version = version.to_owned();
        self
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.into());
        self
    }

    /// Without any, it is `http` at 8000.
    pub fn port(mut self, name: &str, number: u16) -> Self {
        self.ports.push((name.to_owned(), number));
        self
    }

    pub fn json(&self) -> Value {
        let one = [("http".to_owned(), 8000)];
        let ports = if self.ports.is_empty() { &one[..] } else { &self.ports };
        let ports: Vec<_> = ports
            .iter()
            .map(|(name, number)| json!({"name": name, "containerPort": number, "protocol": "TCP"}))
            .collect();
        let ready = if self.is_ready { "True" } else { "False" };
        let mut pod = json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {
                "name": self.name, "namespace": NAMESPACE, "uid": self.uid, "resourceVersion": self.version,
                "creationTimestamp": "2025-05-01T10:00:00Z", "labels": self.labels,
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "llm", "uid": "x"}],
            },
            "spec": {
                "containers": [
                    {"name": "sidecar", "image": "sidecar:1"},
                    {"name": "engine", "image": "engine:1", "ports": ports, "resources": {"limits": {"nvidia.com/gpu": "1"}}},
                ],
                "nodeName": "node-1", "restartPolicy": "Always",
            },
            "status": {
                "phase": "Running", "hostIP": "10.0.0.1",
                "conditions": [
                    {"type": "Initialized", "status": "True", "lastProbeTime": null},
                    {"type": "Ready", "status": ready, "lastProbeTime": null, "lastTransitionTime": "2025-05-01T10:01:00Z"},
                    {"type": "PodScheduled", "status": "True", "lastProbeTime": null},
                ],
            },
        });
        if !self.ip.is_empty() {
            pod["status"]["podIP"] = json!(self.ip);
            pod["status"]["podIPs"] = json!([{"ip": self.ip}]);
        }
        if self.is_terminating {
            pod["metadata"]["deletionTimestamp"] = json!("2025-05-01T11:00:30Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        }
        pod
    }
}

/// A slice of the endpoints of the service `llm`, which serves at 8000.
pub fn slice<const N: usize>(name: &str, endpoints: [Value; N]) -> Value {
    json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {
            "name": name, "namespace": NAMESPACE, "uid": name, "resourceVersion": "10",
            "labels": {"kubernetes.io/service-name": "llm"},
        },
        "addressType": "IPv4",
        "ports": [
            {"name": "metrics", "port": 9090, "protocol": "TCP"},
            {"name": "http", "port": 8000, "protocol": "TCP"},
        ],
        "endpoints": endpoints.to_vec(),
    })
}
