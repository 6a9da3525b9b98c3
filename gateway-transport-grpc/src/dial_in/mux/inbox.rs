//! What has come on a stream and was not yet taken.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Chunks below this size are put together while the reader is behind: each would otherwise keep the whole
/// buffer that it was received in, and a place in the queue.
const COPIED_BELOW: usize = 4 * 1024;

/// Bounded by the stream's window, in bytes and so in chunks.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
}

impl Inbox {
    pub(super) fn push(&mut self, data: Bytes) {
        if data.len() < COPIED_BELOW && !self.is_empty() {
            self.tail.extend_from_slice(&data);
            return;
        }
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
        self.chunks.push_back(data);
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let tail = &mut self.tail;
        self.chunks.pop_front().or_else(|| (!tail.is_empty()).then(|| std::mem::take(tail).freeze()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.tail.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_byte_comes_out_in_order(
            steps in proptest::collection::vec(proptest::option::weighted(0.6, 1usize..9000), 0..60),
        ) {
            let mut inbox = Inbox::default();
            let (mut put, mut taken) = (Vec::new(), Vec::new());
            for (at, step) in steps.into_iter().enumerate() {
                match step {
                    Some(len) => {
                        let data = vec![at as u8; len];
                        put.extend_from_slice(&data);
                        inbox.push(data.into());
                    }
                    None => taken.extend_from_slice(&inbox.pop().unwrap_or_default()),
                }
            }
            while let Some(chunk) = inbox.pop() {
                prop_assert!(!chunk.is_empty());
                taken.extend_from_slice(&chunk);
            }
            prop_assert!(inbox.is_empty() && put == taken);
        }
    }

    #[test]
    fn tiny_chunks_that_wait_are_few() {
        let mut inbox = Inbox::default();
        (0..65_536).for_each(|_| inbox.push(Bytes::from_static(b"x")));
        assert_eq!(inbox.chunks.len(), 1);
    }
}
