//! Reading one HTTP/1.1 message after the other, as far as the rig needs it.

use std::fmt;

use memchr::memmem;

/// Which side of a connection is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Requests: no length means no body.
    Request,
    /// Answers: no length means until the connection ends.
    Answer,
}

/// What was found next.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A piece of the body.
    Data(&'a [u8]),
    /// The message is complete; [`Reader::begin`] gets ready for another.
    End,
    /// Nothing; more has to be read from the connection.
    More,
}

/// What cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not HTTP/1.1 that this reader understands")
    }
}

impl std::error::Error for Malformed {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Head,
    /// In a body of so many more bytes.
    Length(u64),
    UntilClose,
    /// In the line that tells a chunk's size.
    Size(u64),
    /// Behind the `;` of that line.
    Extension(u64),
    Chunk(u64),
    /// So many bytes of the line's end after a chunk are left.
    ChunkEnd(u8),
    /// After the last chunk; whether at the beginning of a line.
    Trailer(bool),
    End,
}

/// Reads the messages of one side of a connection, in pieces of any size.
#[derive(Debug)]
pub struct Reader {
    kind: Kind,
    head: Vec<u8>,
    at: At,
    closes: bool,
}

impl Reader {
    /// A head that is longer is not read.
    pub const LONGEST_HEAD: usize = 64 * 1024;

    /// At the beginning of the first message.
    pub fn new(kind: Kind) -> Self {
        Self { kind, head: Vec::new(), at: At::Head, closes: false }
    }

    /// Gets ready for the next message.
    pub fn begin(&mut self) {
        self.head.clear();
        self.at = At::Head;
        self.closes = false;
    }

    /// The head as far as it has come.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// The status of an answer whose head has come, else 0.
    pub fn status(&self) -> u16 {
        if self.at == At::Head {
            return 0;
        }
        self.head.get(9..12).and_then(number).and_then(|status| status.try_into().ok()).unwrap_or(0)
    }

    /// Whether nothing of a message has come.
    pub fn is_fresh(&self) -> bool {
        self.at == At::Head && self.head.is_empty()
    }

    /// Whether the connection ends with this message.
    pub fn closes(&self) -> bool {
        self.closes
    }

    /// Whether the end of the connection is the regular end of this message.
    pub fn ends_with_connection(&self) -> bool {
        self.at == At::UntilClose
    }

    /// Takes what it can from the front of `input`.
    ///
    /// # Errors
    /// It is not HTTP/1.1, or its head is too long.
    pub fn read<'a>(&mut self, input: &mut &'a [u8]) -> Result<Found<'a>, Malformed> {
        if self.at == At::Head && !self.read_head(input)? {
            return Ok(Found::More);
        }
        loop {
            match self.at {
                At::End | At::Length(0) => {
                    self.at = At::End;
                    return Ok(Found::End);
                }
                _ if input.is_empty() => return Ok(Found::More),
                At::UntilClose => return Ok(Found::Data(std::mem::take(input))),
                At::Length(left) => {
                    let piece = take(input, left);
                    self.at = At::Length(left - piece.len() as u64);
                    return Ok(Found::Data(piece));
                }
                At::Chunk(left) => {
                    let piece = take(input, left);
                    let left = left - piece.len() as u64;
                    self.at = if left == 0 { At::ChunkEnd(2) } else { At::Chunk(left) };
                    return Ok(Found::Data(piece));
                }
                _ => self.read_between(take(input, 1)[0])?,
            }
        }
    }

    /// Takes one byte of what is between two chunks.
    fn read_between(&mut self, byte: u8) -> Result<(), Malformed> {
        self.at = match (self.at, byte) {
            (At::Size(0) | At::Extension(0), b'\n') => At::Trailer(true),
            (At::Size(size) | At::Extension(size), b'\n') => At::Chunk(size),
            (At::Size(size), b'\r') => At::Size(size),
            (At::Size(size), b';') => At::Extension(size),
            (At::Size(size), digit) => {
                let digit = char::from(digit).to_digit(16).ok_or(Malformed)?;
                At::Size(size.checked_mul(16).ok_or(Malformed)? + u64::from(digit))
            }
            (At::ChunkEnd(1), _) => At::Size(0),
            (At::ChunkEnd(left), _) => At::ChunkEnd(left - 1),
            (At::Trailer(true), b'\n') => At::End,
            (At::Trailer(_), b'\n') => At::Trailer(true),
            (At::Trailer(start), b'\r') => At::Trailer(start),
            (At::Trailer(_), _) => At::Trailer(false),
            (at, _) => at,
        };
        Ok(())
    }

    /// Whether the head is complete.
    fn read_head(&mut self, input: &mut &[u8]) -> Result<bool, Malformed> {
        let before = self.head.len();
        self.head.extend_from_slice(input);
        let from = before.saturating_sub(3);
        let Some(end) = memmem::find(&self.head[from..], b"\r\n\r\n") else {
            *input = &[];
            return if self.head.len() > Self::LONGEST_HEAD { Err(Malformed) } else { Ok(false) };
        };
        let length = from + end + 4;
        self.head.truncate(length);
        *input = &input[length - before..];
        self.at = match self.kind {
            Kind::Request => At::Length(0),
            Kind::Answer => At::UntilClose,
        };
        for line in self.head.split(|byte| *byte == b'\n').skip(1) {
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                self.at = At::Length(number(value).ok_or(Malformed)?);
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                self.at = At::Size(0);
            } else if name.eq_ignore_ascii_case(b"connection") && value.eq_ignore_ascii_case(b"close") {
                self.closes = true;
            }
        }
        self.closes |= self.at == At::UntilClose;
        Ok(true)
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// At most so many bytes from the front.
fn take<'a>(input: &mut &'a [u8], most: u64) -> &'a [u8] {
    let most = usize::try_from(most).unwrap_or(usize::MAX).min(input.len());
    let (piece, rest) = input.split_at(most);
    *input = rest;
    piece
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bodies of all complete messages, read in pieces of `step` bytes.
    fn bodies(kind: Kind, wire: &[u8], step: usize) -> Vec<String> {
        let (mut reader, mut body, mut bodies) = (Reader::new(kind), Vec::new(), Vec::new());
        for mut input in wire.chunks(step) {
            loop {
                match reader.read(&mut input).unwrap() {
                    Found::Data(piece) => body.extend_from_slice(piece),
                    Found::More => break,
                    Found::End => {
                        bodies.push(String::from_utf8(std::mem::take(&mut body)).unwrap());
                        reader.begin();
                    }
                }
            }
        }
        bodies
    }

    #[test]
    fn lengths_and_chunks_in_pieces_of_any_size() {
        let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
            HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n02\r\nlo\r\n0\r\nA: b\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        for step in 1..wire.len() {
            assert_eq!(bodies(Kind::Answer, wire, step), ["hello", "hello", ""], "in steps of {step}");
        }
    }

    #[test]
    fn a_request_without_length_has_no_body_and_an_answer_lasts_to_the_end() {
        assert_eq!(bodies(Kind::Request, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", 4), [""]);
        let mut reader = Reader::new(Kind::Answer);
        let mut input: &[u8] = b"HTTP/1.1 503 Busy\r\n\r\nabc";
        assert_eq!(reader.read(&mut input), Ok(Found::Data(b"abc")));
        assert_eq!((reader.status(), reader.closes(), reader.ends_with_connection()), (503, true, true));
    }

    #[test]
    fn what_is_not_http_is_refused() {
        let mut reader = Reader::new(Kind::Answer);
        let mut input: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n";
        assert_eq!(reader.read(&mut input), Err(Malformed));
    }
}
