//! The mock engine's one thread: who is ready, what is due, what is sent.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use gateway_benches::wire::clock::now;
use gateway_benches::wire::poller::{Poller, Ready};
use socket2::{Domain, Socket, Type};

use super::answer::{Asked, Form, Page, Texts, page};
use super::connection::{Came, Connection, Stream, Turn};

/// Connections that wait to be accepted: a thousand streams may come at once.
const BACKLOG: i32 = 4096;
/// What is read at once: a large prompt in few pieces.
const READ_BYTES: usize = 256 * 1024;

/// One exchange: which connection, and which one of those that were in that place.
type Place = (usize, u32);

/// What all ports together have done.
#[derive(Debug, Default)]
struct Totals {
    completions: u64,
    under_way: u64,
    /// Those whose client went before the end.
    aborted: u64,
    chunks: u64,
}

pub(super) struct Server {
    poller: Poller,
    listeners: Vec<TcpListener>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    generation: u32,
    /// What is due later.
    timers: BinaryHeap<Reverse<(u64, Place)>>,
    /// Streams whose next chunk is due at once.
    eager: VecDeque<Place>,
    texts: Texts,
    totals: Totals,
}

impl Server {
    /// Listens on these ports of the loopback address.
    pub(super) fn listen(ports: &[u16]) -> io::Result<Self> {
        let poller = Poller::new()?;
        let mut listeners = Vec::with_capacity(ports.len());
        for port in ports {
            let listener = listen(*port).map_err(|error| {
                io::Error::new(error.kind(), format!("cannot listen on port {port}: {error}"))
            })?;
            poller.watch(&listener, listeners.len() as u64)?;
            listeners.push(listener);
        }
        Ok(Self {
            poller,
            listeners,
            connections: Vec::new(),
            free: Vec::new(),
            generation: 0,
            timers: BinaryHeap::new(),
            eager: VecDeque::new(),
            texts: Texts::new(),
            totals: Totals::default(),
        })
    }

    /// Serves until the process is ended.
    pub(super) fn run(mut self) -> io::Result<()> {
        println!("listening");
        let (mut ready, mut buffer) = (Vec::new(), vec![0; READ_BYTES]);
        loop {
            let limit = if self.eager.is_empty() { None } else { Some(Duration::ZERO) };
            self.poller.wake_at(self.timers.peek().map(|Reverse((due, _))| *due))?;
            self.poller.wait(&mut ready, limit)?;
            for event in &ready {
                self.handle(*event, &mut buffer);
            }
            self.send_due();
            // One chunk of each and then a look at the others, so that all streams advance together.
            for _ in 0..self.eager.len() {
                if let Some(place) = self.eager.pop_front() {
                    self.advance(place);
                }
            }
        }
    }

    fn handle(&mut self, event: Ready, buffer: &mut [u8]) {
        let token = event.token as usize;
        let Some(at) = token.checked_sub(self.listeners.len()) else { return self.accept(token) };
        if event.writable {
            self.flushed(at);
        }
        if !event.readable {
            return;
        }
        let Some(connection) = self.connections.get_mut(at).and_then(Option::as_mut) else { return };
        match connection.read(buffer, event.ended) {
            Came::Nothing => {}
            Came::Request => self.answer(at),
            Came::End => self.close(at),
        }
    }

    fn accept(&mut self, listener: usize) {
        while let Ok((socket, _)) = self.listeners[listener].accept() {
            let at = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            if self.watch(&socket, at).is_ok() {
                self.generation = self.generation.wrapping_add(1);
                self.connections[at] = Some(Connection::new(socket, self.generation));
            } else {
                self.free.push(at);
            }
        }
    }

