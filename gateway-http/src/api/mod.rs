//! The routes that the gateway answers by itself, for clients and for everybody.

mod health;
mod metadata;
mod models;

pub(crate) use health::{health, ready};
pub(crate) use metadata::metadata;
pub(crate) use models::{model, models};
