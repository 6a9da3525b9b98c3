//! What strategies and admission get to know of a request's work, and in which order of service it stands.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use gateway_core::{
    Balancer, Candidates, ModelRoutes, Priority, PromptBlocks, Requirements, Reservation, Tenant, Workload,
};
use gateway_http::{BearerTokens, BuildError, Gateway, GatewayBuilder, Identity, PromptHashing};

/// Takes the first that is free and remembers what it was told.
#[derive(Clone, Default)]
struct Told {
    workloads: Arc<Mutex<Vec<Workload>>>,
    reads_prompts: bool,
}

impl Balancer for Told {
    fn name(&self) -> &'static str {
        "told"
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        self.workloads.lock().unwrap().push(requirements.workload.clone());
        (0..candidates.len()).find_map(|at| candidates.try_reserve(at))
    }

    fn reads_prompts(&self) -> bool {
        self.reads_prompts
    }
}

impl Told {
    fn reading() -> Self {
        Self { reads_prompts: true, ..Self::default() }
    }

    fn gateway(&self, builder: GatewayBuilder) -> Gateway {
        let gateway = builder.strategy(self.clone()).build().unwrap();
        join(&gateway, "r1", &["m", "n"], &Mock::ok());
        gateway
    }

    fn last(&self) -> Workload {
        self.workloads.lock().unwrap().last().expect("nobody was picked").clone()
    }

