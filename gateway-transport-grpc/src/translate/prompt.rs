//! How the messages of a chat become one prompt.

use super::Refusal;
#[cfg(feature = "jinja")]
use super::jinja::JinjaTemplate;
use super::messages::Content;

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
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn<'a> {
    pub(super) role: Role,
    pub(super) content: Content<'a>,
}

impl PromptTemplate {
    pub(super) fn render(&self, turns: &[Turn<'_>]) -> Result<String, Refusal> {
        match (self, turns) {
            (Self::Verbatim, [Turn { role: Role::User, content }]) => {
                let mut prompt = String::new();
                content.put(&mut prompt)?;
                Ok(prompt)
            }
            (Self::Document | Self::Verbatim, _) => lines(turns),
            #[cfg(feature = "jinja")]
            (Self::Jinja(template), _) => template.render(turns),
        }
    }
}

fn lines(turns: &[Turn<'_>]) -> Result<String, Refusal> {
    let room = turns.iter().map(|turn| turn.content.room() + "Assistant: \n".len()).sum::<usize>();
    let mut prompt = String::with_capacity(room + "Assistant:".len());
    for turn in turns {
        prompt.push_str(match turn.role {
            Role::System => "System: ",
            Role::User => "User: ",
            Role::Assistant => "Assistant: ",
        });
        turn.content.put(&mut prompt)?;
        prompt.push('\n');
    }
    prompt.push_str("Assistant:");
    Ok(prompt)
}
