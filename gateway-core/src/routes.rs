//! Names that stand for models: aliases, classes, and what to fall back on.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::names::{InvalidName, ModelId};
use crate::runner::json_string;

/// Names that stand for models.
///
/// - An **alias** is another name for one model.
/// - A **class** is asked for as `class:NAME` and stands for several models, best first: the first that has
///   a slot free serves.
/// - A **fallback** serves when nobody can serve the model itself: no runner has it, or all that have it
///   failed, or the wait for a slot was in vain.
///
/// The name in the request's body is replaced by the one of the model that serves; answers say in
/// `x-model-used` which one that is.
///
/// ```
/// use gateway_core::ModelRoutes;
/// let routes = ModelRoutes::builder()
///     .alias("gpt-4o", "llama-70b")
///     .class("fast", ["qwen-1.5b", "llama-8b"])
///     .fallback("llama-70b", ["llama-8b"])
///     .build()?;
/// let named: Vec<_> = routes.targets("gpt-4o").map(|model| model.as_str()).collect();
/// assert_eq!(named, ["llama-70b", "llama-8b"]);
/// # Ok::<(), gateway_core::RouteError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct ModelRoutes {
    routes: HashMap<ModelId, Arc<[Target]>>,
    aliases: Vec<(ModelId, ModelId)>,
}

/// One model that a name stands for.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) model: ModelId,
    /// The name as a JSON string.
    pub(crate) json: Bytes,
    /// Whether it serves only when the others cannot.
    pub(crate) is_fallback: bool,
}

impl ModelRoutes {
    /// What a class's name begins with.
    pub const CLASS: &'static str = "class:";
    /// The most models that one name may stand for, fallbacks included: each is looked at for every request
    /// that finds no slot.
    pub const MAX_TARGETS: usize = 16;

    /// No names yet.
    pub fn builder() -> ModelRoutesBuilder {
        ModelRoutesBuilder::default()
    }

    /// Whether every name stands for itself.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The models that `name` stands for, best first, fallbacks last; nothing if it stands for itself alone.
    pub fn targets(&self, name: &str) -> impl Iterator<Item = &ModelId> {
        self.route(name).map_or(&[][..], |targets| targets).iter().map(|target| &target.model)
    }

    /// Every alias with the name that it stands for, sorted.
    pub fn aliases(&self) -> impl Iterator<Item = (&ModelId, &ModelId)> {
        self.aliases.iter().map(|(alias, target)| (alias, target))
    }

    pub(crate) fn route(&self, name: &str) -> Option<&Arc<[Target]>> {
        self.routes.get(name)
    }
}

/// Puts [`ModelRoutes`] together. Mistakes are told by [`build`](ModelRoutesBuilder::build).
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ModelRoutesBuilder {
    aliases: Vec<(String, String)>,
    classes: Vec<(String, Vec<String>)>,
    fallbacks: Vec<(String, Vec<String>)>,
}

impl ModelRoutesBuilder {
    /// `alias` is another name for `model`, which may be a model, a class (with `class:`) or an alias.
    pub fn alias(mut self, alias: impl Into<String>, model: impl Into<String>) -> Self {
        self.aliases.push((alias.into(), model.into()));
        self
    }

    /// `class:NAME` stands for these models, best first. `name` is given without `class:`.
    pub fn class<T: Into<String>>(
        mut self,
        name: impl Into<String>,
        models: impl IntoIterator<Item = T>,
    ) -> Self {
        self.classes.push((name.into(), models.into_iter().map(Into::into).collect()));
        self
    }

    /// When nobody can serve `model`, these are tried in turn.
    pub fn fallback<T: Into<String>>(
        mut self,
        model: impl Into<String>,
        models: impl IntoIterator<Item = T>,
    ) -> Self {
        self.fallbacks.push((model.into(), models.into_iter().map(Into::into).collect()));
        self
    }

    /// The routes.
    ///
    /// # Errors
    /// A name is invalid or said twice, a class or fallback is empty, names go in a circle, or a name stands
    /// for more than [`ModelRoutes::MAX_TARGETS`] models.
    pub fn build(self) -> Result<ModelRoutes, RouteError> {
        let mut one_of: HashMap<String, Vec<String>> = HashMap::new();
        for (alias, model) in &self.aliases {
            if alias.starts_with(ModelRoutes::CLASS) {
                return Err(RouteError::AliasIsClass { name: alias.clone() });
            }
            enter(&mut one_of, alias.clone(), vec![model.clone()])?;
        }
        for (class, models) in self.classes {
            let bare = class.strip_prefix(ModelRoutes::CLASS).unwrap_or(&class);
            enter(&mut one_of, format!("{}{bare}", ModelRoutes::CLASS), models)?;
        }
        let mut fallbacks: HashMap<String, Vec<String>> = HashMap::new();
        for (model, models) in self.fallbacks {
            enter(&mut fallbacks, model, models)?;
        }
        let mut routes = HashMap::new();
        for name in one_of.keys().chain(fallbacks.keys()) {
            routes.insert(id(name)?, targets(name, &one_of, &fallbacks)?);
        }
        let mut aliases = Vec::new();
        for (alias, model) in &self.aliases {
            aliases.push((id(alias)?, id(model)?));
        }
        aliases.sort();
        Ok(ModelRoutes { routes, aliases })
    }
}

fn id(name: &str) -> Result<ModelId, RouteError> {
    ModelId::new(name).map_err(|source| RouteError::Invalid { name: name.to_owned(), source })
}

