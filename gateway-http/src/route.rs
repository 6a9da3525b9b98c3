//! Which route a request means. Matched by hand: there are few of them, and none costs an allocation.

use std::borrow::Cow;
use std::sync::Arc;

use gateway_core::Door;

/// A route, with what its path says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'p> {
    Inference(Inference),
    Models,
    /// The model's name, percent-encoded.
    Model(&'p str),
    Health,
    Ready,
    Metadata,
    Runners,
    AdminRunners,
    /// The runner's id, percent-encoded.
    Command(AdminCommand, &'p str),
    Events,
    Explain,
    /// Which of the doors.
    Door(usize),
    /// None of the gateway's own: what it means stands in another table.
    Generic,
    Unknown,
}

/// The APIs whose requests go to runners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inference {
    Chat,
    Completion,
    Embedding,
}

/// What an admin can have done to a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AdminCommand {
    Load,
    Unload,
    Drain,
    Status,
}

/// A route without what varies in its path: the label in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Chat,
    Completion,
    Embedding,
    Models,
    Model,
    Health,
    Ready,
    Metadata,
    Runners,
    AdminRunners,
    Load,
    Unload,
    Drain,
    Status,
    Events,
    Explain,
    Door,
    Generic,
    Unknown,
}

impl Endpoint {
    pub(crate) const ALL: [Self; 19] = [
        Self::Chat,
        Self::Completion,
        Self::Embedding,
        Self::Models,
        Self::Model,
        Self::Health,
        Self::Ready,
        Self::Metadata,
        Self::Runners,
        Self::AdminRunners,
        Self::Load,
        Self::Unload,
        Self::Drain,
        Self::Status,
        Self::Events,
        Self::Explain,
        Self::Door,
        Self::Generic,
        Self::Unknown,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completion => "/v1/completions",
            Self::Embedding => "/v1/embeddings",
            Self::Models => "/v1/models",
            Self::Model => "/v1/models/{id}",
            Self::Health => "/health",
            Self::Ready => "/readyz",
            Self::Metadata => "/v1/metadata",
            Self::Runners => "/runners",
            Self::AdminRunners => "/admin/runners",
            Self::Load => "/admin/runners/{id}/load-model",
            Self::Unload => "/admin/runners/{id}/unload-model",
            Self::Drain => "/admin/runners/{id}/drain",
            Self::Status => "/admin/runners/{id}/request-status",
            Self::Events => "/admin/runners/events",
            Self::Explain => "/admin/explain",
            Self::Door => "door",
            Self::Generic => "generic",
            Self::Unknown => "other",
        }
    }
}

