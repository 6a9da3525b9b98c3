//! Where one gRPC message ends and the next begins.

use bytes::{Buf, Bytes, BytesMut};

/// Before each message: one byte that says whether it is compressed, four that say how long it is.
pub(crate) const PREFIX: usize = 5;

/// Why the bytes are no messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a message is compressed, which was not offered")]
    Compressed,
    #[error("a message of {0} bytes is longer than is allowed; raise the limit if it is meant to be")]
    TooLong(usize),
    #[error("a message broke off")]
    Unfinished,
}

/// Cuts what comes in DATA frames into messages.
///
/// A message that lies in one frame is a slice of it. Only what is spread over several is put together, and
/// no more room is taken for it than has arrived.
#[derive(Debug)]
pub(crate) struct Frames {
    current: Bytes,
    /// The beginning of a message whose rest has not come.
    begun: BytesMut,
    limit: usize,
}

impl Frames {
    pub(crate) fn new(limit: usize) -> Self {
        Self { current: Bytes::new(), begun: BytesMut::new(), limit }
    }

    /// What has arrived. To be called only after [`next`](Frames::next) gave nothing.
    pub(crate) fn push(&mut self, data: Bytes) {
        debug_assert!(self.current.is_empty());
        self.current = data;
    }

    /// The next message, if all of it is here.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.begun.is_empty() {
            let Some(len) = self.len_of(&self.current)? else { return Ok(self.put_by()) };
            if self.current.len() < PREFIX + len {
                return Ok(self.put_by());
            }
            self.current.advance(PREFIX);
            return Ok(Some(self.current.split_to(len)));
        }
        while self.begun.len() < PREFIX {
            if self.current.is_empty() {
                return Ok(None);
            }
            let missing = PREFIX - self.begun.len();
            self.take(missing);
        }
        let Some(len) = self.len_of(&self.begun)? else { return Ok(None) };
        self.take(PREFIX + len - self.begun.len());
        if self.begun.len() < PREFIX + len {
            return Ok(None);
        }
        let mut message = std::mem::take(&mut self.begun).freeze();
        message.advance(PREFIX);
        Ok(Some(message))
    }

    /// Whether what came ends where a message does.
    pub(crate) fn end(&self) -> Result<(), FrameError> {
        let whole = self.begun.is_empty() && self.current.is_empty();
        if whole { Ok(()) } else { Err(FrameError::Unfinished) }
    }

    fn len_of(&self, from: &[u8]) -> Result<Option<usize>, FrameError> {
        let Some((&[flag, a, b, c, d], _)) = from.split_first_chunk::<PREFIX>() else { return Ok(None) };
        if flag != 0 {
            return Err(FrameError::Compressed);
        }
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        if len > self.limit { Err(FrameError::TooLong(len)) } else { Ok(Some(len)) }
    }

    fn put_by(&mut self) -> Option<Bytes> {
        let len = self.current.len();
        self.take(len);
        None
    }

    fn take(&mut self, most: usize) {
        let now = most.min(self.current.len());
        self.begun.extend_from_slice(&self.current[..now]);
        self.current.advance(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut all = vec![0];
        all.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        all.extend_from_slice(message);
        all
    }

    #[test]
    fn messages_come_out_however_they_are_cut() {
        let messages: [&[u8]; 4] = [b"one", b"", b"three and more", b"4"];
        let all: Vec<u8> = messages.iter().flat_map(|message| framed(message)).collect();
        for size in 1..=all.len() {
            let mut frames = Frames::new(100);
            let mut out = Vec::new();
            for piece in all.chunks(size) {
                frames.push(Bytes::copy_from_slice(piece));
                while let Some(message) = frames.next().unwrap() {
                    out.push(message);
                }
            }
            assert_eq!(out, messages, "in pieces of {size}");
            assert_eq!(frames.end(), Ok(()));
        }
    }

    #[test]
    fn what_is_not_allowed() {
        let mut frames = Frames::new(3);
        frames.push(framed(b"four").into());
        assert_eq!(frames.next(), Err(FrameError::TooLong(4)));
        let mut frames = Frames::new(3);
        frames.push(Bytes::from_static(&[1, 0, 0, 0, 0]));
        assert_eq!(frames.next(), Err(FrameError::Compressed));
        let mut frames = Frames::new(3);
        frames.push(Bytes::from_static(&[0, 0, 0, 0, 2, b'x']));
        assert_eq!(frames.next(), Ok(None));
        assert_eq!(frames.end(), Err(FrameError::Unfinished));
    }

    #[test]
    fn a_promised_length_takes_no_room() {
        let mut frames = Frames::new(usize::MAX);
        frames.push(Bytes::from_static(&[0, 255, 255, 255, 255, 1]));
        assert_eq!(frames.next(), Ok(None));
        assert!(frames.begun.capacity() < 1024);
    }
}
