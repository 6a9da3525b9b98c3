//! Chat templates in Jinja.

use std::fmt;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, context};

use super::Refusal;
use super::prompt::{Role, Turn};

/// Why a template cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the chat template cannot be read: {0:#}")]
pub struct InvalidTemplate(#[source] Error);

/// A chat template in Jinja, as a model's `tokenizer_config.json` has it under `chat_template`.
///
/// It sees `messages` (each with `role` and `content`), `bos_token`, `eos_token` and `add_generation_prompt`, which
/// is true, and can call `raise_exception`: the client then gets a 400 with its words. Blocks are trimmed, and
/// strings have Python's methods, as in `transformers`. The template is the operator's: nothing bounds what it
/// computes.
///
/// ```
/// # #[cfg(feature = "jinja")] {
/// use gateway_transport_grpc::{JinjaTemplate, PromptTemplate};
///
/// let template = JinjaTemplate::new(
///     "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{{ eos_token }}{% endfor %}",
/// )?
/// .bos_token("<s>")
/// .eos_token("</s>");
/// let template = PromptTemplate::Jinja(template);
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct JinjaTemplate {
    environment: Arc<Environment<'static>>,
    source: Arc<str>,
    bos_token: String,
    eos_token: String,
}

const NAME: &str = "chat";

impl JinjaTemplate {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// If it is not Jinja.
    pub fn new(source: impl Into<String>) -> Result<Self, InvalidTemplate> {
        let source = source.into();
        let mut environment = Environment::new();
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).lstrip_blocks(true);
        environment.set_syntax(syntax.build().map_err(InvalidTemplate)?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |words: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, words))
        });
        environment.add_template_owned(NAME, source.clone()).map_err(InvalidTemplate)?;
        Ok(Self {
            environment: Arc::new(environment),
            source: source.into(),
            bos_token: String::new(),
            eos_token: String::new(),
        })
    }

    /// Sets `bos_token`. Default: empty.
    pub fn bos_token(mut self, token: impl Into<String>) -> Self {
        self.bos_token = token.into();
        self
    }

    /// Sets `eos_token`. Default: empty.
    pub fn eos_token(mut self, token: impl Into<String>) -> Self {
        self.eos_token = token.into();
        self
    }

    pub(super) fn render(&self, turns: &[Turn<'_>]) -> Result<String, Refusal> {
        let message = |turn: &Turn<'_>| {
            let role = match turn.role {
                Role::System => "system",
                Role::User => "user",
                Role::Assistant => "assistant",
            };
            let mut content = String::new();
            turn.content.put(&mut content)?;
            Ok(context! { role, content })
        };
        let messages = turns.iter().map(message).collect::<Result<Vec<Value>, Refusal>>()?;
        let context = context! {
            messages,
            bos_token => self.bos_token.as_str(),
            eos_token => self.eos_token.as_str(),
            add_generation_prompt => true,
        };
        let rendered = self.environment.get_template(NAME).and_then(|template| template.render(context));
        rendered.map_err(|error| {
            let words = error.detail().unwrap_or("it does not fit them");
            Refusal::invalid(
                "messages",
                format!("The model's chat template does not take these messages: {words}."),
            )
        })
    }
}

impl PartialEq for JinjaTemplate {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source && self.bos_token == other.bos_token && self.eos_token == other.eos_token
    }
}

impl fmt::Debug for JinjaTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JinjaTemplate").finish_non_exhaustive()
    }
}
