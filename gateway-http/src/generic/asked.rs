use gateway_core::{Claim, Requirements, Workload};
use http::header::HeaderMap;

use super::table::Target;
use crate::auth::Identity;
use crate::error::ApiError;
use crate::gateway::Shared;
use crate::inference::work;

/// What a generic request asks for, as routing sees it. Its body is not looked at.
pub(crate) struct GenericAsked {
    pub(crate) requirements: Requirements,
    pub(crate) claim: Claim,
}

impl GenericAsked {
    pub(crate) fn read(
        shared: &Shared,
        target: &Target,
        headers: &HeaderMap,
        identity: &Identity,
    ) -> Result<Self, Box<ApiError>> {
        let base = &target.requirements;
        let resources = shared.needs.resources(base.model.as_ref(), headers, base.resources)?;
        let workload = Workload {
            session: work::named_session(None, headers, identity),
            deadline: work::deadline(headers)?,
            ..Workload::default()
        };
        let claim = Claim {
            tenant: identity.tenant().cloned(),
            priority: work::priority(None, headers, identity)?,
            patience: workload.deadline.map(|deadline| deadline.min(shared.patience)),
        };
        let requirements = Requirements { resources, workload, ..base.clone() };
        Ok(Self { requirements, claim })
    }
}
