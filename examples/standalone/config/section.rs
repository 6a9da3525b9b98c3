//! What sections of the file are made of.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A section whose keys have the defaults that are given here. A key that is not known is an error.
macro_rules! section {
    ($(#[$docs:meta])* $name:ident { $($(#[$key_docs:meta])* $key:ident: $type:ty = $default:expr,)* }) => {
        $(#[$docs])*
        #[derive(serde::Deserialize, serde::Serialize, Debug)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $name {
            $($(#[$key_docs])* pub(super) $key: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }
    };
}
pub(super) use section;

/// A time in seconds, whole or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) Duration);

impl Seconds {
    /// `None` for 0, which is how a file says "off" or "without limit".
    pub(super) fn unless_zero(self) -> Option<Duration> {
        Some(self.0).filter(|time| !time.is_zero())
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_secs_f64())
    }
}

/// What is never written out: a token, or a key.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::HIDDEN)
    }
}

impl Secret {
    const HIDDEN: &str = "(hidden)";
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { Self::HIDDEN })
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        let time = Duration::try_from_secs_f64(seconds);
        time.map(Self).map_err(|_| serde::de::Error::custom("a time is a number of seconds from 0 on"))
    }
}

/// Why the settings do not do.
#[derive(Debug)]
pub(crate) struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        Self(message.to_string())
    }

    /// What is wrong with a key.
    pub(super) fn at(key: &str, problem: impl fmt::Display) -> Self {
        Self(format!("{key}: {problem}"))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Fails unless the value is at least and at most so much.
pub(super) fn within<T: PartialOrd + fmt::Display>(
    key: &str,
    value: T,
    (least, most): (T, T),
) -> Result<T, ConfigError> {
    if value >= least && value <= most {
        return Ok(value);
    }
    Err(ConfigError::at(key, format!("{value} is not from {least} to {most}")))
}
