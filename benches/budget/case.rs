//! What is measured.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use gateway_core::{BoxError, RunnerId, RunnerSpec};
use gateway_transport_http::{EngineLink, HttpLink};
use gateway_transport_ws::agent::Agent;
use serde::{Deserialize, Serialize};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::{Client, request};
use crate::engine;
use crate::gateway::{NEVER, RUNNER_TOKEN};
use crate::pace::{Pace, Script};
use crate::subject::{Count, Meter, Span, Subject};

/// The model of the engine that the gateway dials.
const DIALLED: &str = "dialled-model";
/// The model of the engine that dials in.
const TUNNELLED: &str = "tunnelled-model";
const SMALL: usize = 100;
const LARGE: usize = 256 << 10;
/// What is kept of a connection or stream is measured over so many.
const MANY: usize = 100;
/// Measurements of each thing.
const ROUNDS: usize = 5;

/// One thing that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Case {
    /// A small request with an answer in one piece.
    Request,
    /// The same with a prompt of 256 KiB.
    Prompt256k,
    /// A stream of one chunk.
    Stream,
    /// One more chunk, when the one before has arrived.
    Chunk,
    /// One more chunk, of many that are there at once.
    ChunkTogether,
    /// A small request through the tunnel of a runner that dialled in.
    TunnelRequest,
    /// One more chunk through it, when the one before has arrived.
    TunnelChunk,
    /// A connection that is open and idle, after a request.
    IdleConnection,
    /// A stream that is open and has had its first chunk, with its connections to client and engine.
    OpenStream,
    /// The same through the tunnel, so with a connection to the client only.
    TunnelOpenStream,
}

/// What is counted of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measure {
    Allocations,
    AllocatedBytes,
    HeldBytes,
    Instructions,
}

/// How often each thing is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) requests: usize,
    pub(crate) large: usize,
    pub(crate) streams: usize,
}

impl Case {
    pub(crate) const ALL: [Self; 10] = [
        Self::Request,
        Self::Prompt256k,
        Self::Stream,
        Self::Chunk,
        Self::ChunkTogether,
        Self::TunnelRequest,
        Self::TunnelChunk,
        Self::IdleConnection,
        Self::OpenStream,
        Self::TunnelOpenStream,
    ];

    /// Its name in `figures.toml`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Prompt256k => "prompt256k",
            Self::Stream => "stream",
            Self::Chunk => "chunk",
            Self::ChunkTogether => "chunk_together",
            Self::TunnelRequest => "tunnel_request",
            Self::TunnelChunk => "tunnel_chunk",
            Self::IdleConnection => "idle_connection",
            Self::OpenStream => "open_stream",
            Self::TunnelOpenStream => "tunnel_open_stream",
        }
    }
}

/// The case of that name.
///
/// # Errors
/// There is none; the message names all.
pub(crate) fn named(name: &str) -> Result<Case, BoxError> {
    let all = || Case::ALL.map(Case::name).join(", ");
    Case::ALL
        .into_iter()
        .find(|case| case.name() == name)
        .ok_or_else(|| format!("there is no case {name:?}, but: {}", all()).into())
}

/// Client, gateway and engines.
pub(crate) struct Bench {
    subject: Subject,
    client: Client,
    pace: Arc<Pace>,
    effort: Effort,
    _agent: DropGuard,
}

