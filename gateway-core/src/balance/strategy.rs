//! Strategies by name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::Balancer;

/// One line for each strategy: its docs, its name, how it is made with its defaults.
macro_rules! strategies {
    ($($(#[$docs:meta])* $strategy:ident = $name:literal => $balancer:expr,)*) => {
        /// The built-in strategies, as they are named in configuration. Deserializes from the name.
        ///
        /// ```
        /// use gateway_core::{Balancer, Strategy};
        /// let strategy: Strategy = "least-loaded".parse()?;
        /// assert_eq!(strategy.build().name(), "least-loaded");
        /// # Ok::<(), gateway_core::UnknownStrategy>(())
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Strategy {
            $($(#[$docs])* $strategy,)*
        }

        impl Strategy {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$strategy,)*];

            /// Its name in configuration, and the name of the balancer.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$strategy => $name,)*
                }
            }

            /// The balancer, with its defaults. Each has a state of its own.
            pub fn build(self) -> Arc<dyn Balancer> {
                match self {
                    $(Self::$strategy => Arc::new($balancer),)*
                }
            }
        }
    };
}

strategies! {
    /// [`RoundRobin`](crate::RoundRobin).
    RoundRobin = "round-robin" => super::RoundRobin::default(),
    /// [`WeightedRoundRobin`](crate::WeightedRoundRobin).
    WeightedRoundRobin = "weighted-round-robin" => super::WeightedRoundRobin,
    /// [`Random`](crate::Random).
    Random = "random" => super::Random,
    /// [`PowerOfTwo`](crate::PowerOfTwo).
    PowerOfTwo = "power-of-two" => super::PowerOfTwo,
    /// [`PeakEwma`](crate::PeakEwma).
    PeakEwma = "peak-ewma" => super::PeakEwma,
    /// [`LeastTokens`](crate::LeastTokens).
    LeastTokens = "least-tokens" => super::LeastTokens::default(),
    /// [`LeastLoaded`](crate::LeastLoaded).
    LeastLoaded = "least-loaded" => super::LeastLoaded::default(),
    /// [`BestFit`](crate::BestFit).
    BestFit = "best-fit" => super::BestFit,
    /// [`ResourceAware`](crate::ResourceAware).
    ResourceAware = "resource-aware" => super::ResourceAware,
    /// [`SessionAffinity`](crate::SessionAffinity).
    SessionAffinity = "session-affinity" => super::SessionAffinity::default(),
    /// [`PrefixAffinity`](crate::PrefixAffinity).
    PrefixAffinity = "prefix-affinity" => super::PrefixAffinity::default(),
    /// [`PrefixCache`](crate::PrefixCache).
    PrefixCache = "prefix-cache" => super::PrefixCache::default(),
    /// [`CostAware`](crate::CostAware).
    CostAware = "cost-aware" => super::CostAware::default(),
    /// [`Predictive`](crate::Predictive).
    Predictive = "predictive" => super::Predictive::default(),
}

/// That a name is no strategy's. Its text lists those that are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownStrategy {
    name: String,
}

impl UnknownStrategy {
    /// What was asked for.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for UnknownStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no strategy {:?}; name one of ", self.name)?;
        for (number, strategy) in Strategy::ALL.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}{strategy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownStrategy {}

/// What a dispatcher does unless told otherwise: [`LeastLoaded`](crate::LeastLoaded).
impl Default for Strategy {
    fn default() -> Self {
        Self::LeastLoaded
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Strategy {
    type Err = UnknownStrategy;

    fn from_str(name: &str) -> Result<Self, UnknownStrategy> {
        let found = Self::ALL.iter().find(|strategy| strategy.as_str() == name);
        found.copied().ok_or_else(|| UnknownStrategy { name: name.to_owned() })
    }
}

impl Serialize for Strategy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Strategy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
