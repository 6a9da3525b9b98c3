use std::time::Duration;

/// An amount of machine: of what a runner has, or of what a request needs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Resources {
    /// Processor cores.
    pub cpus: f64,
    /// Accelerators; fractions are shares of one.
    pub gpus: f64,
    /// Memory in gigabytes.
    pub memory_gb: f64,
}

impl Resources {
    /// Whether this amount is enough for `need`, in every dimension.
    pub fn covers(&self, need: &Resources) -> bool {
        self.cpus >= need.cpus && self.gpus >= need.gpus && self.memory_gb >= need.memory_gb
    }
}

/// What a runner says it has, and how old that may be. What it does not say stays unknown; it is never taken for zero.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ResourceReport {
    /// All that the machine has.
    pub total: Option<Resources>,
    /// What of it is free.
    pub available: Option<Resources>,
    /// How old this may be at most when it arrives; [`ResourceReport::MAX_AGE`] if it is not known. Of requests
    /// that were sent or ended in this time nobody knows whether they are in it.
    pub max_age: Option<Duration>,
}

impl ResourceReport {
    /// 2 s: how often such reports are asked for.
    pub const MAX_AGE: Duration = Duration::from_secs(2);
}
