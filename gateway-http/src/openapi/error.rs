use std::fmt;

/// What is wrong with an OpenAPI document: names the place in it, and says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct OpenApiError {
    place: String,
    problem: String,
}

impl OpenApiError {
    pub(crate) fn new(place: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self { place: place.to_string(), problem: problem.to_string() }
    }

    /// Where in the document, keys joined by dots, such as `paths./tasks/{id}.post.x-gateway.upgrade`.
    pub fn place(&self) -> &str {
        &self.place
    }
}
