//! Connections that change to another protocol: the client's side of them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use gateway_core::{BoxError, CancellationToken, DispatchBody};
use http::Version;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http_body::{Body, Frame};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf, ReadHalf};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

type Client = TokioIo<Upgraded>;

/// The most that is read from a client at once, in bytes.
const CHUNK: usize = 16 * 1024;

/// The protocol that a request asks for. An offer of HTTP/2 is none: that is for the host's server to take or
/// leave.
pub(super) fn wanted(request: &Parts) -> Option<HeaderValue> {
    let lists = |name, wanted: &str| {
        let values = request.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    if request.version != Version::HTTP_11
        || !lists(header::CONNECTION, "upgrade")
        || lists(header::UPGRADE, "h2c")
    {
        return None;
    }
    request.headers.get(header::UPGRADE).cloned()
}

/// A client's connection that will have changed when its 101 is out.
pub(super) struct Changing {
    client: OnUpgrade,
    reader: oneshot::Sender<ReadHalf<Client>>,
}

impl Changing {
    /// The connection, and what will come over it for the runner.
    pub(super) fn new(client: OnUpgrade) -> (Self, FromClient) {
        let (reader, coming) = oneshot::channel();
        (Self { client, reader }, FromClient { source: Source::Coming(coming), buffer: BytesMut::new() })
    }

    /// Passes on what the runner sends until that ends, the client goes or `stop` says so. What the client sends
    /// is passed on meanwhile, because the runner's answer is read.
    pub(super) async fn splice(
        self,
        answer: DispatchBody,
        stop: CancellationToken,
        _place: OwnedSemaphorePermit,
    ) {
        let Self { client, reader } = self;
        let passing = async {
            let client = TokioIo::new(client.await?);
            let (read, mut write) = tokio::io::split(client);
            // Nobody may want it: then the runner takes nothing.
            let _ = reader.send(read);
            let mut answer = std::pin::pin!(answer);
            while let Some(frame) = std::future::poll_fn(|cx| answer.as_mut().poll_frame(cx)).await {
                if let Ok(data) = frame?.into_data() {
                    write.write_all(&data).await?;
                    write.flush().await?;
                }
            }
            write.shutdown().await?;
            Ok::<_, BoxError>(())
        };
        match stop.run_until_cancelled(passing).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(error, "a connection of another protocol broke off"),
            None => tracing::debug!("a connection of another protocol was cut: the gateway shuts down"),
        }
    }
}

/// What a client sends after its connection has changed.
pub(super) struct FromClient {
    source: Source,
    buffer: BytesMut,
}

enum Source {
    Coming(oneshot::Receiver<ReadHalf<Client>>),
    Here(ReadHalf<Client>),
    Over,
}

impl Body for FromClient {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            match &mut this.source {
                Source::Coming(coming) => {
                    this.source = match ready!(Pin::new(coming).poll(cx)) {
                        Ok(client) => Source::Here(client),
                        Err(_) => Source::Over,
                    };
                }
                Source::Here(client) => {
                    this.buffer.resize(CHUNK, 0);
                    let mut read = ReadBuf::new(&mut this.buffer);
                    let polled = ready!(Pin::new(client).poll_read(cx, &mut read));
                    let filled = read.filled().len();
                    if polled.is_err() || filled == 0 {
                        this.source = Source::Over;
                    }
                    polled?;
                    if filled > 0 {
                        return Poll::Ready(Some(Ok(Frame::data(this.buffer.split_to(filled).freeze()))));
                    }
                }
                Source::Over => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Over)
    }
}
