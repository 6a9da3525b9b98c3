use std::sync::Arc;

use super::{Authenticator, Identity};
use crate::error::ApiError;

/// Who may use a group of routes.
pub(crate) enum Access {
    /// Whoever the authenticator knows.
    Known(Arc<dyn Authenticator>),
    /// Everybody, because the host said so.
    Anonymous,
    /// Nobody: nothing was set.
    Closed,
}

impl Access {
    pub(crate) async fn check(&self, request: &http::request::Parts) -> Result<Identity, Box<ApiError>> {
        match self {
            Self::Known(authenticator) => {
                authenticator.authenticate(request).get().await.map_err(ApiError::auth)
            }
            Self::Anonymous => Ok(Identity::anonymous()),
            Self::Closed => Err(ApiError::admin_closed()),
        }
    }
}
