use crate::features::Features;
use crate::names::ModelId;
use crate::runner::{Capability, Labels, MachineKind, Modalities, Resources};
use crate::workload::Workload;

/// What a request needs of a runner, and how much work it is. What is left out does not matter to it.
///
/// ```
/// use gateway_core::{MachineKind, ModelId, Requirements};
/// let mut needs = Requirements::model(ModelId::new("llama")?);
/// needs.machine = Some(MachineKind::Gpu);
/// # Ok::<(), gateway_core::InvalidName>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Requirements {
    /// The model, by the name that the client used.
    pub model: Option<ModelId>,
    /// What the runner must be able to do. A runner that reports no capabilities is not refused for it.
    pub capability: Option<Capability>,
    /// The kind of machine. A runner that does not say is refused.
    pub machine: Option<MachineKind>,
    /// Labels that must all be there.
    pub labels: Labels,
    /// What must be free when it is sent. A runner of which nobody says what it has is refused.
    pub resources: Option<Resources>,
    /// What it asks of the API. A runner that does not say that it lacks something is not refused for it.
    pub features: Features,
    /// What the model must take and give. A model that does not say is not refused for it.
    pub modalities: Modalities,
    /// Tokens that prompt and answer may take together. A model that does not say is not refused for it.
    pub context_tokens: Option<u32>,
    /// How much work it is. Runners are not refused for it.
    pub workload: Workload,
}

impl Requirements {
    /// A request that needs a model and nothing else.
    pub fn model(model: ModelId) -> Self {
        Self { model: Some(model), ..Self::default() }
    }

    /// Whether nothing but the model matters.
    pub fn is_model_only(&self) -> bool {
        self.features.is_empty() && self.is_model_and_features_only()
    }

    /// Whether nothing but the model and what is asked of the API matters.
    pub(crate) fn is_model_and_features_only(&self) -> bool {
        self.capability.is_none()
            && self.machine.is_none()
            && self.labels.is_empty()
            && self.resources.is_none()
            && self.modalities.is_empty()
            && self.context_tokens.is_none()
    }
}
