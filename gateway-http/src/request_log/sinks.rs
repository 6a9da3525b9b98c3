use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::record::{RequestRecord, RequestSink};

/// Those who are told of finished requests: at least one.
pub(crate) struct Sinks {
    all: Box<[Arc<dyn RequestSink>]>,
    pub(super) want_tokens: bool,
}

impl Sinks {
    /// `None` if there are none.
    pub(crate) fn new(all: Vec<Arc<dyn RequestSink>>) -> Option<Arc<Self>> {
        let want_tokens = all.iter().any(|sink| sink.wants_tokens());
        (!all.is_empty()).then(|| Arc::new(Self { all: all.into(), want_tokens }))
    }

    pub(super) fn tell(&self, record: &RequestRecord<'_>) {
        for sink in &self.all {
            sink.record(record);
        }
    }

    /// Has all of them write what they have, and tells how many did not manage it in time.
    pub(crate) async fn flush(&self, patience: Duration) -> usize {
        let flushes = self.all.iter().map(|sink| tokio::time::timeout(patience, sink.flush().get()));
        join_all(flushes).await.iter().filter(|done| done.is_err()).count()
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.all.iter().map(|sink| sink.dropped()).fold(0, u64::saturating_add)
    }
}
