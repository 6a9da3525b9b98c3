//! The contract's service in both dialects.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};

use super::Shared;
use super::caller::Caller;
use super::control;
use super::predict::Answers;
use crate::contract::{Packaged, Plain};
use crate::proto::{ai_inference, cy_llm};

/// What both dialects' services do.
#[derive(Debug, Clone)]
pub(super) struct Api(pub(super) Arc<Shared>);

macro_rules! dialect {
    ($contract:ty, $module:ident) => {
        #[async_trait::async_trait]
        impl $module::ai_inference_server::AiInference for Api {
            type StreamPredictStream = Answers<$contract, Streaming<$module::StreamPredictRequest>>;

            async fn stream_predict(
                &self,
                request: Request<Streaming<$module::StreamPredictRequest>>,
            ) -> Result<Response<Self::StreamPredictStream>, Status> {
                let (metadata, extensions, requests) = request.into_parts();
                let caller = Caller::new(metadata, extensions)?;
                Ok(Response::new(Answers::new(&self.0, caller, requests)))
            }

            async fn control(
                &self,
                request: Request<$module::ControlMessage>,
            ) -> Result<Response<$module::ControlMessage>, Status> {
                let (metadata, extensions, asked) = request.into_parts();
                let caller = Caller::new(metadata, extensions)?;
                let deadline = caller.deadline;
                let done = control::control(self.0.clone(), caller, asked.into());
                let done = match deadline {
                    Some(deadline) => tokio::time::timeout_at(deadline, done)
                        .await
                        .map_err(|_| Status::deadline_exceeded("The time for the call is up."))?,
                    None => done.await,
                };
                Ok(Response::new(done?.into()))
            }

            async fn health(
                &self,
                _: Request<$module::WorkerHealthRequest>,
            ) -> Result<Response<$module::WorkerHealthResponse>, Status> {
                Ok(Response::new(self.0.health().await.into()))
            }
        }
    };
}

dialect!(Packaged, cy_llm);
dialect!(Plain, ai_inference);
