//! What a request asks of an API beyond a model and a prompt.

use std::fmt;
use std::ops::BitOr;

/// Something that a request can ask for and that not every runner can do. Each stands for one field of OpenAI's
/// JSON, as engines speak it.
///
/// Only what changes what the answer *is* has a place here: a runner that leaves it aside answers something else.
/// What merely colours the answer (`seed`, penalties, `top_k`) is for the runner to follow as well as it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Feature {
    /// Functions that the model may call.
    Tools,
    /// The same by its old name.
    Functions,
    /// Parts of messages that are no text: images, sound, files.
    Media,
    /// Answers as sound.
    Audio,
    /// Vectors instead of words.
    Embeddings,
    /// A prompt that is more than one text, or token numbers.
    PromptList,
    /// More than one answer.
    ManyAnswers,
    /// The best of more than one answer.
    BestOf,
    /// How likely each token was.
    Logprobs,
    /// An answer in a given form.
    ResponseFormat,
    /// An answer that follows a JSON schema, as vLLM has it.
    GuidedJson,
    /// An answer that matches a pattern, as vLLM has it.
    GuidedRegex,
    /// An answer that is one of a list, as vLLM has it.
    GuidedChoice,
    /// An answer that follows a grammar, as vLLM has it.
    GuidedGrammar,
    /// All of these by vLLM's newer name.
    StructuredOutputs,
    /// An answer that follows a grammar, as llama.cpp has it.
    Grammar,
    /// Where the answer ends.
    Stop,
    /// Tokens that are more or less likely than the model has them.
    LogitBias,
    /// The prompt, repeated before the answer.
    Echo,
    /// What follows the gap that the answer fills.
    Suffix,
}

impl Feature {
    /// Every one.
    pub const ALL: [Self; 20] = [
        Self::Tools,
        Self::Functions,
        Self::Media,
        Self::Audio,
        Self::Embeddings,
        Self::PromptList,
        Self::ManyAnswers,
        Self::BestOf,
        Self::Logprobs,
        Self::ResponseFormat,
        Self::GuidedJson,
        Self::GuidedRegex,
        Self::GuidedChoice,
        Self::GuidedGrammar,
        Self::StructuredOutputs,
        Self::Grammar,
        Self::Stop,
        Self::LogitBias,
        Self::Echo,
        Self::Suffix,
    ];

    /// The field of a request's JSON that asks for it.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Functions => "functions",
            Self::Media => "messages",
            Self::Audio => "audio",
            Self::Embeddings => "input",
            Self::PromptList => "prompt",
            Self::ManyAnswers => "n",
            Self::BestOf => "best_of",
            Self::Logprobs => "logprobs",
            Self::ResponseFormat => "response_format",
            Self::GuidedJson => "guided_json",
            Self::GuidedRegex => "guided_regex",
            Self::GuidedChoice => "guided_choice",
            Self::GuidedGrammar => "guided_grammar",
            Self::StructuredOutputs => "structured_outputs",
            Self::Grammar => "grammar",
            Self::Stop => "stop",
            Self::LogitBias => "logit_bias",
            Self::Echo => "echo",
            Self::Suffix => "suffix",
        }
    }

    /// What it is, to put after "cannot do".
    pub const fn words(self) -> &'static str {
        match self {
            Self::Tools | Self::Functions => "calls of functions",
            Self::Media => "images, sound or files",
            Self::Audio => "answers as sound",
            Self::Embeddings => "embeddings",
            Self::PromptList => "prompts that are more than one text",
            Self::ManyAnswers => "more than one answer",
            Self::BestOf => "the best of several answers",
            Self::Logprobs => "log probabilities",
            Self::ResponseFormat
            | Self::GuidedJson
            | Self::GuidedRegex
            | Self::GuidedChoice
            | Self::GuidedGrammar
            | Self::StructuredOutputs
            | Self::Grammar => "answers in a given form",
            Self::Stop => "stop sequences",
            Self::LogitBias => "biases of tokens",
            Self::Echo => "the prompt before the answer",
            Self::Suffix => "answers that fill a gap",
        }
    }
}

