//! One connection of the load, and the exchange that is under way on it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use gateway_benches::wire::clock::now;
use gateway_benches::wire::message::{Found, Kind, Reader};
use memchr::memmem;
use socket2::{Domain, Socket, Type};

use super::measure::Measured;

/// What of an answer that is not a stream of chunks is kept, to tell what went wrong.
const KEPT: usize = 300;

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Complete,
    /// The connection is of no use any more.
    Broken,
}

#[derive(Debug)]
pub(super) struct Exchange {
    socket: Option<TcpStream>,
    reader: Reader,
    pub(super) busy: bool,
    sent: usize,
    /// When the request was due; latency counts from here.
    due: u64,
    chunks: u32,
    last_chunk: u64,
    done: bool,
    /// The beginning of a line whose end has not come, or of an answer that is not a stream.
    kept: Vec<u8>,
}

impl Exchange {
    pub(super) fn new() -> Self {
        Self {
            socket: None,
            reader: Reader::new(Kind::Answer),
            busy: false,
            sent: 0,
            due: 0,
            chunks: 0,
            last_chunk: 0,
            done: false,
            kept: Vec::new(),
        }
    }

    /// The connection, if there is one.
    pub(super) fn socket(&self) -> Option<&TcpStream> {
        self.socket.as_ref()
    }

    /// Connects from this address. Blocks until it stands: the gateway is on this machine.
    pub(super) fn connect(&mut self, from: Ipv4Addr, to: SocketAddr) -> std::io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if from != Ipv4Addr::LOCALHOST {
            socket.bind(&SocketAddr::from((from, 0)).into())?;
        }
        socket.connect(&to.into())?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        self.socket = Some(socket.into());
        Ok(())
    }

    pub(super) fn disconnect(&mut self) {
        self.socket = None;
    }

    /// Gets ready for a request that is due then.
    pub(super) fn begin(&mut self, due: u64) {
        self.reader.begin();
        self.kept.clear();
        (self.busy, self.done) = (true, false);
        (self.sent, self.chunks, self.due) = (0, 0, due);
    }

    /// Whether its stream has begun.
    pub(super) fn has_chunks(&self) -> bool {
        self.chunks > 0
    }

    /// Sends what fits of the request. If that is nothing, the other side will be heard of.
    pub(super) fn write(&mut self, request: &[u8]) {
        let Some(mut socket) = self.socket.as_ref() else { return };
        while self.busy && self.sent < request.len() {
            match socket.write(&request[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Reads what there is. `to_the_end`: the other side has ended. `stream`: whether chunks are awaited.
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        to_the_end: bool,
        stream: bool,
        measured: &mut Measured,
    ) -> Option<Ended> {
        loop {
            let mut socket = self.socket.as_ref()?;
            let count = match socket.read(buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Some(Ended::Broken),
            };
            if count == 0 {
                let regular = self.busy && self.reader.ends_with_connection();
                return Some(if regular { Ended::Complete } else { Ended::Broken });
            }
            let time = now();
            let mut input = &buffer[..count];
            loop {
                match self.reader.read(&mut input) {
                    Ok(Found::Data(piece)) if stream && self.reader.status() == 200 => {
                        self.events(piece, time, measured);
                    }
                    Ok(Found::Data(piece)) => {
                        let room = KEPT.saturating_sub(self.kept.len()).min(piece.len());
                        self.kept.extend_from_slice(&piece[..room]);
                    }
                    Ok(Found::End) => return Some(Ended::Complete),
                    Ok(Found::More) => break,
                    Err(_) => return Some(Ended::Broken),
                }
            }
            if count < buffer.len() && !to_the_end {
                return None;
            }
        }
    }

    /// Takes a piece of an event stream, line by line.
    fn events(&mut self, piece: &[u8], time: u64, measured: &mut Measured) {
        let mut rest = piece;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            if self.kept.is_empty() {
                self.line(line, time, measured);
            } else {
                let mut whole = std::mem::take(&mut self.kept);
                whole.extend_from_slice(line);
                self.line(&whole, time, measured);
            }
        }
        self.kept.extend_from_slice(rest);
    }

    fn line(&mut self, line: &[u8], time: u64, measured: &mut Measured) {
        let Some(data) = line.strip_prefix(b"data:") else { return };
        if data.trim_ascii() == b"[DONE]" {
            self.done = true;
            return;
        }
        // What came together may be told together.
        for at in memmem::find_iter(data, b"@T") {
            let Some(stamp) = data.get(at + 2..at + 21).and_then(stamp) else { continue };
            self.chunk(stamp, time, measured);
        }
    }

    fn chunk(&mut self, stamp: u64, time: u64, measured: &mut Measured) {
        self.chunks += 1;
        measured.all_chunks += 1;
        if measured.is_within(time, time) {
            measured.chunks += 1;
            measured.transit.record(time.saturating_sub(stamp));
            if self.chunks > 1 {
                measured.gap.record(time.saturating_sub(self.last_chunk));
            } else if measured.is_within(self.due, time) {
                measured.first_chunk.record(time.saturating_sub(self.due));
            }
        }
        self.last_chunk = time;
    }

    /// Counts an exchange that has ended, and closes the connection if it is over. `expected`: the chunks that a
    /// stream should have had.
    pub(super) fn end(&mut self, ended: Ended, expected: Option<u32>, measured: &mut Measured) {
        let time = now();
        self.busy = false;
        let status = self.reader.status();
        let problem = if ended == Ended::Broken {
            measured.broken += 1;
            format!("the connection broke after {} chunks, status {status}", self.chunks)
        } else if status != 200 {
            measured.bad_status += 1;
            format!("status {status}: {}", String::from_utf8_lossy(&self.kept))
        } else if expected.is_some_and(|expected| !self.done || self.chunks != expected) {
            measured.incomplete += 1;
            format!("a stream ended after {} chunks, its last event: {}", self.chunks, self.done)
        } else {
            measured.all_ok += 1;
            if measured.is_within(self.due, time) {
                measured.ok += 1;
                measured.latency.record(time - self.due);
            }
            String::new()
        };
        if !problem.is_empty() {
            measured.problem.get_or_insert(problem);
        }
        if ended == Ended::Broken || self.reader.closes() {
            self.disconnect();
        }
    }
}

/// The time that a chunk holds.
fn stamp(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |sum, digit| {
        digit.is_ascii_digit().then(|| sum.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_counted_wherever_the_stream_is_cut() {
        let events = "data: {\"content\":\"@T0000000000000001000 \"}\n\n: a comment\n\n\
            data: {\"content\":\"@T0000000000000002000 @T0000000000000003000 \"}\r\n\r\ndata: [DONE]\n\n";
        for step in 1..events.len() {
            let (mut exchange, mut measured) = (Exchange::new(), Measured::new());
            measured.window = (0, u64::MAX);
            for piece in events.as_bytes().chunks(step) {
                exchange.events(piece, 5_000, &mut measured);
            }
            assert_eq!((exchange.chunks, exchange.done), (3, true), "in steps of {step}");
            assert_eq!((measured.chunks, measured.all_chunks), (3, 3));
        }
    }
}
