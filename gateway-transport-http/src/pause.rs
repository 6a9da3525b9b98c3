//! How long to wait until the next look.

use std::time::Duration;

/// Give or take a tenth, so that the looks of many runners and gateways do not fall together.
pub(crate) fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}
