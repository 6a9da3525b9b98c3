//! Who served the conversation before.

use crate::balance::choice::slots;
use crate::pipeline::{Scale, Scene, Scorer};
use crate::router::Requirements;
use crate::runner::Runner;

/// The session's favourite: always the same runner while it is there and has room, then always the same
/// next. It is worth 1, and everybody else 0; a request without a session has no favourite. Name: `session`.
///
/// The weight says how much busier than others the favourite may be: with `load` at 1 and `session` at 0.5, a
/// session leaves it once it has half of its slots more in use than the freest.
///
/// Rendezvous hashing (Thaler and Ravishankar 1998): each pair of session and runner has a number, and the
/// least is the favourite, so that a runner that leaves takes only its own sessions along. Runners with more
/// slots are favourites in proportion (weighted as by Schindelhauer and Schomaker 2005). Hashes are of ids, the
/// same in every gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionScorer;

impl Scorer for SessionScorer {
    fn name(&self) -> &'static str {
        "session"
    }

    fn score(&self, requirements: &Requirements, runner: &Runner, scene: &Scene) -> Option<f64> {
        let session = requirements.workload.session?;
        let hash = mixed(session ^ mixed(runner.id_hash()));
        // The upper 53 bits, all that a double holds, as a number above 0 and below 1.
        let even = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        Some(-even.ln() / slots(scene.load()))
    }

    fn scale(&self) -> Scale {
        Scale::Least
    }
}

/// The finisher of SplitMix64 (Steele, Lea and Flood 2014): every bit depends on every other.
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
