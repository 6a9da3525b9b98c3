//! What requests need of a machine, as the configuration and, if they may, clients say.

use std::collections::HashMap;

use gateway_core::{ModelId, Resources};
use http::header::{HeaderMap, HeaderName};

use crate::error::ApiError;

/// What is said of the resources that requests need. What is left out is taken from whoever is asked next:
/// headers go before the configuration, and that before an OpenAPI document. If nobody says anything at
/// all, a request needs nothing in particular; what is left out by all is 0.
///
/// ```
/// use gateway_core::Resources;
/// use gateway_http::Need;
/// let need = Need { gpus: Some(1.0), ..Need::default() };
/// let document = Resources { cpus: 2.0, gpus: 0.0, memory_gb: 4.0 };
/// assert_eq!(need.over(Some(document)), Some(Resources { gpus: 1.0, ..document }));
/// assert_eq!(Need::default().over(None), None);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Need {
    /// Processor cores.
    pub cpus: Option<f64>,
    /// Accelerators; fractions are shares of one.
    pub gpus: Option<f64>,
    /// Memory in gigabytes.
    pub memory_gb: Option<f64>,
}

impl Need {
    /// What this says, and for the rest what `base` says.
    pub fn over(self, base: Option<Resources>) -> Option<Resources> {
        if self == Self::default() {
            return base;
        }
        let base = base.unwrap_or_default();
        Some(Resources {
            cpus: self.cpus.unwrap_or(base.cpus),
            gpus: self.gpus.unwrap_or(base.gpus),
            memory_gb: self.memory_gb.unwrap_or(base.memory_gb),
        })
    }

    /// Whether there can be as much: from 0 on, and not without end.
    pub(crate) fn is_sound(&self) -> bool {
        let amounts = [self.cpus, self.gpus, self.memory_gb];
        amounts.into_iter().flatten().all(|amount| amount.is_finite() && amount >= 0.0)
    }
}

const CPUS: HeaderName = HeaderName::from_static("x-gateway-cpus");
const GPUS: HeaderName = HeaderName::from_static("x-gateway-gpus");
const MEMORY_GB: HeaderName = HeaderName::from_static("x-gateway-memory-gb");

/// What the operator said.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    pub(crate) of_model: HashMap<ModelId, Need>,
    /// Whether clients may say it, too.
    pub(crate) from_headers: bool,
}

impl Needs {
    /// What a request needs for which somebody else says `base`.
    pub(crate) fn resources(
        &self,
        model: Option<&ModelId>,
        headers: &HeaderMap,
        base: Option<Resources>,
    ) -> Result<Option<Resources>, Box<ApiError>> {
        let mut resources = base;
        if let Some(need) = model.filter(|_| !self.of_model.is_empty()).and_then(|it| self.of_model.get(it)) {
            resources = need.over(resources);
        }
        if self.from_headers {
            resources = asked(headers)?.over(resources);
        }
        Ok(resources)
    }
}

fn asked(headers: &HeaderMap) -> Result<Need, Box<ApiError>> {
    let amount = |name: &HeaderName| {
        let Some(value) = headers.get(name) else { return Ok(None) };
        let amount = value.to_str().ok().and_then(|text| text.trim().parse::<f64>().ok());
        match amount.filter(|amount| amount.is_finite() && *amount >= 0.0) {
            Some(amount) => Ok(Some(amount)),
            None => Err(ApiError::bad_request(format!(
                "The header `{name}` must be a number from 0 on, such as 1.5."
            ))),
        }
    };
    Ok(Need { cpus: amount(&CPUS)?, gpus: amount(&GPUS)?, memory_gb: amount(&MEMORY_GB)? })
}
