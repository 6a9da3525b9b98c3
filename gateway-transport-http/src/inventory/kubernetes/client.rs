//! Getting hold of a client.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use kube::Client;
use tokio::time::{Instant, sleep_until};

use crate::pause::jittered;

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// A client, or the way to one.
pub(super) struct Connecting {
    given: Option<Client>,
    due: Instant,
    pause: Duration,
}

impl Default for Connecting {
    fn default() -> Self {
        Self { given: None, due: Instant::now(), pause: SHORTEST }
    }
}

impl Connecting {
    pub(super) fn with(client: Client) -> Self {
        Self { given: Some(client), ..Self::default() }
    }

    /// The client, however long it takes. Cancel safe.
    pub(super) async fn client(&mut self) -> Client {
        if let Some(client) = self.given.take() {
            return client;
        }
        loop {
            sleep_until(self.due).await;
            // rustls panics if two providers of cryptography are built in and the host has chosen none.
            let error = match AssertUnwindSafe(Client::try_default()).catch_unwind().await {
                Ok(Ok(client)) => return client,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "TLS cannot be set up: choose a rustls provider, or give a client".to_owned(),
            };
            tracing::warn!(error, again_in = ?self.pause, "there is no way to the Kubernetes API yet");
            self.due = Instant::now() + jittered(self.pause);
            self.pause = (self.pause * 2).min(LONGEST);
        }
    }
}
