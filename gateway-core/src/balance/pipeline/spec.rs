//! Pipelines in configuration.

use serde::{Deserialize, Serialize};

use super::filters::{DeadlineFilter, LabelFilter, MaxLoadFilter, WarmFilter};
use super::picker::Picker;
use super::scorers::{
    CostScorer, FinishScorer, LabelScorer, LatencyScorer, LoadScorer, PrefixScorer, QueueScorer,
    SessionScorer, TokensScorer, WarmScorer,
};
use super::{Filter, Pipeline, PipelineBuilder, PipelineError, Scorer};

/// A [`Pipeline`] of built-in parts, by name, as it is written in configuration. In TOML:
///
/// ```toml
/// picker = "best"                               # or "weighted", or { best-of = 2 }
/// filters = [{ name = "max-load", share = 0.9 }]
/// preferences = [{ name = "label", label = "zone=eu" }]
/// scorers = [{ name = "load", weight = 2 }, { name = "session" }]
/// ```
///
/// A key that is not known is an error, as is one that the part has no use for.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineSpec {
    /// Who is left out. Nobody, unless set.
    #[serde(default)]
    pub filters: Vec<FilterSpec>,
    /// Who goes first, the most important first. Nobody, unless set.
    #[serde(default)]
    pub preferences: Vec<FilterSpec>,
    /// What runners are chosen by; at least one.
    pub scorers: Vec<ScorerSpec>,
    /// Who is taken. The best, unless set.
    #[serde(default)]
    pub picker: Picker,
}

/// One filter or preference of a [`PipelineSpec`].
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FilterSpec {
    /// Which.
    pub name: FilterName,
    /// For `label`: the label that is wanted, as `key=value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// For `max-load`: the most of a runner's slots that may be in use, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
}

/// One scorer of a [`PipelineSpec`].
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ScorerSpec {
    /// Which.
    pub name: ScorerName,
    /// How much it counts beside the others. 1, unless set.
    #[serde(default = "ScorerSpec::weight")]
    pub weight: f64,
    /// For `label`: the label that is wanted, as `key=value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// The filters that can be named in configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FilterName {
    /// [`DeadlineFilter`].
    Deadline,
    /// [`LabelFilter`].
    Label,
    /// [`MaxLoadFilter`].
    MaxLoad,
    /// [`WarmFilter`].
    Warm,
}

/// The scorers that can be named in configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ScorerName {
    /// [`CostScorer`].
    Cost,
    /// [`FinishScorer`].
    Finish,
    /// [`LabelScorer`].
    Label,
    /// [`LatencyScorer`].
    Latency,
    /// [`LoadScorer`].
    Load,
    /// [`PrefixScorer`].
    Prefix,
    /// [`QueueScorer`].
    Queue,
    /// [`SessionScorer`].
    Session,
    /// [`TokensScorer`].
    Tokens,
    /// [`WarmScorer`].
    Warm,
}

impl PipelineSpec {
    /// The name of pipelines that are written in configuration.
    pub const NAME: &'static str = "pipeline";

    /// Puts the pipeline together.
    ///
    /// # Errors
    /// As [`PipelineBuilder::build`], and [`PipelineError::Part`] for a part of which too little or too much
    /// is said.
    pub fn build(&self) -> Result<Pipeline, PipelineError> {
        let mut builder = Pipeline::builder(Self::NAME).picker(self.picker);
        for filter in &self.filters {
            builder = filter.add(builder, Add::Filter)?;
        }
        for filter in &self.preferences {
            builder = filter.add(builder, Add::Preference)?;
        }
        for scorer in &self.scorers {
            builder = scorer.add(builder)?;
        }
        builder.build()
    }
}

#[derive(Clone, Copy)]
enum Add {
    Filter,
    Preference,
}

impl Add {
    fn to(self, builder: PipelineBuilder, filter: impl Filter) -> PipelineBuilder {
        match self {
            Self::Filter => builder.filter(filter),
            Self::Preference => builder.prefer(filter),
        }
    }
}

impl FilterSpec {
    fn add(&self, to: PipelineBuilder, add: Add) -> Result<PipelineBuilder, PipelineError> {
        let Self { name, label, share } = self;
        if share.is_some() && *name != FilterName::MaxLoad {
            return problem(name.as_str(), "has no use for a `share`");
        }
        if label.is_some() && *name != FilterName::Label {
            return problem(name.as_str(), "has no use for a `label`");
        }
        Ok(match name {
            FilterName::Deadline => add.to(to, DeadlineFilter),
            FilterName::Warm => add.to(to, WarmFilter),
            FilterName::Label => {
                let (key, value) = split("label", label.as_deref())?;
                add.to(to, LabelFilter::new(key, value))
            }
            FilterName::MaxLoad => match share {
                Some(share) if (0.0..=1.0).contains(share) => add.to(to, MaxLoadFilter::new(*share)),
                _ => return problem("max-load", "needs a `share` from 0 to 1"),
            },
        })
    }
}

impl ScorerSpec {
    fn weight() -> f64 {
        1.0
    }

    fn add(&self, to: PipelineBuilder) -> Result<PipelineBuilder, PipelineError> {
        let Self { name, weight, label } = self;
        let scorer: Box<dyn Scorer> = match name {
            ScorerName::Cost => Box::new(CostScorer),
            ScorerName::Finish => Box::new(FinishScorer),
            ScorerName::Label => {
                let (key, value) = split("label", label.as_deref())?;
                Box::new(LabelScorer::new(key, value))
            }
            ScorerName::Latency => Box::new(LatencyScorer),
            ScorerName::Load => Box::new(LoadScorer),
            ScorerName::Prefix => Box::new(PrefixScorer::default()),
            ScorerName::Queue => Box::new(QueueScorer),
            ScorerName::Session => Box::new(SessionScorer),
            ScorerName::Tokens => Box::new(TokensScorer),
            ScorerName::Warm => Box::new(WarmScorer),
        };
        if label.is_some() && *name != ScorerName::Label {
            return problem(scorer.name(), "has no use for a `label`");
        }
        Ok(to.boxed_scorer(scorer, *weight))
    }
}

impl FilterName {
    fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Label => "label",
            Self::MaxLoad => "max-load",
            Self::Warm => "warm",
        }
    }
}

fn split<'l>(part: &'static str, label: Option<&'l str>) -> Result<(&'l str, &'l str), PipelineError> {
    let label = label.and_then(|label| label.split_once('=')).filter(|(key, _)| !key.is_empty());
    label.map_or_else(|| problem(part, "needs a `label`, written as \"key=value\""), Ok)
}

fn problem<T>(part: &'static str, problem: &'static str) -> Result<T, PipelineError> {
    Err(PipelineError::Part { part, problem })
}
