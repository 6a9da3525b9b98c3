//! `[grpc]` of `standalone`: what it comes to, and what is served by it.

#[path = "../standalone/assemble.rs"]
#[allow(dead_code, reason = "what else is put together is in standalone_assembled.rs")]
mod assemble;
#[path = "../standalone/config/mod.rs"]
#[allow(dead_code, reason = "the other settings are in standalone_config.rs")]
mod config;
#[path = "../standalone/server.rs"]
#[allow(dead_code, reason = "signals are for the end-to-end tests")]
mod server;

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use assemble::assemble;
use bytes::Bytes;
use clap::Parser;
use config::{Flags, GrpcListen, Settings};
use gateway_core::{ModelId, RunnerId, RunnerSpec, RunnerStatus};
use gateway_testkit::{MockEngine, Script};
use gateway_transport_grpc::PromptAs;
use http::Request;
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use server::Speaks;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(10);
const CONNECT: &str = "/inference_gateway.runner.v1.RunnerGateway/Connect";
const TOKEN: (&str, &str) = ("GATEWAY_BEARER_TOKEN", "t");

fn resolve(flags: &[&str], environment: &[(&str, &str)], file: Option<&str>) -> Result<Settings, String> {
    let flags = Flags::parse_from(std::iter::once(&"standalone").chain(flags));
    let look_up =
        |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Settings::resolve(&flags, look_up, file).map_err(|error| error.to_string())
}

#[test]
fn where_it_listens_comes_from_flag_then_environment_then_file() {
    let file = Some("[grpc]\nlisten = 'unix:///run/g.sock'");
    let variables = [TOKEN, ("GATEWAY_GRPC_LISTEN", "http")];
    let listen = |flags: &[&str], variables: &[(&str, &str)], file| {
        resolve(flags, variables, file).unwrap().grpc.listen
    };
    let tcp = Some(GrpcListen::Tcp("0.0.0.0:50050".to_owned()));
    assert_eq!(listen(&["--grpc-listen", "0.0.0.0:50050"], &variables, file), tcp);
    assert_eq!(listen(&[], &variables, file), Some(GrpcListen::WithHttp));
    assert_eq!(listen(&[], &[TOKEN], file), Some(GrpcListen::Unix(PathBuf::from("/run/g.sock"))));
    let relative = [TOKEN, ("GATEWAY_GRPC_LISTEN", "unix:g.sock")];
    assert_eq!(listen(&[], &relative, None), Some(GrpcListen::Unix(PathBuf::from("g.sock"))));
    assert_eq!(listen(&[], &[TOKEN], None), None, "not served unless it is asked for");
    for wrong in ["unix:", "50050", "host:", ":1", "host:port", "https"] {
        let error = resolve(&["--grpc-listen", wrong], &[TOKEN], None).err().unwrap();
        assert!(error.contains("grpc.listen"), "{error}");
    }
}

#[test]
fn every_other_key_has_its_effect() {
    let defaults = resolve(&[], &[TOKEN], None).unwrap().grpc;
    assert_eq!((defaults.socket_mode, defaults.prompt_as), (0o660, PromptAs::Completion));
    assert_eq!((defaults.reflection, defaults.max_message_bytes), (true, 64 << 20));
    let file = "[grpc]\nsocket_mode = '0600'\nprompt_as = 'chat'\nreflection = false\nmax_message_bytes = 9";
    let set = resolve(&[], &[TOKEN], Some(file)).unwrap().grpc;
    assert_eq!((set.socket_mode, set.prompt_as), (0o600, PromptAs::Chat));
    assert_eq!((set.reflection, set.max_message_bytes), (false, 9));
    for mode in ["rw", "1777", "8"] {
        let error = resolve(&[], &[TOKEN], Some(&format!("[grpc]\nsocket_mode = '{mode}'"))).err().unwrap();
        assert!(error.contains("grpc.socket_mode"), "{error}");
    }
}

