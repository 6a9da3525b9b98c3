//! The process that is measured, from outside.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use gateway_core::BoxError;
use tempfile::TempDir;

use crate::gateway::MARK;

/// Has glibc copy memory as it can on every x86-64. Else the count depends on the processor: a copy by `rep movsb`, which
/// only some prefer, is an instruction per byte for valgrind.
const EVERYWHERE: &str = "glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM";

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meter {
    Allocations,
    /// Under valgrind.
    Instructions,
}

/// What the allocator did in a span of time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Count {
    /// Allocations, and reallocations.
    pub(crate) allocations: u64,
    /// Of all of them together.
    pub(crate) bytes: u64,
    /// What is held at the end beyond what was held before.
    pub(crate) held: i64,
}

/// What was counted in a span of time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Span {
    Allocated(Count),
    Instructions(u64),
}

pub(crate) struct Subject {
    pub(crate) address: SocketAddr,
    meter: Meter,
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    directory: TempDir,
    spans: usize,
}

pub(crate) fn has_valgrind() -> bool {
    let version =
        Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

impl Subject {
    pub(crate) fn start(meter: Meter, engine: SocketAddr, model: &str) -> Result<Self, BoxError> {
        let directory = tempfile::tempdir()?;
        let program = std::env::current_exe()?;
        let mut command = match meter {
            Meter::Allocations => Command::new(program),
            Meter::Instructions => {
                let mut command = Command::new("valgrind");
                command.env("GLIBC_TUNABLES", EVERYWHERE);
                command.args(["--tool=callgrind", "--quiet"]);
                command.arg(format!("--log-file={}", directory.path().join("log").display()));
                command.arg(format!("--callgrind-out-file={}", directory.path().join("out").display()));
                command.arg(format!("--dump-before={MARK}"));
                command.arg(program);
                command
            }
        };
        let command = command.arg("gateway").arg(format!("http://{engine}")).arg(model);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
            return Err("the gateway has no pipes".into());
        };
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let address =
            line.trim().parse().map_err(|_| format!("the gateway did not start: it said {line:?}"))?;
        Ok(Self { address, meter, process, stdin, stdout, directory, spans: 0 })
    }

    /// Has the gateway stand still until this is done.
    pub(crate) fn paused(&mut self, during: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.stdin.write_all(b"pause\n")?;
        self.line()?;
        during()?;
        self.stdin.write_all(b"go on\n")
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line)
    }

    /// What was counted since the last time.
    pub(crate) fn span(&mut self) -> Result<Span, BoxError> {
        self.stdin.write_all(b"end\n")?;
        let line = self.line()?;
        self.spans += 1;
        if self.meter == Meter::Instructions {
            return Ok(Span::Instructions(total(&self.last_profile())?));
        }
        let unclear = || format!("the gateway said {line:?}");
        let mut numbers = line.split_whitespace();
        let mut next = || numbers.next().ok_or_else(unclear);
        let (allocations, bytes, held) = (next()?.parse()?, next()?.parse()?, next()?.parse()?);
        Ok(Span::Allocated(Count { allocations, bytes, held }))
    }

    /// Where callgrind wrote the last span down.
    pub(crate) fn last_profile(&self) -> PathBuf {
        self.directory.path().join(format!("out.{}", self.spans))
    }

    pub(crate) fn end(self) -> Result<(), BoxError> {
        let Self { mut process, stdin, .. } = self;
        drop(stdin);
        let status = process.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the gateway ended with {status}").into()) }
    }
}

/// The total of a file of callgrind's.
fn total(path: &Path) -> Result<u64, BoxError> {
    let explain = |error| format!("cannot read what callgrind counted, {}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(explain)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total = total.ok_or_else(|| format!("{} has no total", path.display()))?;
    Ok(total.trim().parse()?)
}
