//! Calls StreamPredict again and again and counts what comes back, for measuring the gateway's gRPC server.
//!
//! Closed loop: each of STREAMS has one call open at a time, on one of CONNECTIONS. One JSON line at the end.
//!
//! `grpc_load ADDRESS TOKEN MODEL STREAMS CONNECTIONS CHUNKS INTERVAL_US SECONDS`

use std::cell::Cell;
use std::error::Error;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use gateway_benches::wire::script::Script;
use gateway_transport_grpc::proto::cy_llm::ai_inference_client::AiInferenceClient;
use gateway_transport_grpc::proto::cy_llm::{StreamMetadata, StreamPredictRequest};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

/// One connection, as a service.
#[derive(Clone)]
struct Connection(SendRequest<Body>);

impl tower_service::Service<http::Request<Body>> for Connection {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

#[derive(Default)]
struct Counts {
    chunks: Cell<u64>,
    ok: Cell<u64>,
    bad: Cell<u64>,
}

fn add(count: &Cell<u64>, more: u64) {
    count.set(count.get() + more);
}

struct Ask {
    token: String,
    model: String,
    script: Script,
    until: Instant,
}

async fn one(client: &mut AiInferenceClient<Connection>, ask: &Ask, counts: &Counts) -> Result<bool, Status> {
    let message = StreamPredictRequest {
        model_id: ask.model.clone(),
        prompt: format!("{} Tell me of a machine that counts chunks to the end.", ask.script.words()),
        metadata: Some(StreamMetadata { trace_id: "bench".to_owned(), ..StreamMetadata::default() }),
        ..StreamPredictRequest::default()
    };
    let mut request = Request::new(futures_util::stream::iter([message]));
    let bearer = format!("Bearer {}", ask.token);
    let bearer =
        MetadataValue::try_from(bearer).map_err(|_| Status::internal("a token that cannot be sent"))?;
    request.metadata_mut().insert("authorization", bearer);
    let mut answer = client.stream_predict(request).await?.into_inner();
    let (mut chunks, mut ended) = (0, false);
    while let Some(message) = answer.message().await? {
        // What came together may be told together; the load is what is in it.
        chunks += message.chunk.matches("@T").count() as u64;
        ended |= message.end_of_stream;
    }
    add(&counts.chunks, chunks);
    Ok(ended && chunks == u64::from(ask.script.chunks))
}

async fn stream(connection: Connection, authority: String, ask: Rc<Ask>, counts: Rc<Counts>) {
    let origin = format!("http://{authority}").parse().expect("an address");
    let mut client = AiInferenceClient::with_origin(connection, origin);
    while Instant::now() < ask.until {
        match one(&mut client, &ask, &counts).await {
            Ok(true) => add(&counts.ok, 1),
            Ok(false) => add(&counts.bad, 1),
            Err(status) => {
                if counts.bad.get() == 0 {
                    eprintln!("{status}");
                }
                add(&counts.bad, 1);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let mut next = |what: &str| words.next().ok_or_else(|| format!("{what} is missing"));
    let (address, token, model) = (next("ADDRESS")?, next("TOKEN")?, next("MODEL")?);
    let streams: usize = next("STREAMS")?.parse()?;
    let connections: usize = next("CONNECTIONS")?.parse()?;
    let script = Script {
        chunks: next("CHUNKS")?.parse()?,
        interval: Duration::from_micros(next("INTERVAL_US")?.parse()?),
        delay: Duration::ZERO,
    };
    let seconds: u64 = next("SECONDS")?.parse()?;
    let until = Instant::now() + Duration::from_secs(seconds);
    let (ask, counts) = (Rc::new(Ask { token, model, script, until }), Rc::new(Counts::default()));
    let local = LocalSet::new();
    let mut open = Vec::new();
    for _ in 0..connections {
        let tcp = TcpStream::connect(&address).await?;
        tcp.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(tcp)).await?;
        tokio::spawn(connection);
        open.push(sender);
    }
    for nth in 0..streams {
        let connection = Connection(open[nth % connections].clone());
        local.spawn_local(stream(connection, address.clone(), ask.clone(), counts.clone()));
    }
    local.await;
    let Counts { chunks, ok, bad } = &*counts;
    println!(r#"{{"all_chunks":{},"ok":{},"incomplete":{}}}"#, chunks.get(), ok.get(), bad.get());
    Ok(())
}