#[test]
fn workers_come_from_the_file_and_the_environment() {
    let ids = |variables: &[(&str, &str)], file: &str| {
        let settings = resolve(&[], variables, Some(file)).unwrap();
        assert_eq!(settings.dialled().unwrap().is_none(), settings.workers().unwrap().is_empty());
        let ids = settings.workers().unwrap().into_iter().map(|worker| worker.runner_id().to_string());
        ids.collect::<Vec<_>>()
    };
    assert!(ids(&[TOKEN], "").is_empty());
    let file = "[[grpc.runner]]\naddress = 'unix:/run/a.sock'\nid = 'first'\nmodels = ['m']\nslots = 2\n\
        labels = { zone = 'eu' }\ntoken = 's3cret'\ntemplate = 'verbatim'\n";
    let variables = [
        TOKEN,
        ("SIDECAR_GRPC_ADDR", "127.0.0.1:50051, unix:/run/a.sock"),
        ("COORDINATOR_UDS_PATH", "/tmp/c.sock,unix:///tmp/d.sock"),
    ];
    let all = ids(&variables, file);
    assert_eq!(all.len(), 4, "named twice, it is one worker: {all:?}");
    assert_eq!(all[0], "first");
    for (id, part) in all[1..].iter().zip(["127.0.0.1:50051", "/tmp/c.sock", "/tmp/d.sock"]) {
        assert!(id.contains(part), "{all:?}");
    }
    let settings = resolve(&[], &variables, Some(file)).unwrap();
    let written = format!("{:?} {:?}", settings.grpc, settings.workers().unwrap());
    assert!(!written.contains("s3cret"), "{written}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.jinja");
    std::fs::write(&path, "{{ messages[0].content }}").unwrap();
    let jinja = format!("[[grpc.runner]]\naddress = 'h:1'\ntemplate = 'jinja'\njinja = '{}'", path.display());
    assert_eq!(ids(&[TOKEN], &jinja).len(), 1);
    for (wrong, why) in [
        ("address = 'nowhere'", "nowhere"),
        ("address = 'h:1'\nid = ''", "h:1"),
        ("address = 'h:1'\ntemplate = 'jinja'", "jinja"),
        ("address = 'h:1'\njinja = 'x'", "jinja"),
        ("address = 'h:1'\ntemplate = 'jinja'\njinja = '/no/such'", "/no/such"),
    ] {
        let error = resolve(&[], &[TOKEN], Some(&format!("[[grpc.runner]]\n{wrong}"))).err().expect(wrong);
        assert!(error.contains("grpc.runner") && error.contains(why), "{error}");
    }
}

#[test]
fn it_is_read_at_the_start_only() {
    let fixed = |file: &str| {
        let fixed = resolve(&[], &[TOKEN], Some(file)).unwrap().fixed();
        fixed.into_iter().find(|(key, _)| *key == "grpc").unwrap().1
    };
    let one = "[grpc]\nlisten = 'a:1'\n[[grpc.runner]]\naddress = 'h:1'\ntoken = 'x'";
    assert_eq!(fixed(one), fixed(one));
    for other in [
        "[grpc]\nlisten = 'a:2'\n[[grpc.runner]]\naddress = 'h:1'\ntoken = 'x'",
        "[grpc]\nlisten = 'a:1'\n[[grpc.runner]]\naddress = 'h:2'\ntoken = 'x'",
        "[grpc]\nlisten = 'a:1'\n[[grpc.runner]]\naddress = 'h:1'\ntoken = 'y'",
    ] {
        assert_ne!(fixed(one), fixed(other), "{other}");
    }
}