impl<'p> Route<'p> {
    pub(crate) fn find(path: &'p str, doors: &[Arc<dyn Door>]) -> Self {
        match path {
            "/v1/chat/completions" => return Self::Inference(Inference::Chat),
            "/v1/completions" => return Self::Inference(Inference::Completion),
            "/v1/embeddings" => return Self::Inference(Inference::Embedding),
            "/v1/models" => return Self::Models,
            "/health" => return Self::Health,
            "/readyz" => return Self::Ready,
            "/v1/metadata" => return Self::Metadata,
            "/runners" => return Self::Runners,
            "/admin/runners" => return Self::AdminRunners,
            "/admin/runners/events" => return Self::Events,
            "/admin/explain" => return Self::Explain,
            _ => {}
        }
        if let Some(door) = doors.iter().position(|door| door.path() == path) {
            return Self::Door(door);
        }
        // Names of models and ids of runners may hold slashes, so they are whatever is left over.
        if let Some(id) = path.strip_prefix("/v1/models/").filter(|id| !id.is_empty()) {
            return Self::Model(id);
        }
        let command = path.strip_prefix("/admin/runners/").and_then(|rest| rest.rsplit_once('/'));
        match command {
            Some((id, "load-model")) if !id.is_empty() => Self::Command(AdminCommand::Load, id),
            Some((id, "unload-model")) if !id.is_empty() => Self::Command(AdminCommand::Unload, id),
            Some((id, "drain")) if !id.is_empty() => Self::Command(AdminCommand::Drain, id),
            Some((id, "request-status")) if !id.is_empty() => Self::Command(AdminCommand::Status, id),
            _ => Self::Unknown,
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        match self {
            Self::Inference(Inference::Chat) => Endpoint::Chat,
            Self::Inference(Inference::Completion) => Endpoint::Completion,
            Self::Inference(Inference::Embedding) => Endpoint::Embedding,
            Self::Models => Endpoint::Models,
            Self::Model(_) => Endpoint::Model,
            Self::Health => Endpoint::Health,
            Self::Ready => Endpoint::Ready,
            Self::Metadata => Endpoint::Metadata,
            Self::Runners => Endpoint::Runners,
            Self::AdminRunners => Endpoint::AdminRunners,
            Self::Command(AdminCommand::Load, _) => Endpoint::Load,
            Self::Command(AdminCommand::Unload, _) => Endpoint::Unload,
            Self::Command(AdminCommand::Drain, _) => Endpoint::Drain,
            Self::Command(AdminCommand::Status, _) => Endpoint::Status,
            Self::Events => Endpoint::Events,
            Self::Explain => Endpoint::Explain,
            Self::Door(_) => Endpoint::Door,
            Self::Generic => Endpoint::Generic,
            Self::Unknown => Endpoint::Unknown,
        }
    }

    /// The methods that the route takes, or `None` if that is not for us to say.
    pub(crate) fn methods(&self) -> Option<&'static str> {
        match self {
            Self::Inference(_) | Self::Command(..) | Self::Explain => Some("POST"),
            Self::Door(_) | Self::Generic | Self::Unknown => None,
            _ => Some("GET, HEAD"),
        }
    }

    pub(crate) fn takes(&self, method: &http::Method) -> bool {
        self.methods()
            .is_none_or(|methods| methods.split(',').any(|one| one.trim_ascii_start() == method.as_str()))
    }
}

/// `text` with `%XX` turned into bytes, or `None` if that gives no UTF-8.
pub(crate) fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = digit(tail.first()).zip(digit(tail.get(1))).filter(|_| *first == b'%');
        match hex {
            Some((high, low)) => {
                bytes.extend(u8::try_from(high * 16 + low));
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_slashes_and_percents_are_found() {
        assert_eq!(Route::find("/v1/models/meta/llama-3", &[]), Route::Model("meta/llama-3"));
        let id = "http:%2F%2F10.0.0.5:8000";
        let path = format!("/admin/runners/{id}/load-model");
        assert_eq!(Route::find(&path, &[]), Route::Command(AdminCommand::Load, id));
        assert_eq!(percent_decoded(id).as_deref(), Some("http://10.0.0.5:8000"));
        let plain = "/admin/runners/http://10.0.0.5:8000/drain";
        assert_eq!(Route::find(plain, &[]), Route::Command(AdminCommand::Drain, "http://10.0.0.5:8000"));
    }

    #[test]
    fn percent_decoding_leaves_what_is_no_escape() {
        assert_eq!(percent_decoded("100%").as_deref(), Some("100%"));
        assert_eq!(percent_decoded("%zz%4").as_deref(), Some("%zz%4"));
        assert_eq!(percent_decoded("%e2%82%AC").as_deref(), Some("€"));
        assert_eq!(percent_decoded("%ff"), None);
    }

    #[test]
    fn nothing_else_is_a_route() {
        for path in
            ["", "/", "/v1/models/", "/v1/chat/completions/", "/admin/runners//load-model", "/metrics"]
        {
            assert_eq!(Route::find(path, &[]), Route::Unknown, "{path}");
        }
    }

    #[test]
    fn every_endpoint_is_listed_in_order() {
        for (at, endpoint) in Endpoint::ALL.into_iter().enumerate() {
            assert_eq!(endpoint as usize, at);
        }
    }
}
