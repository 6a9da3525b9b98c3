//! Links see on whose account a request is only if they say that they want to.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use gateway_core::{
    Claim, Dispatcher, InMemoryRegistry, LinkAbilities, LinkBody, LinkDescription, LinkError, LinkRequest,
    LinkResponse, ModelId, Registry, RunnerId, RunnerLink, RunnerSpec, RunnerStatus, Tenant,
};

struct Noting {
    abilities: LinkAbilities,
    seen: Mutex<Vec<Option<Claim>>>,
}

#[async_trait]
impl RunnerLink for Noting {
    fn describe(&self) -> LinkDescription {
        LinkDescription { transport: "test", address: None }
    }

    fn abilities(&self) -> LinkAbilities {
        self.abilities
    }

    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError> {
        self.seen.lock().unwrap().push(request.extensions().get().cloned());
        Ok(http::Response::new(LinkBody::full("ok")))
    }
}

async fn seen_with(abilities: LinkAbilities) -> Vec<Option<Claim>> {
    let link = Arc::new(Noting { abilities, seen: Mutex::default() });
    let registry = Arc::new(InMemoryRegistry::new());
    let model = ModelId::new("m").unwrap();
    let spec = RunnerSpec::new(RunnerId::new("r").unwrap());
    registry.join(spec, RunnerStatus::serving([model.clone()]), link.clone());
    let mut call = gateway_testkit::request(&model, "{}");
    call.claim.tenant = Some(Tenant::new("acme").unwrap());
    let answer = Dispatcher::builder(registry).build().dispatch(call).await.unwrap();
    assert_eq!(gateway_testkit::text(answer.response).await.unwrap(), "ok");
    std::mem::take(&mut *link.seen.lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_claim_goes_to_links_that_want_it() {
    assert_eq!(seen_with(LinkAbilities::NONE).await, [None]);
    let seen = seen_with(LinkAbilities::NONE.with_claims()).await;
    let claim = seen[0].as_ref().expect("it is told");
    assert_eq!(claim.tenant, Some(Tenant::new("acme").unwrap()));
}