/// A gateway as `standalone` puts it together, with one engine, and its services of gRPC.
fn assembled() -> (assemble::Assembled, MockEngine) {
    let settings = resolve(&["--grpc-listen", "http"], &[TOKEN], None).unwrap();
    let assembled = assemble(&settings).unwrap();
    let engine = MockEngine::new(|_| Script::sse([r#"{"choices":[{"text":"a","finish_reason":"stop"}]}"#]));
    let status = RunnerStatus::serving([ModelId::new("m").unwrap()]);
    assembled.registry.join(RunnerSpec::new(RunnerId::new("r").unwrap()), status, engine.link());
    (assembled, engine)
}

struct Served {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Served {
    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

async fn connect<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: I) -> SendRequest<Full<Bytes>> {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    tokio::spawn(async move { connection.await.map_err(|_| ()) });
    sender
}

/// The contract's Health, whose message is empty.
async fn grpc_status(sender: &mut SendRequest<Full<Bytes>>, path: &str) -> String {
    let request = Request::post(format!("http://h{path}"))
        .header("content-type", "application/grpc")
        .body(Full::new(Bytes::from_static(&[0; 5])))
        .unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let whole = body.collect().await.unwrap();
    let status =
        whole.trailers().and_then(|trailers| trailers.get("grpc-status")).or(head.headers.get("grpc-status"));
    status.expect("a status").to_str().unwrap().to_owned()
}

#[tokio::test]
async fn one_port_serves_both_versions_of_http_and_grpc() {
    let (assembled, _engine) = assembled();
    let grpc = assembled.grpc.clone().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let both = grpc.beside(assembled.gateway.clone());
    let task = tokio::spawn(server::serve_as(listener, Speaks::Both, both, 10, stop.clone(), PATIENCE));
    let served = Served { stop, task };

    let mut http2 = connect(TcpStream::connect(address).await.unwrap()).await;
    let get = Request::get("http://h/health").body(Full::default()).unwrap();
    assert_eq!(http2.send_request(get).await.unwrap().status(), 200);
    assert_eq!(grpc_status(&mut http2, "/AiInference/Health").await, "0");
    assert_eq!(grpc_status(&mut http2, "/cy.llm.AiInference/Health").await, "0");
    assert_eq!(grpc_status(&mut http2, "/other.Service/Do").await, "12");
    assert_eq!(grpc_status(&mut http2, CONNECT).await, "12", "without a runner token nobody dials in");

    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut http1, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(async move { connection.await.map_err(|_| ()) });
    let get = Request::get("/health").header("host", "h").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(http1.send_request(get).await.unwrap().status(), 200);
    served.end().await;
}

#[tokio::test]
async fn with_a_runner_token_runners_dial_in() {
    let settings =
        resolve(&["--grpc-listen", "http"], &[TOKEN, ("GATEWAY_RUNNER_TOKEN", "r")], None).unwrap();
    let grpc = assemble(&settings).unwrap().grpc.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(server::serve_as(listener, Speaks::Http2, grpc, 10, stop.clone(), PATIENCE));
    let mut client = connect(TcpStream::connect(address).await.unwrap()).await;
    assert_ne!(grpc_status(&mut client, CONNECT).await, "12", "there is such a service");
    Served { stop, task }.end().await;
}

#[tokio::test]
async fn a_unix_socket_is_served_and_removed() {
    let (assembled, _engine) = assembled();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.sock");
    // What a program left behind that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let socket = server::listen_unix(&path, 0o600).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let taken = server::listen_unix(&path, 0o600).err().unwrap();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    assert!(taken.to_string().contains("g.sock"), "{taken}");

    let stop = CancellationToken::new();
    let grpc = assembled.grpc.clone().unwrap();
    let task = tokio::spawn(server::serve_as(socket, Speaks::Http2, grpc, 10, stop.clone(), PATIENCE));
    let mut client = connect(UnixStream::connect(&path).await.unwrap()).await;
    assert_eq!(grpc_status(&mut client, "/cy.llm.AiInference/Health").await, "0");
    Served { stop, task }.end().await;
    assert!(!path.exists(), "it is gone with the program");

    std::fs::write(&path, "a file of somebody else").unwrap();
    assert_eq!(server::listen_unix(&path, 0o600).err().unwrap().kind(), ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a file of somebody else");
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_requests_is_closed() {
    let (assembled, _engine) = assembled();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let both = assembled.grpc.clone().unwrap().beside(assembled.gateway.clone());
    let task = tokio::spawn(server::serve_as(listener, Speaks::Both, both, 10, stop.clone(), PATIENCE));
    let begun = tokio::time::Instant::now();
    let mut silent = TcpStream::connect(address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 64]).await.unwrap_or(0), 0, "the server closes it");
    let after = begun.elapsed().as_secs();
    assert!((60..90).contains(&after), "after {after} s");
    Served { stop, task }.end().await;
}