fn enter(
    map: &mut HashMap<String, Vec<String>>,
    name: String,
    models: Vec<String>,
) -> Result<(), RouteError> {
    if models.is_empty() {
        return Err(RouteError::Empty { name });
    }
    if map.contains_key(&name) {
        return Err(RouteError::Twice { name });
    }
    map.insert(name, models);
    Ok(())
}

fn targets(
    name: &str,
    one_of: &HashMap<String, Vec<String>>,
    fallbacks: &HashMap<String, Vec<String>>,
) -> Result<Arc<[Target]>, RouteError> {
    let mut found: Vec<Target> = Vec::new();
    let mut add = |model: &str, is_fallback: bool| {
        if found.iter().all(|target| target.model.as_str() != model) {
            let model = id(model)?;
            let json = json_string(model.as_str());
            found.push(Target { model, json, is_fallback });
        }
        if found.len() > ModelRoutes::MAX_TARGETS {
            return Err(RouteError::TooMany { name: name.to_owned() });
        }
        Ok(())
    };
    let mut meant = Vec::new();
    expand(name, one_of, &mut Vec::new(), &mut meant)?;
    for model in &meant {
        add(model, false)?;
    }
    // The fallback of the name itself, then those of the models that it stands for, then theirs.
    let mut ask: Vec<String> = std::iter::once(name.to_owned()).chain(meant).collect();
    let mut at = 0;
    while let Some(asked) = ask.get(at).cloned() {
        at += 1;
        for model in fallbacks.get(&asked).into_iter().flatten() {
            let mut meant = Vec::new();
            expand(model, one_of, &mut Vec::new(), &mut meant)?;
            for model in meant {
                add(&model, true)?;
                if !ask.contains(&model) {
                    ask.push(model);
                }
            }
        }
    }
    Ok(found.into())
}

/// Follows aliases and classes down to models.
fn expand(
    name: &str,
    one_of: &HashMap<String, Vec<String>>,
    path: &mut Vec<String>,
    models: &mut Vec<String>,
) -> Result<(), RouteError> {
    if path.iter().any(|passed| passed == name) {
        return Err(RouteError::Circle { name: name.to_owned() });
    }
    let Some(stands_for) = one_of.get(name) else {
        if name.starts_with(ModelRoutes::CLASS) {
            return Err(RouteError::UnknownClass { name: name.to_owned() });
        }
        models.push(name.to_owned());
        return Ok(());
    };
    path.push(name.to_owned());
    for one in stands_for {
        expand(one, one_of, path, models)?;
    }
    path.pop();
    Ok(())
}

/// Why names of models cannot be used as they were given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// A name that no model can have.
    #[error("the model name `{name}` is invalid: {source}")]
    Invalid {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: InvalidName,
    },
    /// An alias begins like a class.
    #[error("the alias `{name}` begins with `class:`: make it a class")]
    AliasIsClass {
        /// The alias.
        name: String,
    },
    /// A class or fallback without a model.
    #[error("`{name}` stands for no model: name at least one")]
    Empty {
        /// The class, or the model with the fallback.
        name: String,
    },
    /// The same name was given two meanings.
    #[error("`{name}` is there twice: remove one of them")]
    Twice {
        /// The name.
        name: String,
    },
    /// A name that stands for itself in the end.
    #[error("`{name}` stands for itself in a circle: break it")]
    Circle {
        /// One name of the circle.
        name: String,
    },
    /// A class that is nowhere defined.
    #[error("there is no class `{name}`: define it, or name a model")]
    UnknownClass {
        /// The class.
        name: String,
    },
    /// A name that stands for too many models.
    #[error("`{name}` stands for more than {} models: name fewer", ModelRoutes::MAX_TARGETS)]
    TooMany {
        /// The name.
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(routes: &ModelRoutes, name: &str) -> Vec<String> {
        let target = |target: &Target| {
            let sign = if target.is_fallback { "?" } else { "" };
            format!("{}{sign}", target.model)
        };
        routes.route(name).map(|targets| targets.iter().map(target).collect()).unwrap_or_default()
    }

    #[test]
    fn names_lead_to_models_and_then_to_fallbacks() {
        let routes = ModelRoutes::builder()
            .alias("gpt", "class:big")
            .class("big", ["a", "b"])
            .fallback("a", ["c"])
            .fallback("c", ["a", "d"])
            .fallback("gpt", ["e"])
            .build()
            .unwrap();
        assert_eq!(named(&routes, "gpt"), ["a", "b", "e?", "c?", "d?"]);
        assert_eq!(named(&routes, "class:big"), ["a", "b", "c?", "d?"]);
        assert_eq!(named(&routes, "a"), ["a", "c?", "d?"]);
        assert!(named(&routes, "b").is_empty(), "it stands for itself");
    }

    #[test]
    fn mistakes_are_told() {
        let build = |builder: ModelRoutesBuilder| builder.build().unwrap_err().to_string();
        let circle = ModelRoutes::builder().alias("a", "b").alias("b", "a");
        assert!(build(circle).contains("circle"));
        assert!(build(ModelRoutes::builder().alias("a", "b").alias("a", "c")).contains("twice"));
        assert!(build(ModelRoutes::builder().alias("class:a", "b")).contains("make it a class"));
        assert!(build(ModelRoutes::builder().alias("a", "class:b")).contains("no class"));
        assert!(build(ModelRoutes::builder().class("a", Vec::<String>::new())).contains("no model"));
        assert!(build(ModelRoutes::builder().alias("a", " ")).contains("invalid"));
        let many = (0..=ModelRoutes::MAX_TARGETS).map(|number| format!("m{number}"));
        assert!(build(ModelRoutes::builder().class("a", many)).contains("fewer"));
    }
}
