//! Log lines on their way to stderr, off the way of requests.
//!
//! A thread that is woken for every line costs more than the line: on one core it took twice the time of
//! the request it spoke of. Here lines gather for a moment and go out in one write.

#[path = "log/plain.rs"]
mod plain;

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How long lines gather.
const GATHER: Duration = Duration::from_millis(20);
/// Bytes that wait to be written; when there are more, lines are lost rather than requests held up.
const WAITING: usize = 4 * 1024 * 1024;

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    lost: u64,
    over: bool,
}

#[derive(Clone, Default)]
struct Lines(Arc<(Mutex<Waiting>, Condvar)>);

impl Lines {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what has gathered, again and again, until it is over.
    fn write_all(&self) {
        let mut batch = Vec::new();
        loop {
            let (lost, over) = {
                let idle = |waiting: &mut Waiting| waiting.bytes.is_empty() && !waiting.over;
                let waiting = self.0.1.wait_while(self.lock(), idle);
                let over = waiting.unwrap_or_else(PoisonError::into_inner).over;
                if !over {
                    std::thread::sleep(GATHER);
                }
                let mut waiting = self.lock();
                std::mem::swap(&mut batch, &mut waiting.bytes);
                (std::mem::take(&mut waiting.lost), waiting.over)
            };
            let mut stderr = io::stderr().lock();
            // There is nowhere left to complain about stderr.
            let _ = stderr.write_all(&batch);
            if lost > 0 {
                let _ = writeln!(stderr, "standalone: {lost} log lines were lost: stderr is too slow");
            }
            if over {
                return;
            }
            batch.clear();
            batch.shrink_to(WAITING / 16);
        }
    }
}

/// One event's writer. The formatter hands over a whole line at once.
struct Line(Lines);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.0.lock();
        if waiting.bytes.len() + line.len() > WAITING {
            waiting.lost += 1;
            return Ok(line.len());
        }
        let first = waiting.bytes.is_empty();
        waiting.bytes.extend_from_slice(line);
        drop(waiting);
        if first {
            self.0.0.1.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(self.clone())
    }
}

/// Writes the last lines when dropped.
pub(crate) struct FlushAtTheEnd {
    lines: Lines,
    writer: Option<JoinHandle<()>>,
}

impl Drop for FlushAtTheEnd {
    fn drop(&mut self) {
        self.lines.lock().over = true;
        self.lines.0.1.notify_one();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Sends the process's log to stderr. `RUST_LOG` says what of it; `info` unless set.
///
/// # Errors
/// No thread could be started.
pub(crate) fn to_stderr() -> io::Result<FlushAtTheEnd> {
    let lines = Lines::default();
    let writer = {
        let lines = lines.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || lines.write_all())?
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines.clone());
    if io::stderr().is_terminal() {
        log.init();
    } else {
        log.with_ansi(false).event_format(plain::Plain::default()).init();
    }
    Ok(FlushAtTheEnd { lines, writer: Some(writer) })
}
