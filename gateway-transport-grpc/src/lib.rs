//! The AiInference gRPC contract on both of its sides, and runners that dial in over gRPC.

mod address;
mod contract;
pub mod dial_in;
mod link;
pub mod proto;
mod runners;
mod server;
mod status;
mod translate;

pub use address::{GrpcAddress, InvalidGrpcAddress};
pub use contract::Dialect;
pub use link::{GrpcLink, GrpcLinkBuilder, InvalidGrpcLink, WorkerHealth};
pub use runners::{GrpcRunner, GrpcRunners, InvalidGrpcRunner};
pub use server::{
    Beside, BesideFuture, GrpcFuture, GrpcServer, GrpcServerBuilder, GrpcServerError, LenientAuthority,
    PromptAs,
};
pub use translate::PromptTemplate;
#[cfg(feature = "jinja")]
pub use translate::{InvalidTemplate, JinjaTemplate};
