//! A file that is watched.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use gateway_core::{Inventory, InventoryChange};
use serde::Deserialize;
use tokio::time::{Instant, sleep, sleep_until};

use super::RunnerEntry;
use crate::pause::jittered;
use crate::source::HttpRunner;

/// The runners of a file, read at the start and whenever it changes. Needs the feature `file`.
///
/// The file is TOML with one `[[runner]]` for each, with the keys of [`RunnerEntry`]; or JSON of the same
/// shape, `{"runner": [{"url": "…"}]}`, if its name ends in `.json`. A file that cannot be read or understood
/// is logged, with the line, and changes nothing; neither does one that is not there. An entry whose address
/// or name cannot be is logged and left out.
///
/// It is looked at every 2 s, and a change counts when it has stood for 200 ms, so that a file that is half
/// written is not taken for a short one. Still it is best to write another file and rename it.
///
/// ```no_run
/// use gateway_transport_http::{HttpRunners, WatchedFile};
///
/// let runners = HttpRunners::from_inventory(WatchedFile::new("/etc/gateway/runners.toml"));
/// # drop(runners);
/// ```
#[derive(Debug)]
pub struct WatchedFile {
    place: Arc<Place>,
    interval: Duration,
    due: Instant,
    /// What was acted on last, good or bad.
    known: Option<Seen>,
    is_unreadable: bool,
}

/// Why a [`WatchedFile`] is of no use as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileProblem {
    /// It cannot be read.
    #[error("cannot read the runners of {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what it should be. Says nothing of the file's own text: there may be keys in it.
    #[error("cannot understand the runners of {} in line {line}: {problem}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Where, counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Debug)]
struct Place {
    path: PathBuf,
}

/// The file as it was at one moment.
#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    /// Written so short a time before it was read that a later change may have the same stamp.
    is_fresh: bool,
    text: Vec<u8>,
}

/// Changes with the file, mostly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    runner: Vec<RunnerEntry>,
}

impl WatchedFile {
    /// How often the file is looked at unless [set](WatchedFile::interval).
    pub const INTERVAL: Duration = Duration::from_secs(2);
    /// The longest file that is read, in bytes: 10,000 runners are about 2 MiB.
    pub const MAX_BYTES: u64 = 16 * 1024 * 1024;
    /// How long a change must have stood.
    const SETTLED: Duration = Duration::from_millis(200);
    /// The coarsest clock of a file system that is in use (FAT).
    const COARSEST_CLOCK: Duration = Duration::from_secs(2);

    /// The runners of that file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let place = Arc::new(Place { path: path.into() });
        Self { place, interval: Self::INTERVAL, due: Instant::now(), known: None, is_unreadable: false }
    }

    /// How often to look at the file, give or take a tenth; not more often than every 10 ms. Default:
    /// [`WatchedFile::INTERVAL`].
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.max(Duration::from_millis(10));
        self
    }

    /// Reads the file at once, for those who would rather not start than start without it. Blocks.
    ///
    /// # Errors
    ///
    /// What would be logged. An entry that is left out is none.
    pub fn read(&self) -> Result<Vec<HttpRunner>, FileProblem> {
        let seen = self.place.look(None).map_err(|source| self.place.unreadable(source))?;
        seen.map_or(Ok(Vec::new()), |seen| self.place.runners(&seen.text))
    }

    /// The file if it has changed, and stands.
    async fn changed(&mut self) -> io::Result<Option<Seen>> {
        let before = self.known.as_ref().filter(|known| !known.is_fresh).map(|known| known.stamp);
        let Some(mut seen) = self.place.clone().look_aside(before).await? else { return Ok(None) };
        if let Some(known) = &mut self.known
            && known.text == seen.text
        {
            (known.stamp, known.is_fresh) = (seen.stamp, seen.is_fresh);
            return Ok(None);
        }
        // The very first list is not waited for: there is nothing that a half of it could take away.
        while self.known.is_some() {
            sleep(Self::SETTLED).await;
            let Some(again) = self.place.clone().look_aside(None).await? else { return Ok(None) };
            if again.text == seen.text {
                break;
            }
            seen = again;
        }
        Ok(Some(seen))
    }
}

