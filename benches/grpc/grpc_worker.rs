//! An AiInference worker that does nothing but send chunks, for measuring what stands in front of it.
//!
//! The same chunks at the same pace as a mock of an HTTP engine: `@T` and 19 digits of the monotonic clock's nanoseconds in
//! each, so that whoever reads it knows how long it took; without an interval each chunk gives way to the others.
//!
//! `grpc_worker LISTEN MODEL CHUNKS INTERVAL_US`

mod clock;

use std::collections::HashMap;
use std::error::Error;
use std::pin::Pin;
use std::time::Duration;

use clock::now_ns;
use futures_util::stream::unfold;
use gateway_transport_grpc::proto::cy_llm::ai_inference_server::{AiInference, AiInferenceServer};
use gateway_transport_grpc::proto::cy_llm::{
    ControlMessage, StreamPredictRequest, StreamPredictResponse, WorkerHealthRequest, WorkerHealthResponse,
};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep_until};
use tonic::codegen::tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

#[derive(Clone)]
struct Worker {
    model: String,
    chunks: u32,
    interval: Duration,
}

type Chunks = Pin<Box<dyn Stream<Item = Result<StreamPredictResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AiInference for Worker {
    type StreamPredictStream = Chunks;

    async fn stream_predict(
        &self,
        request: Request<Streaming<StreamPredictRequest>>,
    ) -> Result<Response<Chunks>, Status> {
        let asked = request.into_inner().message().await?;
        let asked = asked.ok_or_else(|| Status::invalid_argument("the stream has no request"))?;
        let trace_id = asked.metadata.unwrap_or_default().trace_id;
        let (chunks, interval, began) = (self.chunks, self.interval, Instant::now());
        let answer = unfold(0, move |index| {
            let trace_id = trace_id.clone();
            async move {
                if index > chunks {
                    return None;
                }
                if interval.is_zero() {
                    tokio::task::yield_now().await;
                } else {
                    sleep_until(began + interval * index).await;
                }
                let end_of_stream = index == chunks;
                let chunk = if end_of_stream { String::new() } else { format!("@T{:019} ", now_ns()) };
                let message =
                    StreamPredictResponse { trace_id, chunk, end_of_stream, index, ..Default::default() };
                Some((Ok(message), index + 1))
            }
        });
        Ok(Response::new(Box::pin(answer)))
    }

    async fn control(&self, request: Request<ControlMessage>) -> Result<Response<ControlMessage>, Status> {
        let ControlMessage { trace_id, command, .. } = request.into_inner();
        let payload = [("status", "ok"), ("message", ""), ("models", &self.model)];
        let payload = payload.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Ok(Response::new(ControlMessage { trace_id, command: format!("{command}_response"), payload }))
    }

    async fn health(
        &self,
        _: Request<WorkerHealthRequest>,
    ) -> Result<Response<WorkerHealthResponse>, Status> {
        Ok(Response::new(WorkerHealthResponse { healthy: true, metrics: HashMap::new() }))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let mut next = |what: &str| words.next().ok_or_else(|| format!("{what} is missing"));
    let listener = TcpListener::bind(next("LISTEN")?).await?;
    let worker = Worker {
        model: next("MODEL")?,
        chunks: next("CHUNKS")?.parse()?,
        interval: Duration::from_micros(next("INTERVAL_US")?.parse()?),
    };
    println!("listening {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = TowerToHyperService::new(AiInferenceServer::new(worker.clone()));
        let connection = http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(4096)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}
