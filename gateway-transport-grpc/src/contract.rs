//! The two dialects of the AiInference contract, as one.
//!
//! They differ on the wire: in the service's name, in `float` against `double`, and in what of the metadata there
//! is. Everything but the coding is written once, against the messages of the dialect that has all of it
//! ([`cy_llm`]); [`Contract`] says how the other one's become these.

use std::fmt;

use crate::proto::{ai_inference as plain, cy_llm};

pub(crate) use crate::proto::cy_llm::{
    ControlMessage, GenerationParameters, StreamMetadata, StreamPredictRequest, StreamPredictResponse,
    WorkerHealthRequest, WorkerHealthResponse,
};

/// Which of its two shapes of the contract a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// As it is shipped: package `cy.llm`, parameters of type double.
    Packaged,
    /// As its document has it: no package, parameters of type float.
    Plain,
}

impl Dialect {
    /// The full name of its service.
    pub fn service(self) -> &'static str {
        match self {
            Self::Packaged => Packaged::SERVICE,
            Self::Plain => Plain::SERVICE,
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.service())
    }
}

/// One dialect: its messages, and how they become those that the rest of the crate works with.
pub(crate) trait Contract: fmt::Debug + Clone + Copy + Default + Send + Sync + 'static {
    const DIALECT: Dialect;
    const SERVICE: &'static str;
    const STREAM_PREDICT: &'static str;
    const CONTROL: &'static str;
    const HEALTH: &'static str;

    type PredictRequest: prost::Message + Default + From<StreamPredictRequest> + Into<StreamPredictRequest>;
    type PredictResponse: prost::Message + Default + From<StreamPredictResponse> + Into<StreamPredictResponse>;
    type Control: prost::Message + Default + From<ControlMessage> + Into<ControlMessage>;
    type HealthRequest: prost::Message + Default + From<WorkerHealthRequest> + Into<WorkerHealthRequest>;
    type HealthResponse: prost::Message + Default + From<WorkerHealthResponse> + Into<WorkerHealthResponse>;
}

/// [`Dialect::Packaged`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Packaged;

impl Contract for Packaged {
    const DIALECT: Dialect = Dialect::Packaged;
    const SERVICE: &'static str = "cy.llm.AiInference";
    const STREAM_PREDICT: &'static str = "/cy.llm.AiInference/StreamPredict";
    const CONTROL: &'static str = "/cy.llm.AiInference/Control";
    const HEALTH: &'static str = "/cy.llm.AiInference/Health";

    type PredictRequest = cy_llm::StreamPredictRequest;
    type PredictResponse = cy_llm::StreamPredictResponse;
    type Control = cy_llm::ControlMessage;
    type HealthRequest = cy_llm::WorkerHealthRequest;
    type HealthResponse = cy_llm::WorkerHealthResponse;
}

/// [`Dialect::Plain`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Plain;

impl Contract for Plain {
    const DIALECT: Dialect = Dialect::Plain;
    const SERVICE: &'static str = "AiInference";
    const STREAM_PREDICT: &'static str = "/AiInference/StreamPredict";
    const CONTROL: &'static str = "/AiInference/Control";
    const HEALTH: &'static str = "/AiInference/Health";

    type PredictRequest = plain::StreamPredictRequest;
    type PredictResponse = plain::StreamPredictResponse;
    type Control = plain::ControlMessage;
    type HealthRequest = plain::WorkerHealthRequest;
    type HealthResponse = plain::WorkerHealthResponse;
}

/// The same number in decimal: 0.7 and not 0.699999988.
fn widen(narrow: f32) -> f64 {
    narrow.to_string().parse().unwrap_or_else(|_| narrow.into())
}

/// Negative means nothing here.
fn counted(signed: i32) -> u32 {
    signed.try_into().unwrap_or(0)
}

/// The dialect has no room for more.
fn capped(unsigned: u32) -> i32 {
    unsigned.try_into().unwrap_or(i32::MAX)
}

impl From<plain::GenerationParameters> for GenerationParameters {
    fn from(from: plain::GenerationParameters) -> Self {
        Self {
            max_new_tokens: counted(from.max_new_tokens),
            temperature: widen(from.temperature),
            top_p: widen(from.top_p),
            repetition_penalty: widen(from.repetition_penalty),
        }
    }
}

impl From<GenerationParameters> for plain::GenerationParameters {
    fn from(from: GenerationParameters) -> Self {
        Self {
            max_new_tokens: capped(from.max_new_tokens),
            temperature: from.temperature as f32,
            top_p: from.top_p as f32,
            repetition_penalty: from.repetition_penalty as f32,
        }
    }
}

impl From<plain::StreamPredictRequest> for StreamPredictRequest {
    fn from(from: plain::StreamPredictRequest) -> Self {
        Self {
            model_id: from.model_id,
            prompt: from.prompt,
            adapter: from.adapter,
            priority: from.priority,
            generation: from.generation.map(Into::into),
            metadata: from
                .metadata
                .map(|metadata| StreamMetadata { trace_id: metadata.trace_id, ..StreamMetadata::default() }),
            worker_hint: from.worker_hint,
        }
    }
}

impl From<StreamPredictRequest> for plain::StreamPredictRequest {
    fn from(from: StreamPredictRequest) -> Self {
        Self {
            model_id: from.model_id,
            prompt: from.prompt,
            adapter: from.adapter,
            priority: from.priority,
            generation: from.generation.map(Into::into),
            metadata: from.metadata.map(|metadata| plain::StreamMetadata { trace_id: metadata.trace_id }),
            worker_hint: from.worker_hint,
        }
    }
}

impl From<plain::StreamPredictResponse> for StreamPredictResponse {
    fn from(from: plain::StreamPredictResponse) -> Self {
        Self {
            trace_id: from.trace_id,
            chunk: from.chunk,
            end_of_stream: from.end_of_stream,
            index: counted(from.index),
            ttft_ms: from.ttft_ms,
            tokens_per_sec: from.tokens_per_sec,
        }
    }
}

impl From<StreamPredictResponse> for plain::StreamPredictResponse {
    fn from(from: StreamPredictResponse) -> Self {
        Self {
            trace_id: from.trace_id,
            chunk: from.chunk,
            end_of_stream: from.end_of_stream,
            index: capped(from.index),
            ttft_ms: from.ttft_ms,
            tokens_per_sec: from.tokens_per_sec,
        }
    }
}

/// Messages with the same fields in both dialects.
macro_rules! alike {
    ($name:ident { $($field:ident),* }) => {
        impl From<plain::$name> for $name {
            fn from(from: plain::$name) -> Self {
                Self { $($field: from.$field),* }
            }
        }

        impl From<$name> for plain::$name {
            fn from(from: $name) -> Self {
                Self { $($field: from.$field),* }
            }
        }
    };
}

alike!(ControlMessage { trace_id, command, payload });
alike!(WorkerHealthRequest { trace_id });
alike!(WorkerHealthResponse { healthy, metrics });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_stays_the_number_that_was_meant() {
        let wide = GenerationParameters::from(plain::GenerationParameters {
            max_new_tokens: -1,
            temperature: 0.7,
            top_p: 0.9,
            repetition_penalty: 1.1,
        });
        assert_eq!((wide.temperature, wide.top_p, wide.repetition_penalty), (0.7, 0.9, 1.1));
        assert_eq!(wide.max_new_tokens, 0, "what is negative is not set");
        let narrow =
            plain::GenerationParameters::from(GenerationParameters { max_new_tokens: u32::MAX, ..wide });
        assert_eq!((narrow.temperature, narrow.max_new_tokens), (0.7, i32::MAX));
    }
}
