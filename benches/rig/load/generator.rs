//! The load's one thread: the schedule, who is ready, what is asked next.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use gateway_benches::wire::clock::{SECOND, now};
use gateway_benches::wire::poller::{Poller, Ready};

use super::exchange::{Ended, Exchange};
use super::flags::Flags;
use super::measure::Measured;

/// What is read at once.
const READ_BYTES: usize = 128 * 1024;
/// Connections that are made between two looks at the others.
const CONNECTS: usize = 64;
/// How long answers are waited for when the time is over, in an open loop.
const PATIENCE: u64 = 5 * SECOND;
/// The longest wait, after which it is looked whether the time is over, and who has to connect again.
const LOOK: Duration = Duration::from_millis(50);
/// The token of standard input.
const INPUT: u64 = u64::MAX - 1;

pub(super) struct Generator {
    poller: Poller,
    to: SocketAddr,
    sources: u8,
    request: Vec<u8>,
    exchanges: Vec<Exchange>,
    idle: Vec<usize>,
    /// Closed loop: who could not be connected.
    failed: Vec<usize>,
    /// Open loop: when requests were due that wait for a connection.
    waiting: VecDeque<u64>,
    measured: Measured,
    /// Who is ready; kept for its room.
    ready: Vec<Ready>,
    stream: bool,
    chunks: Option<u32>,
    rate: f64,
    warmup: u64,
    seconds: u64,
    requests: u64,
    hold: bool,
    under_way: usize,
    /// The time is over, or standard input.
    over: bool,
}

impl Generator {
    pub(super) fn new(flags: &Flags) -> io::Result<Self> {
        Ok(Self {
            poller: Poller::new()?,
            to: SocketAddr::from((Ipv4Addr::LOCALHOST, flags.port)),
            sources: flags.sources,
            request: flags.request(),
            exchanges: (0..flags.connections).map(|_| Exchange::new()).collect(),
            idle: Vec::new(),
            failed: Vec::new(),
            waiting: VecDeque::new(),
            measured: Measured::new(),
            ready: Vec::new(),
            stream: flags.stream,
            chunks: (flags.stream && !flags.hold).then_some(flags.chunks),
            rate: flags.rate,
            warmup: flags.warmup(),
            seconds: flags.seconds(),
            requests: flags.requests,
            hold: flags.hold,
            under_way: 0,
            over: false,
        })
    }

    /// Runs to the end and tells what was measured, as a line of JSON.
    pub(super) fn run(mut self) -> io::Result<String> {
        let mut buffer = vec![0; READ_BYTES];
        if self.hold {
            self.hold(&mut buffer)?;
        } else {
            self.load(&mut buffer)?;
        }
        self.measured.unsent = self.waiting.len() as u64;
        Ok(self.measured.json(now()))
    }

    /// Asks until the time is over.
    fn load(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let open = self.rate > 0.0;
        for from in (0..self.exchanges.len()).step_by(CONNECTS) {
            for at in from..(from + CONNECTS).min(self.exchanges.len()) {
                if !open {
                    self.start(at, now());
                } else if self.connect(at) {
                    self.idle.push(at);
                }
            }
            self.serve(buffer, Some(Duration::ZERO))?;
        }
        let begin = now();
        self.measured.window = (begin + self.warmup, begin + self.warmup + self.seconds);
        let (end, mut next) = (self.measured.window.1, 0);
        loop {
            if open {
                let due = self.start_due(begin, end, &mut next);
                self.poller.wake_at(due)?;
            }
            self.serve(buffer, Some(LOOK))?;
            let time = now();
            self.over = time >= end || self.asked_enough();
            let done = if open || self.asked_enough() { self.under_way == 0 } else { true };
            if self.over && (done || time >= end + PATIENCE) {
                return Ok(());
            }
            if !open {
                for at in std::mem::take(&mut self.failed) {
                    self.again(at);
                }
            }
        }
    }