impl Bench {
    pub(crate) fn start(meter: Meter, effort: Effort) -> Result<Self, BoxError> {
        let pace = Arc::new(Pace::new());
        let dialled = engine::start(DIALLED, &pace)?;
        let tunnelled = engine::start(TUNNELLED, &pace)?;
        let subject = Subject::start(meter, dialled, DIALLED)?;
        let engine = EngineLink::new(HttpLink::new(format!("http://{tunnelled}"))?);
        let agent = Agent::builder()
            .gateway(format!("ws://{}", subject.address))
            .token(RUNNER_TOKEN)
            .spec(RunnerSpec::new(RunnerId::new("budget-runner")?).slots(1_000))
            .engine(Arc::new(engine))
            .heartbeat_interval(NEVER)
            .status_interval(NEVER)
            .build()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::spawn(move || runtime.block_on(agent.run(stopped)));
        let mut client = Client::connect(subject.address)?;
        for model in [DIALLED, TUNNELLED] {
            let request = request(model, SMALL, false);
            while client.send(&request).and_then(|()| client.status())? != 200 {
                thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(Self { subject, client, pace, effort, _agent: stop.drop_guard() })
    }

    /// What it costs, each measure of it.
    pub(crate) fn run(&mut self, case: Case) -> Result<Vec<(Measure, f64)>, BoxError> {
        let Effort { requests, large, streams } = self.effort;
        match case {
            Case::Request => self.requests(&request(DIALLED, SMALL, false), requests),
            Case::TunnelRequest => self.requests(&request(TUNNELLED, SMALL, false), requests),
            Case::Prompt256k => self.requests(&request(DIALLED, LARGE, false), large),
            Case::Stream => {
                self.streams(DIALLED, 1, false, requests)?;
                let span = self.quietest(|bench| bench.streams(DIALLED, 1, false, requests))?;
                Ok(per(span, requests))
            }
            Case::Chunk => self.chunks(DIALLED, false, streams),
            Case::ChunkTogether => self.chunks(DIALLED, true, streams * 10),
            Case::TunnelChunk => self.chunks(TUNNELLED, false, streams),
            Case::IdleConnection => self.held(|client| asked(client, &request(DIALLED, SMALL, false))),
            Case::OpenStream => self.held(|client| opened(client, &request(DIALLED, SMALL, true))),
            Case::TunnelOpenStream => self.held(|client| opened(client, &request(TUNNELLED, SMALL, true))),
        }
    }

    pub(crate) fn subject(&self) -> &Subject {
        &self.subject
    }

    pub(crate) fn end(self) -> Result<(), BoxError> {
        drop(self.client);
        self.subject.end()
    }

    /// What each of so many requests costs once everything is warm.
    fn requests(&mut self, request: &[u8], count: usize) -> Result<Vec<(Measure, f64)>, BoxError> {
        let is_large = request.len() > LARGE;
        self.client = Client::connect(self.subject.address)?;
        let ask = |bench: &mut Self| {
            let Self { subject, client, .. } = bench;
            subject.span()?;
            for _ in 0..count {
                // Or how much of it is there when the gateway reads would be for the scheduler to say.
                match is_large {
                    true => subject.paused(|| client.send(request))?,
                    false => client.send(request)?,
                }
                succeeded(client)?;
            }
            subject.span()
        };
        ask(self)?;
        Ok(per(self.quietest(ask)?, count))
    }

    /// What one more chunk costs: the difference of long and short streams.
    fn chunks(&mut self, model: &str, together: bool, count: usize) -> Result<Vec<(Measure, f64)>, BoxError> {
        const FEW: usize = 100;
        self.streams(model, 2 * FEW, together, count)?;
        let short = self.quietest(|bench| bench.streams(model, FEW, together, count))?;
        let long = self.quietest(|bench| bench.streams(model, 2 * FEW, together, count))?;
        Ok(per(less(long, short), count * FEW))
    }

    fn streams(
        &mut self,
        model: &str,
        chunks: usize,
        together: bool,
        count: usize,
    ) -> Result<Span, BoxError> {
        let request = request(model, SMALL, true);
        self.subject.span()?;
        for _ in 0..count {
            self.pace.set(Script { chunks, together, allowed: 1 });
            self.client.send(&request)?;
            if !together {
                for chunk in 1..=chunks {
                    self.client.read_events(chunk)?;
                    self.pace.allow(chunk + 1);
                }
            }
            self.client.read_end()?;
        }
        self.subject.span()
    }

    /// What many clients hold that have got so far.
    fn held(
        &mut self,
        begin: impl Fn(&mut Client) -> io::Result<()>,
    ) -> Result<Vec<(Measure, f64)>, BoxError> {
        self.pace.set(Script { chunks: 1, together: false, allowed: 1 });
        self.subject.span()?;
        let mut clients = Vec::new();
        for _ in 0..MANY {
            let mut client = Client::connect(self.subject.address)?;
            begin(&mut client)?;
            clients.push(client);
        }
        let held = self.subject.span()?;
        self.pace.allow(usize::MAX);
        clients.iter_mut().try_for_each(Client::read_end)?;
        drop(clients);
        // The gateway has seen that they are gone when it answers what came after.
        let last = request(DIALLED, SMALL, false);
        (0..10).try_for_each(|_| asked(&mut self.client, &last))?;
        Ok(match held {
            Span::Allocated(Count { held, .. }) => vec![(Measure::HeldBytes, held as f64 / MANY as f64)],
            Span::Instructions(_) => Vec::new(),
        })
    }

    /// The least of several measurements: a machine that is busy elsewhere cuts what is read into more pieces, never
    /// into fewer.
    fn quietest(
        &mut self,
        mut measure: impl FnMut(&mut Self) -> Result<Span, BoxError>,
    ) -> Result<Span, BoxError> {
        let mut least = measure(self)?;
        for _ in 1..ROUNDS {
            least = lesser(least, measure(self)?);
        }
        Ok(least)
    }
}

fn opened(client: &mut Client, request: &[u8]) -> io::Result<()> {
    client.send(request)?;
    client.read_events(1)
}

fn asked(client: &mut Client, request: &[u8]) -> io::Result<()> {
    client.send(request)?;
    succeeded(client)
}

fn succeeded(client: &mut Client) -> io::Result<()> {
    match client.status()? {
        200 => Ok(()),
        status => Err(io::Error::other(format!("the gateway answered {status}"))),
    }
}

fn lesser(span: Span, other: Span) -> Span {
    match (span, other) {
        (Span::Allocated(span), Span::Allocated(other)) => Span::Allocated(Count {
            allocations: span.allocations.min(other.allocations),
            bytes: span.bytes.min(other.bytes),
            held: span.held.min(other.held),
        }),
        (Span::Instructions(span), Span::Instructions(other)) => Span::Instructions(span.min(other)),
        (span, _) => span,
    }
}

fn less(span: Span, other: Span) -> Span {
    match (span, other) {
        (Span::Allocated(span), Span::Allocated(other)) => Span::Allocated(Count {
            allocations: span.allocations.saturating_sub(other.allocations),
            bytes: span.bytes.saturating_sub(other.bytes),
            held: span.held - other.held,
        }),
        (Span::Instructions(span), Span::Instructions(other)) => {
            Span::Instructions(span.saturating_sub(other))
        }
        (span, _) => span,
    }
}

fn per(span: Span, count: usize) -> Vec<(Measure, f64)> {
    let count = count as f64;
    match span {
        Span::Allocated(Count { allocations, bytes, .. }) => vec![
            (Measure::Allocations, allocations as f64 / count),
            (Measure::AllocatedBytes, bytes as f64 / count),
        ],
        Span::Instructions(instructions) => vec![(Measure::Instructions, instructions as f64 / count)],
    }
}
