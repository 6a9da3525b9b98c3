use serde::{Deserialize, Serialize};

/// Who is taken by the total of the scores.
///
/// In configuration: `"best"`, `"weighted"`, or `{ best-of = 2 }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Picker {
    /// The one with the greatest total.
    #[default]
    Best,
    /// One at random, each as often as its total is a share of all totals. For many gateways in front of one
    /// fleet: they do not all run to the same runner. A total of 0 is drawn only if everybody's is.
    Weighted,
    /// The best of so many that are drawn at random, 2 to [`BEST_OF_MOST`](Picker::BEST_OF_MOST). For large
    /// fleets: looks at these only, and two do nearly as well as all (Mitzenmacher, "The power of two choices in
    /// randomized load balancing", 2001). Preferences and comparisons hold among those drawn; a scorer that has
    /// one favourite among all, such as `session`, cannot be used with it. If nobody was drawn who can be
    /// reserved, all are looked at.
    BestOf(usize),
}

impl Picker {
    /// The most that [`Picker::BestOf`] draws.
    pub const BEST_OF_MOST: usize = 16;
}
