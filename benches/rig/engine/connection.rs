//! One connection of the mock engine, and what is under way on it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use gateway_benches::wire::message::{Found, Kind, Reader};
use gateway_benches::wire::script::Script;

use super::answer::{Form, Sample};

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The next request is awaited or being read.
    Reading,
    /// A plain answer is due later.
    Delayed(Form),
    /// Chunks are being sent.
    Streaming(Stream),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) form: Form,
    pub(super) script: Script,
    pub(super) usage: bool,
    pub(super) sent: u32,
    /// When the next chunk is due. On a fixed schedule, so that late ones do not shift the others.
    pub(super) due: u64,
}

/// What came of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    Nothing,
    /// A whole request, which is to be answered.
    Request,
    /// The connection is over.
    End,
}

#[derive(Debug)]
pub(super) struct Connection {
    socket: TcpStream,
    pub(super) reader: Reader,
    pub(super) sample: Sample,
    pub(super) turn: Turn,
    /// Tells this connection from an earlier one in the same place.
    pub(super) generation: u32,
    /// What the socket did not take yet, and how much of it went since.
    unsent: Vec<u8>,
    gone: usize,
}

impl Connection {
    pub(super) fn new(socket: TcpStream, generation: u32) -> Self {
        Self {
            socket,
            reader: Reader::new(Kind::Request),
            sample: Sample::default(),
            turn: Turn::Reading,
            generation,
            unsent: Vec::new(),
            gone: 0,
        }
    }

    /// Reads until a request is complete or nothing more is there. `to_the_end`: the other side has ended.
    pub(super) fn read(&mut self, buffer: &mut [u8], to_the_end: bool) -> Came {
        loop {
            let count = match (&self.socket).read(buffer) {
                Ok(0) => return Came::End,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Came::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Came::End,
            };
            if self.turn != Turn::Reading {
                // Nobody here sends a request before the last one is answered.
                return Came::End;
            }
            let mut input = &buffer[..count];
            loop {
                match self.reader.read(&mut input) {
                    Ok(Found::Data(piece)) => self.sample.add(piece),
                    Ok(Found::End) => return if to_the_end { Came::End } else { Came::Request },
                    Ok(Found::More) => break,
                    Err(_) => return Came::End,
                }
            }
            if count < buffer.len() && !to_the_end {
                return Came::Nothing;
            }
        }
    }

    /// Gets ready for the next request.
    pub(super) fn begin(&mut self) {
        self.turn = Turn::Reading;
        self.reader.begin();
        self.sample.clear();
    }

    /// Whether everything that was sent has gone.
    pub(super) fn has_room(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Sends, and keeps what does not fit. False if the connection is over.
    pub(super) fn send(&mut self, bytes: &[u8]) -> bool {
        if !self.has_room() {
            self.unsent.extend_from_slice(bytes);
            return true;
        }
        match (&self.socket).write(bytes) {
            Ok(count) => {
                self.unsent.extend_from_slice(&bytes[count..]);
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                self.unsent.extend_from_slice(bytes);
                true
            }
            Err(_) => false,
        }
    }

    /// Sends what was kept. False if the connection is over.
    pub(super) fn flush(&mut self) -> bool {
        while self.gone < self.unsent.len() {
            match (&self.socket).write(&self.unsent[self.gone..]) {
                Ok(count) => self.gone += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        self.unsent.clear();
        self.gone = 0;
        true
    }
}
