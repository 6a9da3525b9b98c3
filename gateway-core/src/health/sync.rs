//! The atomics that `gate.rs` turns on, by a name under which a test can put loom's in their place.

pub(super) use std::sync::atomic::{AtomicU64, Ordering};
