//! Settings that change while the program runs: the file has changed, or SIGHUP says so.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use gateway_core::BoxError;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::assemble::Assembled;
use crate::config::{Flags, Settings};

/// Between two looks at the file. Who edits it waits for no longer, and a look is one read.
const LOOK: Duration = Duration::from_secs(2);

/// Looks for other settings.
pub(crate) struct Reload {
    flags: Flags,
    path: Option<PathBuf>,
    text: Option<String>,
    hangup: Signal,
}

impl Reload {
    /// `text` is what the settings were read from.
    ///
    /// # Errors
    /// The signal cannot be listened to.
    pub(crate) fn new(flags: &Flags, text: Option<String>) -> io::Result<Self> {
        let hangup = signal(SignalKind::hangup())?;
        Ok(Self { flags: flags.clone(), path: flags.config.clone(), text, hangup })
    }

    /// Changes the gateway whenever there are other settings, until `stop`. What does not do is logged, and all stays
    /// as it was.
    pub(crate) async fn run(mut self, now: &Settings, gateway: &Assembled, stop: &CancellationToken) {
        let mut fixed = now.fixed();
        while let Some(asked) = stop.run_until_cancelled(self.next()).await {
            let Some(text) = self.read().await else { continue };
            if !asked && self.text == text {
                continue;
            }
            // Also if it does not do: it is said once, and again when it changes again.
            self.text = text;
            let settings =
                Settings::resolve(&self.flags, |name| std::env::var(name).ok(), self.text.as_deref());
            let changed = settings.map_err(BoxError::from).and_then(|settings| {
                gateway.change(&settings)?;
                Ok(settings)
            });
            match changed {
                Ok(settings) => {
                    tracing::info!("other settings are in force");
                    let next = settings.fixed();
                    for (key, _) in
                        next.iter().zip(&fixed).filter(|(next, now)| next != now).map(|(next, _)| next)
                    {
                        tracing::warn!(key, "it has changed, and is read at the start only: restart for it");
                    }
                    fixed = next;
                }
                Err(error) => tracing::error!(%error, "the new settings do not do, and all stays as it was"),
            }
        }
    }

    /// Waits until it is time to look. Whether somebody asked for it.
    async fn next(&mut self) -> bool {
        tokio::select! {
            Some(()) = self.hangup.recv() => true,
            () = tokio::time::sleep(LOOK), if self.path.is_some() => false,
        }
    }

    /// The file's text; `None` if there should be one and it cannot be read.
    async fn read(&self) -> Option<Option<String>> {
        let Some(path) = &self.path else { return Some(None) };
        match tokio::fs::read_to_string(path).await {
            Ok(text) => Some(Some(text)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the settings cannot be read; all stays as it is");
                None
            }
        }
    }
}
