use std::path::PathBuf;

use gateway_core::BoxError;

/// Why a request log could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqliteLogError {
    /// The file cannot be opened, made or written.
    #[error(
        "the request log `{}` cannot be used: {source}. The file and its folder must be there and writable",
        path.display()
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: BoxError,
    },
    /// The file is a database of something else.
    #[error(
        "`{}` is a database, but no request log: give another path, so that nothing of it is overwritten",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A newer gateway has written the file.
    #[error(
        "the request log `{}` has version {found}, and this gateway knows those up to {known}: use the newer \
         gateway, or give another path",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version that is known.
        known: i64,
    },
    /// A setting is out of its range.
    #[error("{what} of the request log must be at least {least}")]
    TooSmall {
        /// The setting, as its method is called.
        what: &'static str,
        /// The least that it takes.
        least: u64,
    },
}
