//! The settings file as it is written.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use gateway_core::{Deadlines, Priority, Tenant};
use gateway_http::{Identity, PromptHashing};
use gateway_transport_http::RunnerEntry;
use serde::{Deserialize, Serialize};

use super::discovery::Discovery;
use super::generic::{Forwarded, GenericEntry, NeedsSection};
use super::grpc::Grpc;
use super::lifecycle::Lifecycle;
use super::models::Models;
use super::queue::Queue;
use super::request_log::RequestLog;
use super::resilience::{Breaker, Hedge, Hold, Outliers, Retry, SlowStart};
use super::section::{ConfigError, Seconds, Secret, section};
use super::strategy::StrategySetting;

section! {
    /// The settings file. An unknown key is an error.
    File {
        listen: Option<String> = None,
        observability: Option<String> = None,
        client_tokens: Vec<Secret> = Vec::new(),
        admin_tokens: Vec<Secret> = Vec::new(),
        runner_token: Option<Secret> = None,
        allow_anonymous: bool = false,
        strategy: StrategySetting = StrategySetting::default(),
        strategy_of: BTreeMap<String, StrategySetting> = BTreeMap::new(),
        default_backend: Option<String> = None,
        sse_keepalive_s: Seconds = Seconds(Duration::ZERO),
        client: Vec<ClientEntry> = Vec::new(),
        limits: Limits = Limits::default(),
        prompts: Prompts = Prompts::default(),
        queue: Queue = Queue::default(),
        retry: Retry = Retry::default(),
        breaker: Breaker = Breaker::default(),
        hold: Hold = Hold::default(),
        slow_start: SlowStart = SlowStart::default(),
        outliers: Outliers = Outliers::default(),
        hedge: Hedge = Hedge::default(),
        lifecycle: Lifecycle = Lifecycle::default(),
        models: Models = Models::default(),
        discovery: Discovery = Discovery::default(),
        request_log: RequestLog = RequestLog::default(),
        grpc: Grpc = Grpc::default(),
        generic: Vec<GenericEntry> = Vec::new(),
        needs: NeedsSection = NeedsSection::default(),
        forwarded: Forwarded = Forwarded::default(),
        runner: Vec<RunnerEntry> = Vec::new(),
    }
}

section! {
    Limits {
        max_body_bytes: Option<usize> = None,
        max_connections: usize = super::MAX_CONNECTIONS,
        first_byte_s: Seconds = Seconds(Deadlines::FIRST_BYTE),
        idle_s: Seconds = Seconds(Deadlines::IDLE),
        total_s: Seconds = Seconds(Deadlines::TOTAL),
    }
}

impl Limits {
    pub(super) fn deadlines(&self) -> Deadlines {
        Deadlines {
            first_byte: self.first_byte_s.unless_zero(),
            idle: self.idle_s.unless_zero(),
            total: self.total_s.unless_zero(),
        }
    }
}

section! {
    Prompts {
        block_bytes: usize = PromptHashing::BLOCK_BYTES,
        separate_tenants: bool = false,
    }
}

impl Prompts {
    pub(super) fn hashing(&self) -> PromptHashing {
        PromptHashing { block_bytes: self.block_bytes, separate_tenants: self.separate_tenants }
    }
}

/// A client of whom more is said than its token.
#[derive(Deserialize, Serialize, Clone)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientEntry {
    /// Its token.
    pub(crate) token: Secret,
    /// What it is called in logs; its tenant unless that is said, too.
    name: String,
    /// On whose account its requests are.
    tenant: Option<String>,
    /// The most urgent that its requests may be: `high`, `normal` or `low`.
    max_priority: Option<String>,
}

impl ClientEntry {
    pub(crate) fn identity(&self) -> Result<Identity, ConfigError> {
        let mut identity = Identity::named(self.name.as_str());
        if let Some(tenant) = &self.tenant {
            let tenant = Tenant::new(tenant).map_err(|error| ConfigError::at("client.tenant", error))?;
            identity = identity.of_tenant(tenant);
        }
        if let Some(word) = &self.max_priority {
            let wrong = |error| ConfigError::at("client.max_priority", format!("{word}: {error}"));
            identity = identity.up_to(word.parse::<Priority>().map_err(wrong)?);
        }
        Ok(identity)
    }
}

impl fmt::Debug for ClientEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the token.
        f.debug_struct("ClientEntry").field("name", &self.name).finish_non_exhaustive()
    }
}
