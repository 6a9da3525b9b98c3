//! The messages and services, generated from the files in `proto/`, which are the reference.
//!
//! What is generated is kept beside the sources, so that nobody needs a protobuf compiler to build this crate;
//! the test `generated` fails when it is not what the files say.

/// The contract as it is shipped: package `cy.llm`, parameters of type double. `proto/cy_llm.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all, rust_2018_idioms, rustdoc::invalid_html_tags)]
pub mod cy_llm {
    include!("generated/cy_llm.rs");
}

/// The contract as its document has it: no package, parameters of type float. `proto/ai_inference.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all, rust_2018_idioms, rustdoc::invalid_html_tags)]
pub mod ai_inference {
    include!("generated/ai_inference.rs");
}

/// Runners that dial in: package `inference_gateway.runner.v1`. `proto/runner_gateway.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all, rust_2018_idioms, rustdoc::invalid_html_tags)]
pub mod runner_gateway {
    include!("generated/runner_gateway.rs");
}

/// The files as a compiled descriptor set each, for server reflection.
pub mod descriptors {
    /// `proto/cy_llm.proto`.
    pub const CY_LLM: &[u8] = include_bytes!("generated/cy_llm.bin");
    /// `proto/ai_inference.proto`.
    pub const AI_INFERENCE: &[u8] = include_bytes!("generated/ai_inference.bin");
    /// `proto/runner_gateway.proto`.
    pub const RUNNER_GATEWAY: &[u8] = include_bytes!("generated/runner_gateway.bin");
}
