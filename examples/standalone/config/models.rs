use std::collections::BTreeMap;

use gateway_core::ModelRoutes;

use super::section::{ConfigError, section};

section! {
    /// Names that stand for models.
    Models {
        aliases: BTreeMap<String, String> = BTreeMap::new(),
        classes: BTreeMap<String, Vec<String>> = BTreeMap::new(),
        fallbacks: BTreeMap<String, Vec<String>> = BTreeMap::new(),
    }
}

impl Models {
    pub(super) fn routes(&self) -> Result<ModelRoutes, ConfigError> {
        let mut routes = ModelRoutes::builder();
        for (alias, model) in &self.aliases {
            routes = routes.alias(alias, model);
        }
        for (class, models) in &self.classes {
            routes = routes.class(class, models);
        }
        for (model, others) in &self.fallbacks {
            routes = routes.fallback(model, others);
        }
        routes.build().map_err(|error| ConfigError::at("models", error))
    }
}