    fn watch(&self, socket: &TcpStream, at: usize) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        self.poller.watch(socket, (self.listeners.len() + at) as u64)
    }

    fn close(&mut self, at: usize) {
        let Some(connection) = self.connections[at].take() else { return };
        if connection.turn != Turn::Reading {
            self.totals.under_way -= 1;
            self.totals.aborted += 1;
        }
        self.free.push(at);
    }

    /// A request is complete.
    fn answer(&mut self, at: usize) {
        let Some(connection) = &mut self.connections[at] else { return };
        let asked = Asked::of(connection.reader.head(), &connection.sample);
        let (form, stream, usage, script) = match asked {
            Asked::Page(page) => return self.page(at, page),
            Asked::Completion { form, stream, usage, script } => (form, stream, usage, script),
        };
        self.totals.completions += 1;
        self.totals.under_way += 1;
        if !stream && script.delay.is_zero() {
            connection.turn = Turn::Delayed(form);
            return self.complete(at, form);
        }
        let due = now() + nanos(script.delay);
        let place = (at, connection.generation);
        if !stream {
            connection.turn = Turn::Delayed(form);
            self.timers.push(Reverse((due, place)));
            return;
        }
        connection.turn = Turn::Streaming(Stream { form, script, usage, sent: 0, due });
        if script.delay.is_zero() {
            return self.advance(place);
        }
        if connection.send(&self.texts.stream) {
            self.timers.push(Reverse((due, place)));
        } else {
            self.close(at);
        }
    }

    fn page(&mut self, at: usize, asked: Page) {
        let Some(connection) = &mut self.connections[at] else { return };
        let Totals { completions, under_way, aborted, chunks } = self.totals;
        let sent = match asked {
            Page::Health => connection.send(&self.texts.health),
            Page::Models => connection.send(&self.texts.models),
            Page::Unknown => connection.send(&self.texts.unknown),
            Page::Metrics => connection.send(&Texts::metrics(under_way)),
            Page::Totals => {
                let totals = format!(
                    r#"{{"completions":{completions},"under_way":{under_way},"aborted":{aborted},"chunks":{chunks}}}"#
                );
                connection.send(&page("200 OK", "application/json", &totals))
            }
        };
        connection.begin();
        if !sent {
            self.close(at);
        }
    }

    /// Sends a plain answer.
    fn complete(&mut self, at: usize, form: Form) {
        let Some(connection) = &mut self.connections[at] else { return };
        if connection.send(&self.texts.of(form).plain) {
            connection.begin();
            self.totals.under_way -= 1;
        } else {
            self.close(at);
        }
    }

    /// Sends everything whose time has come.
    fn send_due(&mut self) {
        if self.timers.is_empty() {
            return;
        }
        let time = now();
        while let Some(Reverse((due, place))) = self.timers.peek().copied()
            && due <= time
        {
            self.timers.pop();
            self.advance(place);
        }
    }

    /// Sends what is due on a connection, if it is still there.
    fn advance(&mut self, (at, generation): Place) {
        let Some(connection) = &mut self.connections[at] else { return };
        if connection.generation != generation {
            return;
        }
        let mut stream = match connection.turn {
            Turn::Reading => return,
            Turn::Delayed(form) => return self.complete(at, form),
            Turn::Streaming(stream) => stream,
        };
        if !connection.has_room() {
            // It goes on when its reader does.
            return;
        }
        let Stream { form, script, usage, sent, .. } = stream;
        let texts = self.texts.of(form);
        let went = if sent == script.chunks {
            connection.send(&texts.end(sent, usage))
        } else if sent == 0 {
            let mut first = Vec::with_capacity(1024);
            if script.delay.is_zero() {
                first.extend_from_slice(&self.texts.stream);
            }
            let texts = self.texts.of(form);
            first.extend_from_slice(&texts.role);
            first.extend_from_slice(texts.chunk(now()));
            connection.send(&first)
        } else {
            connection.send(texts.chunk(now()))
        };
        if !went {
            return self.close(at);
        }
        if sent == script.chunks {
            connection.begin();
            self.totals.under_way -= 1;
            return;
        }
        self.totals.chunks += 1;
        stream.sent += 1;
        stream.due += nanos(script.interval);
        connection.turn = Turn::Streaming(stream);
        self.next(at);
    }

    /// Puts a stream where its next chunk is sent from.
    fn next(&mut self, at: usize) {
        let Some(connection) = &self.connections[at] else { return };
        let Turn::Streaming(stream) = connection.turn else { return };
        let place = (at, connection.generation);
        if !connection.has_room() {
            return;
        }
        if stream.script.interval.is_zero() {
            self.eager.push_back(place);
        } else {
            self.timers.push(Reverse((stream.due, place)));
        }
    }

    /// There may be room again for what was kept.
    fn flushed(&mut self, at: usize) {
        let Some(connection) = self.connections.get_mut(at).and_then(Option::as_mut) else { return };
        if connection.has_room() {
            return;
        }
        if !connection.flush() {
            return self.close(at);
        }
        if connection.has_room() {
            self.next(at);
        }
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
