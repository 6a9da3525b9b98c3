//! The messages of the control protocol, as they stand on the wire.
//!
//! JSON in text frames, tagged by `type`. Reading is tolerant: unknown fields and unknown capabilities are
//! skipped, fields that older runners lack have defaults, `null` stands for a default. Writing is exact:
//! absent optionals are `null`, except where the type says otherwise. `PROTOCOL.md` has it in prose.
//!
//! ```
//! use gateway_transport_ws::protocol::{GatewayMessage, RunnerMessage};
//! let ping = GatewayMessage::Ping { timestamp: 7 };
//! assert_eq!(ping.to_text(), r#"{"type":"ping","timestamp":7}"#);
//! assert!(RunnerMessage::parse(r#"{"type":"heartbeat","health":"healthy","capabilities":[],"engines":[]}"#).is_ok());
//! ```

mod from_core;
mod lenient;
mod status;
mod time;
mod to_core;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use status::{
    Capability, CapabilityInfo, CapabilityStatus, Effort, EngineStatus, Health, Load, ModelInfo, Reasoning,
    Resources, ResourcesReport, RunnerMetrics, RunnerStatus,
};

/// The version of the control protocol that is spoken here.
pub const PROTOCOL_VERSION: u32 = 1;

/// The version of the tunnel that is spoken here.
pub const TUNNEL_VERSION: u32 = 1;

/// Where runners dial in, unless set otherwise.
pub const DEFAULT_PATH: &str = "/ws/runners";

/// What a runner says to the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RunnerMessage {
    /// The first message on a connection.
    #[serde(alias = "registration")]
    Register(Box<Register>),
    /// Sent every 30 s, the first at once after the ack.
    Heartbeat(RunnerStatus),
    /// Sent when something has changed, and in answer to a ping.
    StatusUpdate(RunnerStatus),
    /// The answer to a command.
    CommandResponse(CommandResponse),
}

/// Who a runner is, and how it is at that moment. Its `Debug` form leaves the token out.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Register {
    /// Its stable id.
    pub runner_id: String,
    /// A name for people.
    #[serde(default, deserialize_with = "lenient::null_is_default")]
    pub runner_name: String,
    /// The machine, in the runner's own words.
    #[serde(default)]
    pub machine_type: Option<String>,
    /// Where it serves HTTP, for dialling back; 8080 if an older runner does not say.
    #[serde(default = "default_http_port")]
    pub http_port: u16,
    /// [`PROTOCOL_VERSION`].
    pub protocol_version: u32,
    /// The secret that lets it in.
    #[serde(default, deserialize_with = "lenient::null_is_default")]
    pub auth_token: String,
    /// How it is.
    pub status: RunnerStatus,
    /// Hardware address, `AA:BB:CC:DD:EE:FF`.
    #[serde(default)]
    pub mac_address: Option<String>,
    /// Ours: the most requests it takes at once.
    #[serde(default, deserialize_with = "lenient::or_none", skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// Ours: facts that requests can ask for.
    #[serde(default, deserialize_with = "lenient::or_none", skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Ours: it asks for the tunnel.
    #[serde(default, deserialize_with = "lenient::or_none", skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelRequest>,
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Register")
            .field("runner_id", &self.runner_id)
            .field("protocol_version", &self.protocol_version)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

fn default_http_port() -> u16 {
    8080
}

/// A runner asks to be reached through the connection that it dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelRequest {
    /// [`TUNNEL_VERSION`].
    pub version: u32,
    /// The most streams at once.
    pub max_streams: u32,
}

/// The gateway grants the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelGrant {
    /// [`TUNNEL_VERSION`].
    pub version: u32,
    /// The most streams that the gateway will open at once: what the runner asked for or fewer.
    pub max_streams: u32,
}

/// A runner's answer to a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandResponse {
    /// The command's.
    pub request_id: String,
    /// Whether it was done.
    pub success: bool,
    /// Why not.
    #[serde(default)]
    pub error: Option<String>,
    /// How the runner is afterwards.
    #[serde(default)]
    pub status: Option<RunnerStatus>,
}

/// What the gateway says to a runner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum GatewayMessage {
    /// The runner is in.
    #[serde(alias = "welcome")]
    RegisterAck {
        /// Its id, as understood.
        runner_id: String,
        /// Ours: the tunnel is granted, and begins with the next binary frame.
        #[serde(default, deserialize_with = "lenient::or_none", skip_serializing_if = "Option::is_none")]
        tunnel: Option<TunnelGrant>,
    },
    /// Bring a model into memory.
    LoadModel {
        /// Which.
        model_id: String,
        /// To be named in the answer.
        request_id: String,
    },
    /// Take a model out of memory.
    UnloadModel {
        /// Which.
        model_id: String,
        /// To be named in the answer.
        request_id: String,
    },
    /// Say how you are.
    RequestStatus {
        /// To be named in the answer.
        request_id: String,
    },
    /// Are you there? Answered with a status update.
    Ping {
        /// Seconds since 1970.
        timestamp: i64,
    },
    /// Something is wrong; the connection ends.
    Error {
        /// For programs.
        code: String,
        /// For people.
        message: String,
    },
}

impl RunnerMessage {
    /// Reads a text frame.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The text frame.
    pub fn to_text(&self) -> String {
        to_text(self)
    }
}

impl GatewayMessage {
    /// Reads a text frame.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The text frame.
    pub fn to_text(&self) -> String {
        to_text(self)
    }
}

/// Cannot fail for these types: every map has string keys.
fn to_text(message: &impl Serialize) -> String {
    serde_json::to_string(message).unwrap_or_default()
}
