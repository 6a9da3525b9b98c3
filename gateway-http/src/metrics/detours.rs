use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::DescriptorEncoder;

use super::encode::counter;

/// Requests that did not go the straight way.
#[derive(Default)]
pub(crate) struct DetourMetrics {
    retries: AtomicU64,
    hedges: AtomicU64,
    fallbacks: AtomicU64,
}

impl DetourMetrics {
    /// What one request took.
    pub(crate) fn count(&self, retries: u32, hedged: bool, is_fallback: bool) {
        // Most requests take none, and then nothing is written.
        for (counter, more) in [
            (&self.retries, u64::from(retries)),
            (&self.hedges, u64::from(hedged)),
            (&self.fallbacks, u64::from(is_fallback)),
        ] {
            if more > 0 {
                counter.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, count) in [
            ("gateway_retries", "Tries on another runner after one failed or was busy", &self.retries),
            (
                "gateway_hedges",
                "Answers for which a second runner was asked because the first took long",
                &self.hedges,
            ),
            ("gateway_fallbacks", "Answers of a fallback model", &self.fallbacks),
        ] {
            counter(encoder, name, help, count.load(Ordering::Relaxed))?;
        }
        Ok(())
    }
}
