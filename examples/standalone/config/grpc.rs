//! gRPC: where it is served, and the workers that are dialled.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use gateway_transport_grpc::{GrpcRunner, GrpcRunners, GrpcServerBuilder, PromptAs, PromptTemplate};
use serde::{Deserialize, Serialize};

use super::Settings;
use super::section::{ConfigError, Secret, section};

section! {
    /// The AiInference contract, on both sides.
    Grpc {
        listen: Option<String> = None,
        socket_mode: String = "660".to_owned(),
        prompt_as: Prompts = Prompts::Completion,
        reflection: bool = true,
        max_message_bytes: usize = GrpcServerBuilder::MAX_MESSAGE_BYTES,
        runner: Vec<GrpcEntry> = Vec::new(),
    }
}

/// What becomes of others' prompts.
#[derive(Deserialize, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Prompts {
    Completion,
    Chat,
}

/// How messages become a prompt.
#[derive(Deserialize, Serialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Template {
    #[default]
    Document,
    Verbatim,
    Jinja,
}

/// A worker that is dialled.
#[derive(Deserialize, Serialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct GrpcEntry {
    pub(super) address: String,
    id: Option<String>,
    #[serde(default)]
    models: Vec<String>,
    slots: Option<u32>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    token: Option<Secret>,
    #[serde(default)]
    template: Template,
    /// The file of `template = "jinja"`.
    jinja: Option<PathBuf>,
}

impl GrpcEntry {
    pub(super) fn at(address: impl Into<String>) -> Self {
        Self { address: address.into(), ..Self::default() }
    }

    fn runner(&self) -> Result<GrpcRunner, ConfigError> {
        let wrong = |problem: &dyn fmt::Display| {
            ConfigError::at("grpc.runner", format!("{}: {problem}", self.address))
        };
        let mut runner =
            GrpcRunner::new(&self.address).map_err(|error| ConfigError::at("grpc.runner", error))?;
        if let Some(id) = &self.id {
            runner = runner.id(id);
        }
        if !self.models.is_empty() {
            runner = runner.models(&self.models);
        }
        if let Some(slots) = self.slots {
            runner = runner.slots(slots);
        }
        if let Some(token) = &self.token {
            runner = runner.token(&token.0);
        }
        for (key, value) in &self.labels {
            runner = runner.label(key, value);
        }
        runner = runner.template(self.template().map_err(|error| wrong(&error))?);
        runner.validate().map_err(|error| wrong(&error))?;
        Ok(runner)
    }

    fn template(&self) -> Result<PromptTemplate, String> {
        match (self.template, &self.jinja) {
            (Template::Document, None) => Ok(PromptTemplate::Document),
            (Template::Verbatim, None) => Ok(PromptTemplate::Verbatim),
            (Template::Jinja, Some(path)) => {
                let text = std::fs::read_to_string(path);
                jinja(text.map_err(|error| format!("cannot read {}: {error}", path.display()))?)
            }
            (Template::Jinja, None) => {
                Err("`template = \"jinja\"` needs `jinja`, the template's file".into())
            }
            (_, Some(_)) => Err("`jinja` is for `template = \"jinja\"` only".into()),
        }
    }
}

fn jinja(text: String) -> Result<PromptTemplate, String> {
    let template = gateway_transport_grpc::JinjaTemplate::new(text);
    Ok(PromptTemplate::Jinja(template.map_err(|error| error.to_string())?))
}

/// Where gRPC is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GrpcListen {
    /// `host:port`.
    Tcp(String),
    Unix(PathBuf),
    /// On the port of the HTTP API.
    WithHttp,
}

/// What the section comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GrpcSetting {
    /// `None`: it is not served.
    pub(crate) listen: Option<GrpcListen>,
    /// Permissions of a Unix socket.
    pub(crate) socket_mode: u32,
    pub(crate) prompt_as: PromptAs,
    pub(crate) reflection: bool,
    pub(crate) max_message_bytes: usize,
    pub(super) runners: Vec<GrpcEntry>,
}

impl Grpc {
    pub(super) fn setting(self) -> Result<GrpcSetting, ConfigError> {
        let mode = u32::from_str_radix(&self.socket_mode, 8).ok().filter(|mode| *mode <= 0o777);
        let Some(socket_mode) = mode else {
            let problem = format!("it is three octal digits such as 660, not `{}`", self.socket_mode);
            return Err(ConfigError::at("grpc.socket_mode", problem));
        };
        Ok(GrpcSetting {
            listen: self.listen.as_deref().map(listen).transpose()?,
            socket_mode,
            prompt_as: match self.prompt_as {
                Prompts::Completion => PromptAs::Completion,
                Prompts::Chat => PromptAs::Chat,
            },
            reflection: self.reflection,
            max_message_bytes: self.max_message_bytes,
            runners: self.runner,
        })
    }
}

fn listen(text: &str) -> Result<GrpcListen, ConfigError> {
    if text == "http" {
        return Ok(GrpcListen::WithHttp);
    }
    if let Some(path) = text.strip_prefix("unix:") {
        // `unix:///a` is how clients write `unix:/a`.
        let path = path.strip_prefix("//").unwrap_or(path);
        return match path {
            "" => Err(ConfigError::at("grpc.listen", "`unix:` is followed by the path of a socket")),
            path => Ok(GrpcListen::Unix(path.into())),
        };
    }
    let is_address =
        text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if is_address {
        return Ok(GrpcListen::Tcp(text.to_owned()));
    }
    let problem = format!("it is host:port, unix:PATH, or http for the port of the HTTP API, not `{text}`");
    Err(ConfigError::at("grpc.listen", problem))
}

impl GrpcSetting {
    /// The tokens of workers, which are not written out otherwise.
    pub(super) fn secrets(&self) -> Vec<&str> {
        self.runners.iter().filter_map(|runner| Some(runner.token.as_ref()?.0.as_str())).collect()
    }
}

impl Settings {
    /// The workers that are dialled; `None` if there are none.
    ///
    /// # Errors
    /// One of them cannot be; the message names its address.
    pub(crate) fn dialled(&self) -> Result<Option<GrpcRunners>, ConfigError> {
        let workers = self.workers()?;
        Ok((!workers.is_empty()).then(|| GrpcRunners::list(workers)))
    }

    /// Each of them.
    ///
    /// # Errors
    /// As [`Settings::dialled`].
    pub(crate) fn workers(&self) -> Result<Vec<GrpcRunner>, ConfigError> {
        self.grpc.runners.iter().map(GrpcEntry::runner).collect()
    }
}