    /// Opens a stream on each connection and keeps them until standard input ends.
    fn hold(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.measured.window.0 = now();
        self.poller.watch(io::stdin(), INPUT)?;
        for at in 0..self.exchanges.len() {
            self.start(at, now());
            if at % CONNECTS == 0 {
                self.serve(buffer, Some(Duration::ZERO))?;
            }
        }
        let mut told = false;
        while !self.over {
            self.serve(buffer, Some(LOOK))?;
            let open = self.exchanges.iter().filter(|one| one.busy && one.has_chunks()).count();
            let failed = self.exchanges.iter().filter(|one| !one.busy).count();
            if !told && open + failed == self.exchanges.len() {
                println!(r#"{{"open":{open},"failed":{failed}}}"#);
                io::stdout().flush()?;
                told = true;
            }
        }
        Ok(())
    }

    fn asked_enough(&self) -> bool {
        self.requests > 0 && self.measured.started >= self.requests
    }

    /// Waits once, and serves whoever is ready.
    fn serve(&mut self, buffer: &mut [u8], limit: Option<Duration>) -> io::Result<()> {
        let mut ready = std::mem::take(&mut self.ready);
        self.poller.wait(&mut ready, limit)?;
        for event in ready.iter().copied() {
            if event.token == INPUT {
                self.over |= matches!(io::stdin().read(buffer), Ok(0) | Err(_));
            } else {
                self.handle(event, buffer);
            }
        }
        self.ready = ready;
        Ok(())
    }

    fn handle(&mut self, event: Ready, buffer: &mut [u8]) {
        let at = event.token as usize;
        let exchange = &mut self.exchanges[at];
        if event.writable {
            exchange.write(&self.request);
        }
        if !event.readable {
            return;
        }
        let was_busy = exchange.busy;
        let Some(ended) = exchange.read(buffer, event.ended, self.stream, &mut self.measured) else { return };
        if !was_busy {
            // Closed while nothing was under way, as servers may.
            exchange.disconnect();
            return;
        }
        exchange.end(ended, self.chunks, &mut self.measured);
        self.under_way -= 1;
        if self.rate > 0.0 {
            let next = if self.over { None } else { self.waiting.pop_front() };
            match next {
                Some(due) => self.start(at, due),
                None => self.idle.push(at),
            }
        } else if ended == Ended::Broken {
            self.failed.push(at);
        } else {
            self.again(at);
        }
    }

    /// Closed loop: asks again unless it is over.
    fn again(&mut self, at: usize) {
        if !self.over && !self.hold && !self.asked_enough() {
            self.start(at, now());
        }
    }

    /// Open loop: starts all that is due, and tells when the next is.
    fn start_due(&mut self, begin: u64, end: u64, next: &mut u64) -> Option<u64> {
        loop {
            let due = begin + (*next as f64 * SECOND as f64 / self.rate) as u64;
            if due >= end || (self.requests > 0 && *next >= self.requests) {
                return None;
            }
            if due > now() {
                return Some(due);
            }
            *next += 1;
            match self.idle.pop() {
                Some(at) => self.start(at, due),
                None => self.waiting.push_back(due),
            }
        }
    }

    fn start(&mut self, at: usize, due: u64) {
        if self.exchanges[at].socket().is_none() && !self.connect(at) {
            if self.rate > 0.0 {
                self.waiting.push_front(due);
                self.idle.push(at);
            } else {
                self.failed.push(at);
            }
            return;
        }
        let exchange = &mut self.exchanges[at];
        exchange.begin(due);
        self.measured.started += 1;
        self.under_way += 1;
        if due >= self.measured.window.0 {
            self.measured.late.record(now().saturating_sub(due));
        }
        exchange.write(&self.request);
    }

    fn connect(&mut self, at: usize) -> bool {
        let last = 1 + (at % usize::from(self.sources)) as u8;
        let exchange = &mut self.exchanges[at];
        let connected = exchange.connect(Ipv4Addr::new(127, 0, 0, last), self.to);
        let watched = connected.and_then(|()| match exchange.socket() {
            Some(socket) => self.poller.watch(socket, at as u64),
            None => Ok(()),
        });
        if let Err(error) = watched {
            exchange.disconnect();
            self.measured.broken += 1;
            self.measured.problem.get_or_insert(format!("cannot connect to {}: {error}", self.to));
            return false;
        }
        true
    }
}
