//! The fleets over which the benches run, and what the programs of the rig share.

#[path = "rig/wire/mod.rs"]
pub mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use gateway_core::{
    InMemoryRegistry, LinkBody, LinkDescription, LinkError, LinkRequest, LinkResponse, ModelId, Registry,
    RunnerId, RunnerLink, RunnerSpec, RunnerStatus,
};

/// A runner in process that answers at once with the same few bytes.
#[derive(Debug)]
pub struct Instant;

#[async_trait]
impl RunnerLink for Instant {
    fn describe(&self) -> LinkDescription {
        LinkDescription { transport: "bench", address: None }
    }

    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError> {
        drop(request);
        Ok(http::Response::new(LinkBody::full(r#"{"object":"chat.completion"}"#)))
    }
}

/// The one model of the fleet.
///
/// # Panics
/// Never: the name is valid.
pub fn model() -> ModelId {
    ModelId::new("bench-model").expect("a valid name")
}

/// So many runners that all serve [`model`], with room for 64 requests each.
///
/// # Panics
/// Never: the ids are valid.
pub fn fleet(runners: usize) -> Arc<InMemoryRegistry> {
    let registry = Arc::new(InMemoryRegistry::new());
    for number in 0..runners {
        let id = RunnerId::new(format!("runner-{number}")).expect("a valid id");
        registry.join(RunnerSpec::new(id).slots(64), RunnerStatus::serving([model()]), Arc::new(Instant));
    }
    registry
}
