//! How scores of all units become numbers between 0 and 1.

/// What a [`Scorer`](super::Scorer)'s score means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scale {
    /// From 0, the worst, to 1, the best; what is beyond is cut off. What is not known counts as
    /// [`Scale::NEUTRAL`].
    #[default]
    Share,
    /// An amount in any unit of which less is better, not negative. The candidate with the most is worth 0,
    /// one with half of that 0.5, one with nothing 1. What is not known counts as the mean of the others; an
    /// infinite amount is worth 0 and sets no standard.
    ///
    /// Differences stay in proportion: two candidates that are nearly alike are worth nearly the same, which
    /// they would not be between a best of 1 and a worst of 0.
    Less,
    /// An amount of which the candidate with the least is worth 1 and every other 0: who is somebody's
    /// favourite. What is not known is worth 0.
    Least,
}

impl Scale {
    /// What a share that is not known is worth: the middle.
    pub const NEUTRAL: f64 = 0.5;

    /// Whether a score can only be judged beside those of the others.
    pub(super) fn compares(self) -> bool {
        self != Self::Share
    }

    #[inline]
    pub(super) fn worth(self, score: Option<f64>, range: &Range) -> f64 {
        let score = score.filter(|score| !score.is_nan());
        match self {
            Self::Share => score.map_or(Self::NEUTRAL, |score| score.clamp(0.0, 1.0)),
            Self::Less => match score.or_else(|| range.mean()) {
                None => Self::NEUTRAL,
                Some(amount) if amount <= 0.0 => 1.0,
                // Where nobody has any, whoever has some by now is the worst.
                Some(amount) => (1.0 - amount / range.most).clamp(0.0, 1.0),
            },
            Self::Least => f64::from(u8::from(score.is_some_and(|amount| amount <= range.least))),
        }
    }
}

/// What the candidates have of something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    least: f64,
    most: f64,
    sum: f64,
    known: u32,
}

impl Range {
    pub(super) const EMPTY: Self = Self { least: f64::INFINITY, most: 0.0, sum: 0.0, known: 0 };

    #[inline]
    pub(super) fn add(&mut self, amount: Option<f64>) {
        let Some(amount) = amount.filter(|amount| amount.is_finite()) else { return };
        self.least = self.least.min(amount);
        self.most = self.most.max(amount);
        self.sum += amount;
        self.known += 1;
    }

    fn mean(&self) -> Option<f64> {
        (self.known > 0).then(|| self.sum / f64::from(self.known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(amounts: &[f64]) -> Range {
        let mut range = Range::EMPTY;
        amounts.iter().for_each(|amount| range.add(Some(*amount)));
        range
    }

    #[test]
    fn less_is_in_proportion_to_the_most() {
        let range = range(&[2.0, 4.0, 0.0, f64::INFINITY, f64::NAN]);
        let worth = |amount| Scale::Less.worth(Some(amount), &range);
        assert_eq!([0.0, 2.0, 4.0, 5.0, f64::INFINITY].map(worth), [1.0, 0.5, 0.0, 0.0, 0.0]);
        assert_eq!(Scale::Less.worth(None, &range), 0.5, "as the mean");
        assert_eq!(Scale::Less.worth(Some(f64::NAN), &range), 0.5);
        assert_eq!(Scale::Less.worth(Some(0.0), &Range::EMPTY), 1.0);
        assert_eq!(Scale::Less.worth(Some(3.0), &Range::EMPTY), 0.0);
        assert_eq!(Scale::Less.worth(None, &Range::EMPTY), Scale::NEUTRAL);
    }

    #[test]
    fn the_least_takes_it_all() {
        let range = range(&[2.0, 1.0, 3.0]);
        let worth = |amount| Scale::Least.worth(amount, &range);
        assert_eq!([Some(1.0), Some(2.0), None].map(worth), [1.0, 0.0, 0.0]);
    }

    #[test]
    fn shares_are_cut_off() {
        let worth = |share| Scale::Share.worth(share, &Range::EMPTY);
        let shares = [Some(-1.0), Some(0.25), Some(7.0), Some(f64::NAN), None];
        assert_eq!(shares.map(worth), [0.0, 0.25, 1.0, Scale::NEUTRAL, Scale::NEUTRAL]);
    }
}
