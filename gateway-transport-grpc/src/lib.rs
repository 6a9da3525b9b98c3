//! The AiInference gRPC contract on both of its sides, and runners that dial in over gRPC.

mod contract;
pub mod proto;

pub use contract::Dialect;
