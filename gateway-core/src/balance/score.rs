/// One thing that speaks for or against a runner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// What was looked at, such as `load`.
    pub name: &'static str,
    /// How much there is of it; what the unit is, and whether more is better, the strategy's docs say.
    pub value: f64,
}
