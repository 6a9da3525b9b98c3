//! How the messages of a chat become one prompt.

use super::Refusal;
#[cfg(feature = "jinja")]
use super::jinja::JinjaTemplate;

/// How the messages of a chat become the one prompt that the contract has room for. The prompt of a completion
/// is always sent as it is.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub enum PromptTemplate {
    /// As the contract's document has it: a line `System: …`, `User: …` or `Assistant: …` for each message, and
    /// a last `Assistant:` for the model to go on.
    #[default]
    Document,
    /// A single message of the user's is sent as it is, for workers that have a template of their own, as the
    /// shipped gateway does; more than one as by [`PromptTemplate::Document`].
    Verbatim,
    /// A chat template as models on Hugging Face have it.
    #[cfg(feature = "jinja")]
    Jinja(JinjaTemplate),
}

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    System,
    User,
    Assistant,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) role: Role,
    pub(super) text: String,
}

impl PromptTemplate {
    pub(super) fn render(&self, mut turns: Vec<Turn>) -> Result<String, Refusal> {
        match self {
            Self::Verbatim if matches!(&turns[..], [Turn { role: Role::User, .. }]) => {
                Ok(turns.pop().map(|turn| turn.text).unwrap_or_default())
            }
            Self::Document | Self::Verbatim => Ok(lines(&turns)),
            #[cfg(feature = "jinja")]
            Self::Jinja(template) => template.render(&turns),
        }
    }
}

fn lines(turns: &[Turn]) -> String {
    let room = turns.iter().map(|turn| turn.text.len() + "Assistant: \n".len()).sum::<usize>();
    let mut prompt = String::with_capacity(room + "Assistant:".len());
    for turn in turns {
        prompt.push_str(match turn.role {
            Role::System => "System: ",
            Role::User => "User: ",
            Role::Assistant => "Assistant: ",
        });
        prompt.push_str(&turn.text);
        prompt.push('\n');
    }
    prompt.push_str("Assistant:");
    prompt
}
