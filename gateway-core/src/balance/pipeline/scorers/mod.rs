//! The scorers that come with it.

mod load;
mod place;
mod prefix;
mod session;
mod time;

pub use load::{LoadScorer, QueueScorer, TokensScorer};
pub use place::{CostScorer, LabelScorer, WarmScorer};
pub use prefix::PrefixScorer;
pub use session::SessionScorer;
pub use time::{FinishScorer, LatencyScorer};
