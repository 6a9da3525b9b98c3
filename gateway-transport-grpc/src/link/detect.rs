//! Which dialect a worker speaks: Health is asked for in one and then in the other.

use gateway_core::LinkError;
use tonic::Code;

use super::call::{CallError, framed};
use super::connection::Wire;
use crate::contract::{Contract, Dialect, Packaged, Plain, WorkerHealthRequest};
use crate::status::WorkerStatus;

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DetectError {
    #[error("it knows neither {} nor {}", Packaged::SERVICE, Plain::SERVICE)]
    Neither,
    #[error("it does not tell ({0}); check the token")]
    Refused(WorkerStatus),
    #[error("{0}")]
    Link(LinkError),
    #[error("{0}")]
    Call(#[from] CallError),
}

/// Asks, unless it is known.
pub(super) async fn detect(wire: &Wire, known: Option<Dialect>) -> Result<Dialect, DetectError> {
    if let Some(dialect) = known {
        return Ok(dialect);
    }
    if let Some(dialect) = if_known::<Packaged>(wire).await? {
        return Ok(dialect);
    }
    if_known::<Plain>(wire).await?.ok_or(DetectError::Neither)
}

async fn if_known<C: Contract>(wire: &Wire) -> Result<Option<Dialect>, DetectError> {
    let question = C::HealthRequest::from(WorkerHealthRequest::default());
    let call = wire.ask(C::HEALTH, framed(&question)).map_err(DetectError::Link)?;
    match call.single::<C::HealthResponse>().await? {
        Err(status) if status.code == Code::Unimplemented => Ok(None),
        // Who is not let in does not hear whether there is such a service.
        Err(status) if matches!(status.code, Code::Unauthenticated | Code::PermissionDenied) => {
            Err(DetectError::Refused(status))
        }
        // Whatever it says of its health, it has the method.
        Ok(_) | Err(_) => Ok(Some(C::DIALECT)),
    }
}