impl Place {
    /// What is there, unless its stamp is this.
    fn look(&self, unless: Option<Stamp>) -> io::Result<Option<Seen>> {
        let now = SystemTime::now();
        let meta = std::fs::metadata(&self.path)?;
        let stamp = Stamp { len: meta.len(), modified: meta.modified().ok() };
        if unless == Some(stamp) {
            return Ok(None);
        }
        if !meta.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut text = Vec::new();
        File::open(&self.path)?.take(WatchedFile::MAX_BYTES + 1).read_to_end(&mut text)?;
        if text.len() as u64 > WatchedFile::MAX_BYTES {
            return Err(io::Error::other(format!("it is longer than {} bytes", WatchedFile::MAX_BYTES)));
        }
        let age = stamp.modified.and_then(|modified| now.duration_since(modified).ok());
        let is_fresh = age.is_none_or(|age| age < WatchedFile::COARSEST_CLOCK);
        Ok(Some(Seen { stamp, is_fresh, text }))
    }

    /// The same where it may block.
    async fn look_aside(self: Arc<Self>, unless: Option<Stamp>) -> io::Result<Option<Seen>> {
        tokio::task::spawn_blocking(move || self.look(unless)).await.map_err(io::Error::other)?
    }

    fn runners(&self, text: &[u8]) -> Result<Vec<HttpRunner>, FileProblem> {
        let broken = |line, problem| FileProblem::Broken { path: self.path.clone(), line, problem };
        let text = std::str::from_utf8(text).map_err(|error| {
            broken(line_of(text, error.valid_up_to()), "there are bytes that are no UTF-8".to_owned())
        })?;
        let list: List = if self.path.extension().is_some_and(|extension| extension == "json") {
            serde_json::from_str(text).map_err(|error| broken(error.line().max(1), reason(&error)))?
        } else {
            toml::from_str(text).map_err(|error| {
                let at = error.span().unwrap_or(Range { start: 0, end: 0 }).start;
                broken(line_of(text.as_bytes(), at), error.message().to_owned())
            })?
        };
        let good = list.runner.iter().filter_map(|entry| {
            let complain = |error: &_| {
                tracing::error!(file = %self.path.display(), %error, "a runner of the file is left out");
            };
            entry.runner().inspect_err(complain).ok()
        });
        Ok(good.collect())
    }

    fn unreadable(&self, source: io::Error) -> FileProblem {
        FileProblem::Unreadable { path: self.path.clone(), source }
    }
}

/// Counted from 1.
fn line_of(text: &[u8], at: usize) -> usize {
    text[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Without the place, which is said apart.
fn reason(error: &serde_json::Error) -> String {
    let words = error.to_string();
    words.rsplit_once(" at line ").map_or(words.clone(), |(reason, _)| reason.to_owned())
}

#[async_trait]
impl Inventory for WatchedFile {
    type Entry = HttpRunner;

    async fn next(&mut self) -> Option<InventoryChange<HttpRunner>> {
        loop {
            sleep_until(self.due).await;
            let changed = self.changed().await;
            self.due = Instant::now() + jittered(self.interval);
            match changed {
                Ok(changed) => {
                    if std::mem::take(&mut self.is_unreadable) {
                        tracing::info!(file = %self.place.path.display(), "the file can be read again");
                    }
                    let Some(seen) = changed else { continue };
                    let runners = self.place.runners(&seen.text);
                    self.known = Some(seen);
                    match runners {
                        Ok(runners) => return Some(InventoryChange::All(runners)),
                        Err(error) => tracing::error!(%error, "what was known stays"),
                    }
                }
                Err(source) => {
                    // Once is enough: it may be so for days.
                    if !std::mem::replace(&mut self.is_unreadable, true) {
                        let error = self.place.unreadable(source);
                        tracing::error!(%error, "what was known stays");
                    }
                }
            }
        }
    }
}
