//! The scorers that come with it.

mod load;
mod place;
mod session;
mod time;

pub use load::{LoadScorer, QueueScorer, TokensScorer};
pub use place::{CostScorer, LabelScorer, WarmScorer};
pub use session::SessionScorer;
pub use time::{FinishScorer, LatencyScorer};
