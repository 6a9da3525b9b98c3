use gateway_core::{Claim, Requirements, Workload};
use http::Method;
use http::header::HeaderMap;
use http::request::Parts;

use super::table::{Found, Target};
use crate::auth::Identity;
use crate::error::ApiError;
use crate::gateway::Shared;
use crate::inference::work::{self, Told};

/// What a generic request asks for, as routing sees it. Its body is not looked at.
pub(crate) struct GenericAsked {
    pub(crate) requirements: Requirements,
    pub(crate) claim: Claim,
}

impl GenericAsked {
    /// The request that an admin asks about: `?path=/tasks/7/run&method=POST`, which is GET if left out.
    pub(crate) fn explained(
        shared: &Shared,
        request: &Parts,
        identity: &Identity,
    ) -> Result<Option<Self>, Box<ApiError>> {
        let query = request.uri.query().unwrap_or_default();
        let of = |key: &str| {
            query.split('&').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key)
        };
        let Some((_, path)) = of("path") else { return Ok(None) };
        let path = path.replace("%2F", "/").replace("%2f", "/");
        let method = of("method").map_or("GET", |(_, method)| method);
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| ApiError::bad_request("The query's `method` is no method."))?;
        match shared.generic.as_ref().and_then(|generic| generic.find(&method, &path)) {
            Some(Found::Target(target)) => Self::read(shared, target, &request.headers, identity).map(Some),
            Some(Found::WrongMethod(allow)) => Err(ApiError::bad_request(format!(
                "The path `{path}` takes {allow}: give one of them as the query's `method`."
            ))),
            None => Err(ApiError::bad_request(format!("There is no generic route `{path}`."))),
        }
    }

    pub(crate) fn read(
        shared: &Shared,
        target: &Target,
        headers: &HeaderMap,
        identity: &Identity,
    ) -> Result<Self, Box<ApiError>> {
        let base = &target.requirements;
        let resources = shared.needs.resources(base.model.as_ref(), headers, base.resources)?;
        let told = Told::by(headers);
        let workload = Workload {
            session: work::named_session(None, &told, identity),
            deadline: work::deadline(&told)?,
            ..Workload::default()
        };
        let claim = Claim {
            tenant: identity.tenant().cloned(),
            priority: work::priority(None, &told, identity)?,
            patience: workload.deadline.map(|deadline| deadline.min(shared.patience)),
        };
        let requirements = Requirements { resources, workload, ..base.clone() };
        Ok(Self { requirements, claim })
    }
}
