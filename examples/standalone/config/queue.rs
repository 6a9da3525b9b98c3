use gateway_core::QueuePolicy;

use super::section::{ConfigError, Seconds, section, within};

section! {
    /// How requests wait when every runner is full.
    Queue {
        max_waiting: usize = QueuePolicy::MAX_WAITING,
        max_per_tenant: usize = QueuePolicy::MAX_PER_TENANT,
        patience_s: Seconds = Seconds(QueuePolicy::PATIENCE),
        ageing_s: Seconds = Seconds(QueuePolicy::AGEING),
        look_s: Seconds = Seconds(QueuePolicy::LOOK),
    }
}

impl Queue {
    pub(super) fn policy(&self) -> Result<QueuePolicy, ConfigError> {
        // More often would be busy waiting.
        within("queue.look_s", self.look_s.0.as_secs_f64(), (0.001, f64::MAX))?;
        Ok(QueuePolicy {
            max_waiting: self.max_waiting,
            max_per_tenant: self.max_per_tenant,
            patience: self.patience_s.0,
            ageing: self.ageing_s.0,
            look: self.look_s.0,
        })
    }
}
