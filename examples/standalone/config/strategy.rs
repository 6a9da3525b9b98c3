use std::fmt;
use std::sync::Arc;

use gateway_core::pipeline::PipelineSpec;
use gateway_core::{Balancer, Strategy};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::ser::{Serialize, Serializer};

use super::section::ConfigError;

/// Which runner gets a request: the name of a strategy, or a table that puts one together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum StrategySetting {
    Named(Strategy),
    Pipeline(PipelineSpec),
}

impl Default for StrategySetting {
    fn default() -> Self {
        Self::Named(Strategy::default())
    }
}

impl StrategySetting {
    pub(crate) fn build(&self, key: &str) -> Result<Arc<dyn Balancer>, ConfigError> {
        match self {
            Self::Named(strategy) => Ok(strategy.build()),
            Self::Pipeline(spec) => match spec.build() {
                Ok(pipeline) => Ok(Arc::new(pipeline)),
                Err(error) => Err(ConfigError::at(key, error)),
            },
        }
    }
}

impl Serialize for StrategySetting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Named(strategy) => strategy.serialize(serializer),
            Self::Pipeline(spec) => spec.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for StrategySetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // By hand, because of an enum without tags serde says only that nothing fits.
        struct NameOrTable;
        impl<'de> Visitor<'de> for NameOrTable {
            type Value = StrategySetting;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a strategy, or a table with `scorers`")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<StrategySetting, E> {
                name.parse().map(StrategySetting::Named).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<StrategySetting, A::Error> {
                PipelineSpec::deserialize(MapAccessDeserializer::new(map)).map(StrategySetting::Pipeline)
            }
        }
        deserializer.deserialize_any(NameOrTable)
    }
}
