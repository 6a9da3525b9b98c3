//! Why runners refuse a request: in full for admins, counted for clients.

use std::fmt::Write;

use gateway_core::{DispatchError, ModelState, Refusal, RunnerId};

/// The word for it in JSON.
pub(crate) fn code(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::UnknownModel => "unknown_model",
        Refusal::ModelNotReady(ModelState::Available) => "model_not_loaded",
        Refusal::ModelNotReady(ModelState::Loading { .. }) => "model_loading",
        Refusal::ModelNotReady(ModelState::Failed { .. }) => "model_load_failed",
        Refusal::ModelNotReady(_) => "model_not_ready",
        Refusal::Health(_) => "health",
        Refusal::Draining => "draining",
        Refusal::CircuitOpen => "circuit_open",
        Refusal::Probing => "probing",
        Refusal::Full => "full",
        Refusal::AlreadyTried => "already_tried",
        Refusal::Machine => "machine",
        Refusal::Resources => "resources",
        Refusal::ResourcesTaken => "resources_taken",
        Refusal::Label(_) => "label",
        Refusal::Capability => "capability",
        Refusal::Lacks(_) => "lacks_feature",
        Refusal::Modality => "modality",
        Refusal::ContextLength(_) => "context_length",
        _ => "other",
    }
}

/// What a client may know: how many runners for which kind of reason. No ids, no labels, nothing of what
/// machines there are.
fn words(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::UnknownModel => "without the model",
        Refusal::ModelNotReady(ModelState::Loading { .. }) => "loading it",
        Refusal::ModelNotReady(ModelState::Failed { .. }) => "unable to load it",
        Refusal::ModelNotReady(_) => "without it loaded",
        Refusal::Health(_) => "not healthy",
        Refusal::Draining => "draining",
        Refusal::CircuitOpen | Refusal::Probing => "recovering from failures",
        Refusal::Full => "full",
        Refusal::AlreadyTried => "tried already",
        Refusal::ResourcesTaken => "without the resources free",
        Refusal::Lacks(_) => "unable to do what is asked",
        Refusal::ContextLength(_) => "with too short a context",
        _ => "not suited",
    }
}

/// Such as `2 full, 1 draining`; empty if nobody refused.
pub(crate) fn counted(refusals: &[(RunnerId, Refusal)]) -> String {
    let mut counts: Vec<(&str, u32)> = Vec::new();
    for words in refusals.iter().map(|(_, refusal)| words(refusal)) {
        match counts.iter_mut().find(|(known, _)| *known == words) {
            Some((_, count)) => *count += 1,
            None => counts.push((words, 1)),
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut text = String::new();
    for (at, (words, count)) in counts.iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}{count} {words}");
    }
    if refusals.len() >= DispatchError::MAX_REFUSALS {
        text.push_str(", and others");
    }
    text
}

#[cfg(test)]
mod tests {
    use gateway_core::Health;

    use super::*;

    fn refused(refusals: impl IntoIterator<Item = Refusal>) -> Vec<(RunnerId, Refusal)> {
        refusals.into_iter().map(|refusal| (RunnerId::new("secret-host").unwrap(), refusal)).collect()
    }

    #[test]
    fn clients_read_counts_and_no_names() {
        let refusals = refused([
            Refusal::Draining,
            Refusal::Label("rack=secret".into()),
            Refusal::Full,
            Refusal::Other("secret".into()),
            Refusal::Full,
            Refusal::Full,
            Refusal::Health(Health::Unhealthy),
        ]);
        assert_eq!(counted(&refusals), "3 full, 2 not suited, 1 draining, 1 not healthy");
        assert_eq!(counted(&[]), "");
        let many = refused(vec![Refusal::Full; DispatchError::MAX_REFUSALS]);
        assert_eq!(counted(&many), "32 full, and others");
    }
}
