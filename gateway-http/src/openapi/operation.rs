use std::time::Duration;

use gateway_core::{Labels, ModelId, Resources};
use http::Method;

use super::value::At;
use super::{OpenApi, OpenApiError};

/// One operation of an [`OpenApi`] document: a path's template, a method, and what the extensions say of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    pub(crate) path: String,
    pub(crate) method: Method,
    pub(crate) resources: Option<Resources>,
    pub(crate) labels: Labels,
    pub(crate) model: Option<ModelId>,
    pub(crate) upgrade: Option<bool>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_body_bytes: Option<u64>,
    pub(crate) repeatable: Option<bool>,
}

impl Operation {
    /// The template as the document has it, without the servers' path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// What a request needs, if one of the extensions says so: `x-gateway` goes before `x-neutrino-resources`.
    pub fn resources(&self) -> Option<Resources> {
        self.resources
    }

    pub(super) fn read(path: &str, method: Method, at: &At<'_>) -> Result<Self, OpenApiError> {
        let mut operation = Self {
            path: path.to_owned(),
            method,
            resources: None,
            labels: Labels::new(),
            model: None,
            upgrade: None,
            timeout: None,
            max_body_bytes: None,
            repeatable: None,
        };
        if let Some(neutrino) = at.get("x-neutrino-resources")? {
            operation.resources = Some(neutrino_resources(&neutrino)?);
        }
        if let Some(own) = at.get("x-gateway")? {
            operation.read_own(&own)?;
        }
        Ok(operation)
    }

    fn read_own(&mut self, at: &At<'_>) -> Result<(), OpenApiError> {
        at.only(&["resources", "labels", "model", "upgrade", "timeout_s", "max_body_bytes", "repeatable"])?;
        if let Some(resources) = at.get("resources")? {
            resources.only(&["cpus", "gpus", "memory_gb"])?;
            let amount = |key| Ok(resources.get(key)?.map(|at| at.amount()).transpose()?.unwrap_or(0.0));
            self.resources = Some(Resources {
                cpus: amount("cpus")?,
                gpus: amount("gpus")?,
                memory_gb: amount("memory_gb")?,
            });
        }
        if let Some(labels) = at.get("labels")? {
            for (key, value) in labels.object()? {
                self.labels.insert(key.clone(), labels.at(key, value).string()?.to_owned());
            }
        }
        if let Some(model) = at.get("model")? {
            let named = ModelId::new(model.string()?);
            self.model = Some(named.map_err(|why| OpenApiError::new(&model.place, why))?);
        }
        self.upgrade = at.get("upgrade")?.map(|at| at.bool()).transpose()?;
        self.timeout = at.get("timeout_s")?.map(|at| at.seconds()).transpose()?;
        self.max_body_bytes = at.get("max_body_bytes")?.map(|at| at.bytes()).transpose()?;
        self.repeatable = at.get("repeatable")?.map(|at| at.bool()).transpose()?;
        Ok(())
    }
}

/// What a field that is left out means is Neutrino's own rule, not ours.
fn neutrino_resources(at: &At<'_>) -> Result<Resources, OpenApiError> {
    let usual = OpenApi::NEUTRINO_DEFAULT;
    let amount = |key, usual| Ok(at.get(key)?.map(|at| at.amount()).transpose()?.unwrap_or(usual));
    Ok(Resources {
        cpus: amount("num_cpus", usual.cpus)?,
        gpus: amount("num_gpus", usual.gpus)?,
        memory_gb: amount("memory_gb", usual.memory_gb)?,
    })
}
