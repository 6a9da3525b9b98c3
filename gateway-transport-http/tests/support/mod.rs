//! Servers written by hand, so that a test decides every byte and sees every connection.
#![allow(dead_code, unreachable_pub)] // each test file uses some of it

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gateway_core::{LinkError, LinkRequest, LinkResponse, RequestBody};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Nothing in these tests takes this long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Fails instead of hanging.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: it hangs"))
}

/// A request as it came over the wire.
#[derive(Debug, Clone)]
pub struct Received {
    pub head: String,
    pub body: Bytes,
}

impl Received {
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// One accepted connection.
pub struct Peer {
    pub stream: TcpStream,
    buffer: BytesMut,
}

impl Peer {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next request, or `None` when the connection has ended.
    pub async fn request(&mut self) -> Option<Received> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head = String::from_utf8(self.buffer.split_to(end).to_vec()).unwrap();
        let received = Received { head, body: Bytes::new() };
        let body = if let Some(len) = received.header("content-length") {
            let len: usize = len.parse().unwrap();
            while self.buffer.len() < len {
                self.more().await?;
            }
            self.buffer.split_to(len).freeze()
        } else if received.header("transfer-encoding").is_some() {
            self.chunks().await?
        } else {
            Bytes::new()
        };
        Some(Received { body, ..received })
    }

    async fn chunks(&mut self) -> Option<Bytes> {
        let mut body = BytesMut::new();
        loop {
            let end = loop {
                if let Some(at) = find(&self.buffer, b"\r\n") {
                    break at + 2;
                }
                self.more().await?;
            };
            let line = self.buffer.split_to(end);
            let len = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            while self.buffer.len() < len + 2 {
                self.more().await?;
            }
            body.extend_from_slice(&self.buffer.split_to(len));
            let _ = self.buffer.split_to(2);
            if len == 0 {
                return Some(body.freeze());
            }
        }
    }

    async fn more(&mut self) -> Option<()> {
        let read = self.stream.read_buf(&mut self.buffer).await.unwrap_or(0);
        (read > 0).then_some(())
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        // The other side may have gone: then the test sees that elsewhere.
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Waits until the other side has closed.
    pub async fn ended(&mut self) {
        while self.more().await.is_some() {}
    }
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

/// An answer with a length.
pub fn answer(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} Some\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A server that runs `serve` on every connection, and counts them.
pub struct Server {
    pub url: String,
    accepted: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub async fn start<F, Fut>(serve: F) -> Self
    where
        F: Fn(usize, Peer) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = accepted.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(number, Peer::new(stream)));
            }
        });
        Self { url, accepted, task }
    }

    /// Answers every request with `answer` and keeps the connection.
    pub async fn answering(answer: impl Into<String>) -> Self {
        let answer: Arc<str> = answer.into().into();
        Self::start(move |_, mut peer| {
            let answer = answer.clone();
            async move {
                while peer.request().await.is_some() {
                    peer.write(&*answer).await;
                }
            }
        })
        .await
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Takes no new connections from now on.
    pub async fn stop_listening(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// A server with answers by path, which can be changed, and a record of what was asked.
#[derive(Clone)]
pub struct Scripted {
    pub url: String,
    answers: Arc<Mutex<HashMap<String, (u16, String)>>>,
    asked: Arc<Mutex<Vec<Received>>>,
}

impl Scripted {
    pub async fn start<const N: usize>(answers: [(&str, u16, &str); N]) -> Self {
        let answers = answers.map(|(path, status, body)| (path.to_owned(), (status, body.to_owned())));
        let answers = Arc::new(Mutex::new(HashMap::from(answers)));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (script, record) = (answers.clone(), asked.clone());
        let server = Server::start(move |_, mut peer| {
            let (script, record) = (script.clone(), record.clone());
            async move {
                while let Some(request) = peer.request().await {
                    let path = request.line().split(' ').nth(1).unwrap().to_owned();
                    record.lock().unwrap().push(request);
                    let found = script.lock().unwrap().get(&path).cloned();
                    let (status, body) = found.unwrap_or((404, "nothing here".to_owned()));
                    peer.write(answer(status, &body)).await;
                }
            }
        })
        .await;
        Self { url: server.url.clone(), answers, asked }
    }

    pub fn set(&self, path: &str, status: u16, body: &str) {
        self.answers.lock().unwrap().insert(path.to_owned(), (status, body.to_owned()));
    }

    /// The path of every question.
    pub fn all_asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|request| request.line().split(' ').nth(1).unwrap().to_owned()).collect()
    }

    pub fn asked(&self, path: &str) -> Vec<Received> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|request| request.line().split(' ').nth(1) == Some(path)).cloned().collect()
    }
}

pub fn get(path: &'static str) -> LinkRequest {
    http::Request::get(path).body(RequestBody::empty()).unwrap()
}

pub fn post(path: &'static str, body: &'static str) -> LinkRequest {
    http::Request::post(path).body(RequestBody::from(body)).unwrap()
}

/// A body that comes in chunks and cannot be sent twice by itself.
pub fn streamed(chunks: impl IntoIterator<Item = Result<Bytes, std::io::Error>>) -> RequestBody {
    struct Chunks(std::collections::VecDeque<Result<Bytes, std::io::Error>>);
    impl http_body::Body for Chunks {
        type Data = Bytes;
        type Error = std::io::Error;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
            std::task::Poll::Ready(self.0.pop_front().map(|chunk| chunk.map(http_body::Frame::data)))
        }
    }
    RequestBody::stream(Chunks(chunks.into_iter().collect()))
}

/// Status and whole body.
pub async fn whole(response: Result<LinkResponse, LinkError>) -> Result<(u16, String), LinkError> {
    let (head, body) = response?.into_parts();
    let bytes = soon("the body", body.collect()).await?.to_bytes();
    Ok((head.status.as_u16(), String::from_utf8(bytes.to_vec()).unwrap()))
}

/// The next chunk of a body.
pub async fn chunk(body: &mut gateway_core::LinkBody) -> Option<Result<Bytes, LinkError>> {
    let frame = soon("a chunk", body.frame()).await?;
    Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
}
