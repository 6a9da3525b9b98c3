//! OpenAI's API in the contract's terms, and the contract's answers in OpenAI's.

mod events;
mod fields;
#[cfg(feature = "jinja")]
mod jinja;
mod messages;
mod parameters;
mod piece;
mod prompt;
mod refusal;
mod request;
mod stop;
mod told;
mod unescape;
mod whole;

pub(crate) use events::Events;
#[cfg(feature = "jinja")]
pub use jinja::{InvalidTemplate, JinjaTemplate};
pub(crate) use piece::{Piece, PieceError};
pub use prompt::PromptTemplate;
pub(crate) use refusal::Refusal;
pub(crate) use request::{Api, Asked, Defaults, asked, grpc_timeout};
pub(crate) use stop::Stop;
pub(crate) use told::{Finish, Told};
pub(crate) use whole::Whole;

/// What begins a chunk that tells how far the loading of a cold model is: no text for clients.
pub(crate) const LOADING: &str = "[模型加载]";

/// Who an answer is from and to: what stands in each of its objects.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    pub(crate) api: Api,
    /// Of the request.
    pub(crate) id: String,
    /// As the request has it.
    pub(crate) model: String,
    /// In seconds since 1970.
    pub(crate) created: u64,
}

impl Label {
    fn full_id(&self) -> String {
        match self.api {
            Api::Chat => format!("chatcmpl-{}", self.id),
            Api::Completion => format!("cmpl-{}", self.id),
        }
    }
}

/// Takes the text of an answer as it comes.
pub(crate) trait Sink {
    fn text(&mut self, text: &str);
}
