use std::sync::Mutex;

use super::picker::Picker;
use super::scale::{Range, Scale};
use super::{Filter, MOST_PARTS, Part, Pipeline, Scorer};
use crate::balance::predict::Peers;

/// Puts a [`Pipeline`] together. Made by [`Pipeline::builder`].
#[must_use = "build it"]
pub struct PipelineBuilder {
    name: &'static str,
    filters: Vec<Box<dyn Filter>>,
    preferences: Vec<Box<dyn Filter>>,
    scorers: Vec<(Box<dyn Scorer>, f64)>,
    picker: Picker,
}

/// Why a pipeline cannot be built.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// Its name cannot be shown in a header.
    #[error("the pipeline's name {0:?} must be visible ASCII without spaces, and not empty")]
    Name(String),
    /// Nothing to choose by.
    #[error("a pipeline needs at least one scorer with a weight above 0")]
    NoScorer,
    /// A weight that cannot be reckoned with.
    #[error("the weight of the scorer `{scorer}` is {weight}: it must be 0 or more, and finite")]
    Weight {
        /// Whose.
        scorer: &'static str,
        /// What it is.
        weight: f64,
    },
    /// More than fit.
    #[error("{0} {1} are too many: a pipeline may have 16")]
    TooMany(usize, &'static str),
    /// A number of draws out of range.
    #[error("best-of {0} is out of range: draw 2 to 16")]
    BestOf(usize),
    /// Draws that would miss a favourite.
    #[error("the scorer `{0}` has one favourite among all runners: use the picker `best` or `weighted`")]
    FavouriteMissed(&'static str),
    /// A part of a [`PipelineSpec`](super::PipelineSpec) that needs something else said of it.
    #[error("the part `{part}` {problem}")]
    Part {
        /// Which.
        part: &'static str,
        /// What to say of it, or no longer say.
        problem: &'static str,
    },
}

impl PipelineBuilder {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, filters: vec![], preferences: vec![], scorers: vec![], picker: Picker::default() }
    }

    /// Leaves out everybody whom it does not keep. If that is everybody, nobody is picked: the request waits
    /// or fails as if all were full.
    pub fn filter(mut self, filter: impl Filter) -> Self {
        self.filters.push(Box::new(filter));
        self
    }

    /// Puts those whom it keeps before all others, whatever their scores. If it keeps nobody who has room,
    /// the others serve. Earlier preferences go before later ones.
    pub fn prefer(mut self, filter: impl Filter) -> Self {
        self.preferences.push(Box::new(filter));
        self
    }

    /// Adds a scorer. Its weight is relative to the others': 0 shows it in `explain` only.
    pub fn scorer(self, scorer: impl Scorer, weight: f64) -> Self {
        self.boxed_scorer(Box::new(scorer), weight)
    }

    pub(super) fn boxed_scorer(mut self, scorer: Box<dyn Scorer>, weight: f64) -> Self {
        self.scorers.push((scorer, weight));
        self
    }

    /// Sets who is taken by the total. [`Picker::Best`] unless set.
    pub fn picker(mut self, picker: Picker) -> Self {
        self.picker = picker;
        self
    }

    /// Checks it all.
    ///
    /// # Errors
    /// There is no scorer with a weight above 0, a weight is negative or not finite, there are more than 16
    /// filters or scorers, or [`Picker::BestOf`] draws fewer than 2, more than 16, or is combined with a scorer
    /// on the scale [`Scale::Least`].
    pub fn build(self) -> Result<Pipeline, PipelineError> {
        let Self { name, filters, preferences, scorers, picker } = self;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(PipelineError::Name(name.to_owned()));
        }
        let counts =
            [(filters.len(), "filters"), (preferences.len(), "preferences"), (scorers.len(), "scorers")];
        if let Some((count, what)) = counts.into_iter().find(|(count, _)| *count > MOST_PARTS) {
            return Err(PipelineError::TooMany(count, what));
        }
        let wrong = |weight: f64| !weight.is_finite() || weight < 0.0;
        if let Some((scorer, weight)) = scorers.iter().find(|(_, weight)| wrong(*weight)) {
            return Err(PipelineError::Weight { scorer: scorer.name(), weight: *weight });
        }
        // Scaled first, so that huge weights do not add up to infinity.
        let most = scorers.iter().map(|(_, weight)| *weight).fold(0.0, f64::max);
        if most == 0.0 {
            return Err(PipelineError::NoScorer);
        }
        let sum: f64 = scorers.iter().map(|(_, weight)| weight / most).sum();
        let part = |(scorer, weight): (Box<dyn Scorer>, f64)| {
            let scale = scorer.scale();
            Part { scorer, weight: weight / most / sum, scale }
        };
        let parts: Vec<Part> = scorers.into_iter().map(part).collect();
        if let Picker::BestOf(most) = picker {
            if !(2..=Picker::BEST_OF_MOST).contains(&most) {
                return Err(PipelineError::BestOf(most));
            }
            if let Some(part) = parts.iter().find(|part| part.scale == Scale::Least) {
                return Err(PipelineError::FavouriteMissed(part.scorer.name()));
            }
        }
        Ok(Pipeline {
            name,
            compares: parts.iter().any(|part| part.scale.compares()),
            filters,
            preferences,
            parts,
            picker,
            peers: Peers::default(),
            latest: Mutex::new([Range::EMPTY; MOST_PARTS]),
        })
    }
}
