//! The messages of a gRPC call out of the bytes of its body.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use gateway_core::BoxError;
use http::HeaderMap;
use http_body::Body;

use super::FRAME_BYTES;

/// A byte that says whether it is compressed, and four of its length.
const PREFIX: usize = 5;

/// Cuts messages out of a body. One that lies in one piece of the body is not copied.
///
/// Holds at most one message that is not whole, and one piece of the body.
pub(crate) struct Messages<B> {
    body: B,
    /// Came, and not looked at.
    chunk: Bytes,
    /// The beginning of a message whose rest has not come.
    partial: BytesMut,
    trailers: Option<HeaderMap>,
    ended: bool,
}

/// Why there are no more messages.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("a message is compressed, which was not agreed")]
    Compressed,
    #[error("a message of {0} bytes is too long; {FRAME_BYTES} may be")]
    TooLong(usize),
    #[error("the stream ended inside of a message")]
    Truncated,
    #[error("the call broke: {0}")]
    Broken(BoxError),
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    pub(crate) fn new(body: B) -> Self {
        Self { body, chunk: Bytes::new(), partial: BytesMut::new(), trailers: None, ended: false }
    }

    /// The trailers, after the end.
    pub(crate) fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }

    /// The next message, without its prefix; `None` at the end.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ReadError>> {
        loop {
            if let Some(message) = self.cut()? {
                return Poll::Ready(Ok(Some(message)));
            }
            if self.ended {
                let left = !self.partial.is_empty();
                return Poll::Ready(if left { Err(ReadError::Truncated) } else { Ok(None) });
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.chunk = data,
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Err(ReadError::Broken(error.into())));
                }
                None => self.ended = true,
            }
        }
    }

    /// Ready when the body has ended, whatever comes until then.
    pub(crate) fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.chunk = Bytes::new();
        self.partial = BytesMut::new();
        while !self.ended {
            self.ended = !matches!(ready!(Pin::new(&mut self.body).poll_frame(cx)), Some(Ok(_)));
        }
        Poll::Ready(())
    }

    /// The next message of what is there. If there is none, all of the chunk is taken.
    fn cut(&mut self) -> Result<Option<Bytes>, ReadError> {
        if self.partial.is_empty() {
            if let Some(len) = message_len(&self.chunk)?
                && self.chunk.len() - PREFIX >= len
            {
                self.chunk.advance(PREFIX);
                return Ok(Some(self.chunk.split_to(len)));
            }
            // The length that is announced is not believed before it is there.
            self.partial.extend_from_slice(&self.chunk);
            self.chunk = Bytes::new();
            return Ok(None);
        }
        self.gather(PREFIX);
        let Some(len) = message_len(&self.partial)? else { return Ok(None) };
        self.gather(PREFIX + len);
        if self.partial.len() < PREFIX + len {
            return Ok(None);
        }
        let mut message = std::mem::take(&mut self.partial).freeze();
        message.advance(PREFIX);
        Ok(Some(message))
    }

    /// Takes from the chunk until there are so many bytes of the message, if it has them.
    fn gather(&mut self, wanted: usize) {
        let take = wanted.saturating_sub(self.partial.len()).min(self.chunk.len());
        self.partial.extend_from_slice(&self.chunk.split_to(take));
    }
}

/// The length that a prefix announces, if it is there.
fn message_len(bytes: &[u8]) -> Result<Option<usize>, ReadError> {
    let Some((prefix, _)) = bytes.split_first_chunk::<PREFIX>() else { return Ok(None) };
    let [compressed, len @ ..] = *prefix;
    if compressed != 0 {
        return Err(ReadError::Compressed);
    }
    let len = u32::from_be_bytes(len) as usize;
    if len > FRAME_BYTES { Err(ReadError::TooLong(len)) } else { Ok(Some(len)) }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::future::poll_fn;

    use http_body::Frame;
    use proptest::prelude::*;

    use super::*;

    struct Pieces(VecDeque<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }

    /// What is read of these bytes, cut into pieces at these places.
    fn read(bytes: &[u8], cuts: &[usize]) -> (Vec<Bytes>, Option<String>) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| Bytes::copy_from_slice(&bytes[pair[0]..pair[1]])).collect();
        let mut messages = Messages::new(Pieces(pieces));
        let mut read = Vec::new();
        loop {
            let next = poll_fn(|cx| messages.poll_next(cx));
            match futures_util::FutureExt::now_or_never(next).unwrap() {
                Ok(Some(message)) => read.push(message),
                Ok(None) => return (read, None),
                Err(error) => return (read, Some(error.to_string())),
            }
        }
    }

    fn written(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            bytes.push(0);
            bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
            bytes.extend_from_slice(message);
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn messages_are_the_same_however_they_are_cut(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
            cuts in proptest::collection::vec(any::<usize>(), 0..30),
        ) {
            let (read, error) = read(&written(&messages), &cuts);
            prop_assert_eq!(error, None);
            prop_assert_eq!(read.iter().map(|message| message.to_vec()).collect::<Vec<_>>(), messages);
        }

        #[test]
        fn any_bytes_are_read_the_same_however_they_are_cut(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..200),
            cuts in proptest::collection::vec(any::<usize>(), 0..10),
        ) {
            prop_assert_eq!(read(&bytes, &cuts), read(&bytes, &[]));
        }
    }

    #[test]
    fn what_may_not_be_is_told() {
        assert!(read(&[1, 0, 0, 0, 0], &[]).1.unwrap().contains("compressed"));
        assert!(read(&[0, 0, 16, 0, 1], &[2]).1.unwrap().contains("1048577 bytes"));
        assert!(read(&[0, 0, 0, 0, 1], &[]).1.unwrap().contains("inside"));
        assert!(read(&[0, 0], &[]).1.unwrap().contains("inside"));
        assert_eq!(read(&[], &[]), (vec![], None));
    }
}
