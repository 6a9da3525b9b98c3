/// Any error, where its type is nobody's business.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
