//! Clients on Unix sockets that name a path where HTTP/2 wants a host.
//!
//! gRPC's C core (Python, C++, Ruby, …) sends the percent-encoded path of the socket as `:authority`, grpc-java the path
//! as it is. No HTTP/2 library in Rust takes that: the call ends with PROTOCOL_ERROR before any service hears of it.
//! The name means nothing on a Unix socket. So bytes in it that no host has are replaced, one for one, before the library
//! reads them; its length and everything else stays. HPACK compresses across requests, but whoever inserts a name into
//! its table sends it in full first, and that is here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A server's connection on a Unix socket, with an `:authority` that HTTP/2 libraries take.
///
/// Wrap what a `UnixListener` accepts in it, if it is served with HTTP/2 from the first byte on, and clients may be
/// written in Python, C++ or Java. What is sent passes as it is.
#[derive(Debug)]
pub struct LenientAuthority<I> {
    io: I,
    reader: Reader,
}

impl<I> LenientAuthority<I> {
    /// Around a connection of which nothing has been read.
    pub fn new(io: I) -> Self {
        Self { io, reader: Reader::default() }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for LenientAuthority<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if let Some(new) = buf.filled_mut().get_mut(before..) {
            self.reader.read(new);
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for LenientAuthority<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// What a client sends before its first frame: `PRI * HTTP/2.0` and so on.
const PREFACE: u32 = 24;
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Of a stream's priority, in a frame of headers.
const PRIORITY_LEN: u32 = 5;

/// Follows the frames. Bytes that are none of HTTP/2 lead it astray and nowhere else: the library refuses them.
#[derive(Debug)]
struct Reader {
    at: At,
    block: Block,
}

#[derive(Debug)]
enum At {
    /// Bytes that are of no interest, and what follows them.
    Skip(u32, Next),
    Head([u8; FRAME_HEAD], usize),
    /// The length of the padding; of the frame's payload so much is left.
    PadLen {
        left: u32,
        flags: u8,
    },
    /// Headers, then padding.
    Fields {
        left: u32,
        padding: u32,
        flags: u8,
    },
}

#[derive(Debug, Clone, Copy)]
enum Next {
    Head,
    Fields { left: u32, padding: u32, flags: u8 },
}

impl Default for Reader {
    fn default() -> Self {
        Self { at: At::Skip(PREFACE, Next::Head), block: Block::Field }
    }
}

impl Reader {
    fn read(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let taken = self.step(bytes);
            bytes = &mut bytes[taken..];
        }
    }

    /// How many of the bytes it took, at least one.
    fn step(&mut self, bytes: &mut [u8]) -> usize {
        match &mut self.at {
            At::Skip(left, next) => {
                let taken = bytes.len().min(*left as usize);
                *left -= taken as u32;
                if *left == 0 {
                    self.at = next.begin();
                }
                taken
            }
            At::Head(head, have) => {
                head[*have] = bytes[0];
                *have += 1;
                if *have == FRAME_HEAD {
                    self.at = after_head(*head);
                }
                1
            }
            At::PadLen { left, flags } => {
                let padding = u32::from(bytes[0]);
                self.at = fields(left.saturating_sub(1), padding, *flags);
                1
            }
            At::Fields { left, padding, flags } => {
                let taken = bytes.len().min(*left as usize);
                for byte in &mut bytes[..taken] {
                    self.block.read(byte);
                }
                *left -= taken as u32;
                if *left == 0 {
                    if *flags & END_HEADERS != 0 {
                        self.block = Block::Field;
                    }
                    self.at = skip(*padding, Next::Head);
                }
                taken
            }
        }
    }
}

impl Next {
    fn begin(self) -> At {
        match self {
            Self::Head => At::Head([0; FRAME_HEAD], 0),
            Self::Fields { left: 0, padding, .. } => skip(padding, Self::Head),
            Self::Fields { left, padding, flags } => At::Fields { left, padding, flags },
        }
    }
}

fn skip(bytes: u32, next: Next) -> At {
    if bytes == 0 { next.begin() } else { At::Skip(bytes, next) }
}

fn after_head(head: [u8; FRAME_HEAD]) -> At {
    let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    match (head[3], head[4]) {
        (_, _) if len == 0 => Next::Head.begin(),
        (HEADERS, flags) if flags & PADDED != 0 => At::PadLen { left: len, flags },
        (HEADERS, flags) => fields(len, 0, flags),
        (CONTINUATION, flags) => Next::Fields { left: len, padding: 0, flags }.begin(),
        _ => skip(len, Next::Head),
    }
}

/// The fields in so many bytes of a frame of headers.
fn fields(len: u32, padding: u32, flags: u8) -> At {
    let priority = if flags & PRIORITY != 0 { PRIORITY_LEN.min(len) } else { 0 };
    let padding = padding.min(len - priority);
    skip(priority, Next::Fields { left: len - priority - padding, padding, flags })
}

const AUTHORITY: &[u8] = b":authority";
/// Where it stands in HPACK's own table.
const AUTHORITY_INDEX: u8 = 1;

/// A block of compressed headers (RFC 7541, section 6), as far as it must be known where strings begin.
#[derive(Debug, Clone, Copy)]
enum Block {
    Field,
    /// The rest of a number, and what follows it.
    Number(After),
    /// The length of a string.
    Len(Text),
    /// The rest of that length: what it is so far, and by how many bits the next part is shifted.
    LongLen {
        text: Text,
        len: u32,
        shift: u32,
        is_coded: bool,
    },
    String {
        text: Text,
        left: u32,
        is_coded: bool,
    },
}

#[derive(Debug, Clone, Copy)]
enum After {
    Field,
    Value,
}

#[derive(Debug, Clone, Copy)]
enum Text {
    /// How much of it is as [`AUTHORITY`] is; `None` if it differs.
    Name(Option<usize>),
    Value {
        of_authority: bool,
    },
}

impl Block {
    fn read(&mut self, byte: &mut u8) {
        *self = match *self {
            Self::Field => Self::field(*byte),
            Self::Number(after) if *byte & 0x80 != 0 => Self::Number(after),
            Self::Number(After::Field) => Self::Field,
            Self::Number(After::Value) => Self::Len(Text::Value { of_authority: false }),
            Self::Len(text) => {
                let is_coded = *byte & 0x80 != 0;
                match *byte & 0x7f {
                    0x7f => Self::LongLen { text, len: 0x7f, shift: 0, is_coded },
                    len => Self::string(text, len.into(), is_coded),
                }
            }
            Self::LongLen { text, len, shift, is_coded } => {
                let more = u32::from(*byte & 0x7f).checked_shl(shift).unwrap_or(u32::MAX);
                let len = len.saturating_add(more);
                match *byte & 0x80 {
                    0 => Self::string(text, len, is_coded),
                    _ => Self::LongLen { text, len, shift: shift.saturating_add(7), is_coded },
                }
            }
            Self::String { text, left, is_coded } => {
                let text = text.read(byte, is_coded);
                if left == 1 { text.ended() } else { Self::String { text, left: left - 1, is_coded } }
            }
        };
    }

    fn field(byte: u8) -> Self {
        // The kinds differ in how many bits are left for a name's index.
        let bits = match byte.leading_zeros() {
            0 => return if byte == 0xff { Self::Number(After::Field) } else { Self::Field },
            1 => 6,
            // The size of the table.
            2 => return if byte & 0x1f == 0x1f { Self::Number(After::Field) } else { Self::Field },
            _ => 4,
        };
        let most = (1 << bits) - 1;
        match byte & most {
            0 => Self::Len(Text::Name(Some(0))),
            index if index == most => Self::Number(After::Value),
            index => Self::Len(Text::Value { of_authority: index == AUTHORITY_INDEX }),
        }
    }

    fn string(text: Text, len: u32, is_coded: bool) -> Self {
        if len == 0 { text.ended() } else { Self::String { text, left: len, is_coded } }
    }
}

impl Text {
    fn read(self, byte: &mut u8, is_coded: bool) -> Self {
        match self {
            Self::Name(same) => {
                let is_next = |at: &usize| !is_coded && AUTHORITY.get(*at) == Some(byte);
                Self::Name(same.filter(is_next).map(|at| at + 1))
            }
            // One in Huffman's code is left alone: those who send paths do not use it.
            Self::Value { of_authority: true } if !is_coded && !is_of_hosts(*byte) => {
                *byte = b'-';
                self
            }
            Self::Value { .. } => self,
        }
    }

    fn ended(self) -> Block {
        match self {
            Self::Name(same) => Block::Len(Self::Value { of_authority: same == Some(AUTHORITY.len()) }),
            Self::Value { .. } => Block::Field,
        }
    }
}

fn is_of_hosts(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_~:[]".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![len[1], len[2], len[3], kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    fn literal(first: u8, text: &[u8]) -> Vec<u8> {
        [&[first, u8::try_from(text.len()).unwrap()], text].concat()
    }

    fn passed(mut bytes: Vec<u8>, pieces: usize) -> Vec<u8> {
        let mut reader = Reader::default();
        bytes.chunks_mut(pieces).for_each(|piece| reader.read(piece));
        bytes
    }

    /// A connection with one frame of each kind; `host` stands wherever an authority can.
    fn connection(host: &[u8]) -> Vec<u8> {
        let named = [&literal(0x40, b":authority")[..], &literal(0, host)[1..]].concat();
        let path = literal(0x44, b"/a%2Fb/c");
        let other = [&literal(0x00, b"x-path")[..], &literal(0, b"/tmp/%")[1..]].concat();
        let block = [
            &[0x83, 0xff, 0x80, 0x01, 0x3f, 0x01][..],
            &path,
            &literal(0x41, host),
            &other,
            &[0x7f, 0x05, 0x02, b'/', b'%'],
        ]
        .concat();
        let (begin, rest) = block.split_at(block.len() - 20);
        let padded = [&[3][..], &[0; 5], &named, b"%/%"].concat();
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, &[]),
            frame(HEADERS, 0, begin),
            frame(CONTINUATION, END_HEADERS, rest),
            frame(0, 0, b"\x41\x03%/%data"),
            frame(HEADERS, END_HEADERS | PADDED | PRIORITY, &padded),
            frame(HEADERS, END_HEADERS, &literal(0x11, host)),
            frame(HEADERS, END_HEADERS, &literal(0x01, host)),
        ]
        .concat()
    }

    #[test]
    fn only_the_authority_is_touched_however_it_is_cut() {
        let (sent, wanted) = (connection(b"tmp%2Fg.sock"), connection(b"tmp-2Fg.sock"));
        for pieces in [1, 2, 3, 7, 64, sent.len()] {
            assert_eq!(passed(sent.clone(), pieces), wanted, "in pieces of {pieces}");
        }
        assert_eq!(passed(connection(b"/run/g @.sock"), 5), connection(b"-run-g--.sock"));
        for fine in [&b"localhost"[..], b"127.0.0.1:50050", b"[::1]:1"] {
            assert_eq!(passed(connection(fine), 5), connection(fine));
        }
    }

    #[test]
    fn a_long_one_is_found_to_its_end() {
        let host = b"%a".repeat(200);
        // 400 is 127 and 273, which is 0x91 0x02 seven bits at a time.
        let block = |host: &[u8]| [&[0x41, 0x7f, 0x91, 0x02][..], host, &[0x84]].concat();
        let whole = |host: &[u8]| [vec![0; 24], frame(HEADERS, END_HEADERS, &block(host))].concat();
        assert_eq!(passed(whole(&host), 11), whole(&b"-a".repeat(200)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn any_bytes_pass_in_their_number(bytes in prop::collection::vec(any::<u8>(), 0..512), pieces in 1_usize..64) {
            let whole = passed(bytes.clone(), 1024);
            prop_assert_eq!(&whole, &passed(bytes.clone(), pieces));
            for (before, after) in bytes.iter().zip(&whole) {
                prop_assert!(before == after || *after == b'-');
            }
        }
    }
}