/// A set of [`Feature`]: those that a request asks for, or that a runner lacks.
///
/// ```
/// use gateway_core::{Feature, Features};
/// let asked = Feature::Logprobs | Feature::ManyAnswers;
/// let lacking = Features::TOOLS.with(Feature::ManyAnswers);
/// assert_eq!(asked.and(lacking).first(), Some(Feature::ManyAnswers));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features(u32);

impl Features {
    /// None.
    pub const NONE: Self = Self(0);
    /// Every one that there is, those of later versions among them: for a runner that takes a model, a text and how to
    /// sample, and nothing else.
    pub const ALL: Self = Self(u32::MAX);
    /// Calls of functions, by both names.
    pub const TOOLS: Self = Self::NONE.with(Feature::Tools).with(Feature::Functions);
    /// Everything that is not text, as input or as answer.
    pub const MEDIA: Self = Self::NONE.with(Feature::Media).with(Feature::Audio);
    /// Answers in a given form, by all names.
    pub const STRUCTURED: Self = Self::NONE
        .with(Feature::ResponseFormat)
        .with(Feature::GuidedJson)
        .with(Feature::GuidedRegex)
        .with(Feature::GuidedChoice)
        .with(Feature::GuidedGrammar)
        .with(Feature::StructuredOutputs)
        .with(Feature::Grammar);

    /// The set with `feature` in it.
    pub const fn with(self, feature: Feature) -> Self {
        Self(self.0 | 1 << feature as u8)
    }

    /// The set without `feature`.
    pub const fn without(self, feature: Feature) -> Self {
        Self(self.0 & !(1 << feature as u8))
    }

    /// Those that are in either set.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are in both sets.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether `feature` is in it.
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & 1 << feature as u8 != 0
    }

    /// Whether there is none in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The first of those in it, in the order of [`Feature::ALL`].
    pub fn first(self) -> Option<Feature> {
        Feature::ALL.get(self.0.trailing_zeros() as usize).copied()
    }

    /// Those in it, in the order of [`Feature::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.into_iter().filter(move |feature| self.has(*feature))
    }
}

impl From<Feature> for Features {
    fn from(feature: Feature) -> Self {
        Self::NONE.with(feature)
    }
}

impl<F: Into<Features>> BitOr<F> for Features {
    type Output = Self;

    fn bitor(self, other: F) -> Self {
        self.or(other.into())
    }
}

impl<F: Into<Features>> BitOr<F> for Feature {
    type Output = Features;

    fn bitor(self, other: F) -> Features {
        Features::from(self).or(other.into())
    }
}

impl FromIterator<Feature> for Features {
    fn from_iter<I: IntoIterator<Item = Feature>>(features: I) -> Self {
        features.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_place_and_a_field_of_its_own() {
        for (at, feature) in Feature::ALL.into_iter().enumerate() {
            assert_eq!(feature as usize, at, "{feature:?}: `first` goes by it");
            assert_eq!(Features::from(feature).first(), Some(feature));
            assert!(Features::ALL.has(feature));
        }
        let mut fields: Vec<_> = Feature::ALL.iter().map(|feature| feature.field()).collect();
        fields.sort_unstable();
        fields.dedup();
        assert_eq!(fields.len(), Feature::ALL.len());
    }

    #[test]
    fn sets_are_sets() {
        let two = Feature::Suffix | Feature::Tools;
        assert_eq!(two.iter().collect::<Vec<_>>(), [Feature::Tools, Feature::Suffix]);
        assert_eq!(format!("{two:?}"), "{Tools, Suffix}");
        assert_eq!(two.without(Feature::Tools), Feature::Suffix.into());
        assert_eq!(two.and(Features::TOOLS), Feature::Tools.into());
        assert_eq!(two, two.iter().collect());
        assert_eq!((Features::NONE.first(), Features::NONE.is_empty()), (None, true));
    }
}
