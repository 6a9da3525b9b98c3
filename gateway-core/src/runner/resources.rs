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

/// What a runner says it has. What it does not say stays unknown; it is never taken for zero.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ResourceReport {
    /// All that the machine has.
    pub total: Option<Resources>,
    /// What of it is free.
    pub available: Option<Resources>,
}
