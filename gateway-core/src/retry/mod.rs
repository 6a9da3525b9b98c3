//! How often and how soon a request may be tried again: a budget that all requests share, so that trying
//! again cannot turn a bad minute into a storm, and a pause that grows.

mod backoff;
mod budget;

pub use backoff::{Backoff, InvalidBackoff};
pub use budget::{BudgetPolicy, RetryBudget};