    /// What the strategy is told of this body.
    async fn of(
        &self,
        gateway: &Gateway,
        path: &str,
        headers: &[(&'static str, &str)],
        body: &str,
    ) -> Workload {
        self.by(gateway, CLIENT, path, headers, body).await
    }

    async fn by(
        &self,
        gateway: &Gateway,
        key: &str,
        path: &str,
        headers: &[(&'static str, &str)],
        body: &str,
    ) -> Workload {
        let mut request = with_key(post(path, body.to_owned()), key);
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let answer = whole(gateway, request).await;
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
        self.last()
    }
}

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn tokens_are_estimated_from_the_body() {
    let told = Told::default();
    let gateway = told.gateway(builder());
    let text = "x".repeat(398);
    let body = format!(r#"{{"model":"m","prompt":"{text}","max_tokens":30,"n":2}}"#);
    let workload = told.of(&gateway, "/v1/completions", &[], &body).await;
    assert_eq!((workload.prompt_tokens, workload.max_tokens), (Some(100), Some(60)));
    let body = r#"{"model":"m","messages":[],"max_tokens":30,"max_completion_tokens":20}"#;
    assert_eq!(told.of(&gateway, CHAT, &[], body).await.max_tokens, Some(20));
    // What is not said is not known.
    let workload = told.of(&gateway, CHAT, &[], r#"{"model":"m"}"#).await;
    assert_eq!(workload, Workload::default());
    // Vectors are no tokens.
    let body = format!(r#"{{"model":"m","input":"{text}"}}"#);
    let workload = told.of(&gateway, "/v1/embeddings", &[], &body).await;
    assert_eq!((workload.prompt_tokens, workload.max_tokens), (Some(100), Some(0)));
}

#[tokio::test]
async fn a_conversation_is_named_by_header_then_key_then_user() {
    let told = Told::default();
    let gateway = told.gateway(builder());
    let session = async |header: Option<&str>, body: &str| {
        let headers: Vec<_> = header.map(|value| ("x-session-id", value)).into_iter().collect();
        told.of(&gateway, CHAT, &headers, body).await.session
    };
    let plain = r#"{"model":"m"}"#;
    let user = r#"{"model":"m","user":"u"}"#;
    let key = r#"{"model":"m","user":"u","prompt_cache_key":"k"}"#;
    assert_eq!(session(None, plain).await, None);
    assert_eq!(session(Some(""), plain).await, None);
    let (of_user, of_key, of_header) =
        (session(None, user).await, session(None, key).await, session(Some("s"), key).await);
    assert!(of_user.is_some() && of_key.is_some() && of_header.is_some());
    assert!(of_user != of_key && of_key != of_header);
    assert_eq!(session(Some("s"), plain).await, of_header, "what goes after does not matter");
    assert_eq!(session(None, r#"{"user":"u","model":"n","stream":false}"#).await, of_user);
}

#[tokio::test]
async fn tenants_do_not_share_conversations_and_their_keys_do() {
    let team = |name: &str| Identity::named(name.to_owned()).of_tenant(Tenant::new("team").unwrap());
    let tokens = BearerTokens::new(["alone"])
        .and_then(|tokens| tokens.with_identity(team("one"), "key-1")?.with_identity(team("two"), "key-2"))
        .unwrap();
    let told = Told::default();
    let gateway = told.gateway(Gateway::builder().client_authenticator(tokens));
    let body = r#"{"model":"m","user":"u"}"#;
    let alone = told.by(&gateway, "alone", CHAT, &[], body).await.session;
    let one = told.by(&gateway, "key-1", CHAT, &[], body).await.session;
    let two = told.by(&gateway, "key-2", CHAT, &[], body).await.session;
    assert_ne!(alone, one);
    assert_eq!(one, two);
}

/// Some links tell their runners. What the client itself says of it is not to be believed.
#[tokio::test]
async fn links_hear_on_whose_account_a_request_is() {
    let identity = Identity::named("key-1").of_tenant(Tenant::new("team").unwrap()).up_to(Priority::Normal);
    let tokens = BearerTokens::new(["alone"]).and_then(|tokens| tokens.with_identity(identity, "key-1"));
    let gateway = Gateway::builder().client_authenticator(tokens.unwrap()).build().unwrap();
    let link = Mock::ok();
    join(&gateway, "r1", &["m"], &link);
    for (asked, granted) in [("low", Priority::Low), ("high", Priority::Normal)] {
        let mut request = with_key(post(CHAT, r#"{"model":"m"}"#), "key-1");
        request.headers_mut().insert("x-priority", asked.parse().unwrap());
        request.headers_mut().insert("x-tenant", "another".parse().unwrap());
        assert_eq!(whole(&gateway, request).await.status, 200);
        let claim = link.last().claim.expect("told");
        assert_eq!((claim.tenant.unwrap().as_str(), claim.priority), ("team", granted));
    }
}

#[tokio::test]
async fn a_deadline_is_told_and_a_bad_one_is_a_mistake() {
    let told = Told::default();
    let gateway = told.gateway(builder());
    let body = r#"{"model":"m"}"#;
    let workload = told.of(&gateway, CHAT, &[("x-request-timeout-ms", "1500")], body).await;
    assert_eq!(workload.deadline, Some(Duration::from_millis(1500)));
    for wrong in ["0", "-1", "1.5", "soon", "", "4294967296"] {
        let mut request = chat(body);
        request.headers_mut().insert("x-request-timeout-ms", wrong.parse().unwrap());
        let answer = whole(&gateway, request).await;
        assert_eq!(answer.status, 400, "{wrong}");
        assert!(answer.json()["error"]["message"].as_str().unwrap().contains("x-request-timeout-ms"));
    }
}

#[tokio::test]
async fn a_priority_that_is_none_is_a_mistake() {
    let told = Told::default();
    let gateway = told.gateway(builder());
    for word in ["high", "Normal", " low "] {
        told.of(&gateway, CHAT, &[("x-priority", word)], r#"{"model":"m"}"#).await;
    }
    let mut request = chat(r#"{"model":"m"}"#);
    request.headers_mut().insert("x-priority", "urgent".parse().unwrap());
    let answer = whole(&gateway, request).await;
    assert_eq!(answer.status, 400);
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("x-priority"));
}

fn long_chat(model: &str) -> String {
    format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"{}"}}]}}"#, "word ".repeat(500))
}

#[tokio::test]
async fn prompts_are_hashed_only_for_a_strategy_that_reads_them() {
    let body = long_chat("m");
    let told = Told::default();
    let gateway = told.gateway(builder());
    assert!(told.of(&gateway, CHAT, &[], &body).await.prefix.is_empty());

    let told = Told::reading();
    let gateway = told.gateway(builder());
    let prefix = told.of(&gateway, CHAT, &[], &body).await.prefix;
    assert_eq!((prefix.hashes().len(), prefix.tokens_per_block()), (4, 128));
    // It must be the same in every gateway in front of these runners, and in the next version.
    assert_eq!(prefix.hashes()[0], 0x2a28_1c10_97d5_b27d);
    assert_eq!(told.of(&gateway, CHAT, &[], &body).await.prefix, prefix);
    let other = told.of(&gateway, CHAT, &[], &long_chat("n")).await.prefix;
    assert_ne!(other.hashes()[0], prefix.hashes()[0], "another model has another cache");
}

#[tokio::test]
async fn an_alias_has_the_prefix_of_its_model() {
    let routes = ModelRoutes::builder().alias("gpt", "m").build().unwrap();
    let told = Told::reading();
    let gateway = told.gateway(builder().routes(routes));
    let by_alias = told.of(&gateway, CHAT, &[], &long_chat("gpt")).await.prefix;
    assert_eq!(told.of(&gateway, CHAT, &[], &long_chat("m")).await.prefix, by_alias);
}

#[tokio::test]
async fn block_size_and_separation_of_tenants_can_be_set() {
    let prefix = async |hashing: PromptHashing, key: &str| -> PromptBlocks {
        let told = Told::reading();
        let gateway = Gateway::builder().client_tokens(["one", "two"]).prompt_hashing(hashing);
        let gateway = told.gateway(gateway);
        told.by(&gateway, key, CHAT, &[], &long_chat("m")).await.prefix
    };
    let usual = PromptHashing::default();
    assert_eq!(prefix(usual, "one").await, prefix(usual, "two").await);
    let apart = PromptHashing { separate_tenants: true, ..usual };
    assert_ne!(prefix(apart, "one").await, prefix(apart, "two").await);
    let fine = prefix(PromptHashing { block_bytes: 64, ..usual }, "one").await;
    assert_eq!((fine.hashes().len(), fine.tokens_per_block()), (39, 16));
    let tiny = PromptHashing { block_bytes: 63, ..usual };
    assert_eq!(builder().prompt_hashing(tiny).build().unwrap_err(), BuildError::BlocksTooSmall);
}
