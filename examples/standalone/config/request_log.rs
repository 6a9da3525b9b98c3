use std::path::PathBuf;
use std::time::Duration;

use super::section::{ConfigError, section, within};

section! {
    /// A row of every finished request, in a file.
    RequestLog {
        database: Option<PathBuf> = None,
        max_age_days: u32 = 30,
        max_size_mib: u64 = 1024,
        queue: usize = 8192,
    }
}

impl RequestLog {
    /// `None` without a file.
    pub(super) fn setting(&self) -> Result<Option<RequestLogSetting>, ConfigError> {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        // A tebibyte: beyond it, somebody meant bytes.
        let mib = within("request_log.max_size_mib", self.max_size_mib, (1, 1 << 20))?;
        let queue = within("request_log.queue", self.queue, (1, 1 << 20))?;
        Ok(self.database.clone().map(|database| RequestLogSetting {
            database,
            max_age: Some(DAY * self.max_age_days).filter(|age| !age.is_zero()),
            max_bytes: mib << 20,
            queue,
        }))
    }
}

/// Where requests are logged, and how much of it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestLogSetting {
    pub(crate) database: PathBuf,
    /// `None` for any age.
    pub(crate) max_age: Option<Duration>,
    pub(crate) max_bytes: u64,
    pub(crate) queue: usize,
}
