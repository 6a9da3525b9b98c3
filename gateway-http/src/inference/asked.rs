use std::ops::Range;
use std::sync::Arc;

use gateway_core::{Claim, ModelId, Priority, Requirements};
use http::header::HeaderMap;

use super::features;
use super::fields::Fields;
use super::work::{Told, prefix, priority, workload};
use crate::auth::Identity;
use crate::error::ApiError;
use crate::gateway::Shared;
use crate::metrics::ModelSeries;
use crate::route::Inference;

/// What a client asks for, as routing sees it.
pub(crate) struct Asked<'b> {
    fields: Fields<'b>,
    pub(crate) requirements: Requirements,
    pub(crate) priority: Priority,
    pub(super) series: Arc<ModelSeries>,
}

impl<'b> Asked<'b> {
    /// Reads body and headers. Prompts are hashed apart, for whoever is let in.
    pub(crate) fn read(
        shared: &Shared,
        api: Inference,
        headers: &HeaderMap,
        body: &'b [u8],
        identity: &Identity,
    ) -> Result<Self, Box<ApiError>> {
        let fields = Fields::read(body)?;
        let (model, series) = known_model(shared, &fields.model.name)?;
        let told = Told::by(headers);
        let workload = workload(&fields, api, &told, identity)?;
        let resources = shared.needs.resources(Some(&model), headers, None)?;
        let features = features::of(&fields, api);
        let requirements = Requirements { features, workload, resources, ..Requirements::model(model) };
        let priority = priority(fields.tier, &told, identity)?;
        Ok(Self { fields, requirements, priority, series })
    }

    /// Tells the strategy how the prompt begins, if it wants to know.
    pub(crate) fn hash_prompt(&mut self, shared: &Shared, identity: &Identity) {
        let Some(hashing) = shared.prompts else { return };
        let name = &*self.fields.model.name;
        // Whatever the client calls it, it is the same in a runner's cache.
        let model = shared.dispatcher.routes().targets(name).next().map_or(name, |target| target.as_str());
        self.requirements.workload.prefix = prefix(&self.fields.prompt, model, hashing, identity);
    }

    /// In which order it is served when it has to wait.
    pub(super) fn claim(&self, shared: &Shared, identity: &Identity) -> Claim {
        // Who wants the answer soon does not wait for longer, and nobody by asking for a long time.
        let patience = self.requirements.workload.deadline.map(|deadline| deadline.min(shared.patience));
        Claim { tenant: identity.tenant().cloned(), priority: self.priority, patience }
    }

    /// Whether the answer is to be an event stream.
    pub(super) fn streams(&self) -> bool {
        self.fields.stream
    }

    /// Where in the body the model's name stands.
    pub(super) fn model_at(&self) -> Range<usize> {
        self.fields.model.at.clone()
    }
}

/// The model's name and what is kept ready for it: for those that some runner knows and for those that the
/// configuration gives a meaning. Others have no place in metrics.
fn known_model(shared: &Shared, name: &str) -> Result<(ModelId, Arc<ModelSeries>), Box<ApiError>> {
    let series = |known| shared.metrics.inference.series(known);
    let fleet = shared.dispatcher.registry().fleet();
    if let Some(known) = fleet.known_model(name) {
        return Ok((known.clone(), series(Some(known))));
    }
    let model = ModelId::new(name).map_err(|why| ApiError::bad_param("model", format!("{why}.")))?;
    let routed = shared.dispatcher.routes().targets(name).next().is_some();
    let series = series(routed.then_some(&model));
    Ok((model, series))
}
