//! Reading values out of a document, with errors that name their place.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use super::OpenApiError;

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct At<'v> {
    pub(super) value: &'v Value,
    pub(super) place: String,
}

impl<'v> At<'v> {
    pub(super) fn wrong(&self, wanted: impl fmt::Display) -> OpenApiError {
        // Enough to recognise it by.
        let found: String = self.value.to_string().chars().take(60).collect();
        OpenApiError::new(&self.place, format!("it must be {wanted}, not {found}"))
    }

    pub(super) fn object(&self) -> Result<&'v Map<String, Value>, OpenApiError> {
        self.value.as_object().ok_or_else(|| self.wrong("an object"))
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<At<'v>>, OpenApiError> {
        let value = self.object()?.get(key);
        Ok(value.map(|value| self.at(key, value)))
    }

    pub(super) fn at(&self, key: &str, value: &'v Value) -> At<'v> {
        let place = if self.place.is_empty() { key.to_owned() } else { format!("{}.{key}", self.place) };
        At { value, place }
    }

    pub(super) fn items(&self) -> Result<impl Iterator<Item = At<'v>> + '_, OpenApiError> {
        let items = self.value.as_array().ok_or_else(|| self.wrong("a list"))?;
        let item = |(at, value)| At { value, place: format!("{}[{at}]", self.place) };
        Ok(items.iter().enumerate().map(item))
    }

    /// Fails if there is a key that means nothing here.
    pub(super) fn only(&self, keys: &[&str]) -> Result<(), OpenApiError> {
        match self.object()?.keys().find(|key| !keys.contains(&key.as_str())) {
            Some(key) => {
                let problem = format!("there is no such key; those that there are: {}", keys.join(", "));
                Err(OpenApiError::new(format!("{}.{key}", self.place), problem))
            }
            None => Ok(()),
        }
    }

    pub(super) fn string(&self) -> Result<&'v str, OpenApiError> {
        self.value.as_str().ok_or_else(|| self.wrong("a text"))
    }

    pub(super) fn bool(&self) -> Result<bool, OpenApiError> {
        self.value.as_bool().ok_or_else(|| self.wrong("true or false"))
    }

    pub(super) fn amount(&self) -> Result<f64, OpenApiError> {
        let amount = self.value.as_f64().filter(|amount| amount.is_finite() && *amount >= 0.0);
        amount.ok_or_else(|| self.wrong("a number from 0 on"))
    }

    pub(super) fn bytes(&self) -> Result<u64, OpenApiError> {
        self.value.as_u64().ok_or_else(|| self.wrong("a whole number of bytes"))
    }

    pub(super) fn seconds(&self) -> Result<Duration, OpenApiError> {
        let time = self.value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        time.filter(|time| !time.is_zero()).ok_or_else(|| self.wrong("a number of seconds above 0"))
    }
}
