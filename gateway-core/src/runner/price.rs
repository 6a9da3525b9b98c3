use super::Labels;

/// What a runner costs, in whatever currency the whole fleet is priced in.
///
/// ```
/// use gateway_core::{Price, RunnerId, RunnerSpec};
/// let spec = RunnerSpec::new(RunnerId::new("gpu-1")?).price(Price::PerHour(2.5));
/// // Runners that join by themselves say it with a label.
/// let same = RunnerSpec::new(RunnerId::new("gpu-1")?).label(Price::PER_HOUR_LABEL, "2.5");
/// assert_eq!(Price::from_labels(&same.labels), spec.price);
/// # Ok::<(), gateway_core::InvalidName>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Price {
    /// The machine for an hour, busy or not. A request is charged for the share of it that one slot is.
    PerHour(f64),
    /// A million tokens, of prompts and answers alike.
    PerMillionTokens(f64),
}

impl Price {
    /// The label that stands for [`Price::PerHour`]; a decimal number.
    pub const PER_HOUR_LABEL: &'static str = "price_per_hour";
    /// The label that stands for [`Price::PerMillionTokens`]; a decimal number. It goes before the other.
    pub const PER_MILLION_TOKENS_LABEL: &'static str = "price_per_million_tokens";

    /// The price that labels state. `None` if none of them does, or with something that is no price.
    pub fn from_labels(labels: &Labels) -> Option<Self> {
        let read = |label: &str| labels.get(label)?.trim().parse::<f64>().ok();
        let per_tokens = read(Self::PER_MILLION_TOKENS_LABEL).map(Self::PerMillionTokens);
        per_tokens.or_else(|| read(Self::PER_HOUR_LABEL).map(Self::PerHour)).filter(Self::is_sound)
    }

    /// Whether it can be reckoned with: finite and not negative.
    pub(crate) fn is_sound(&self) -> bool {
        let (Self::PerHour(price) | Self::PerMillionTokens(price)) = self;
        price.is_finite() && *price >= 0.0
    }

    /// What a request costs that holds one of `slots` for so long and has so many tokens.
    pub(crate) fn of_request(self, busy_s: f64, slots: f64, tokens: f64) -> f64 {
        match self {
            Self::PerHour(price) => price * busy_s / 3_600.0 / slots,
            Self::PerMillionTokens(price) => price * tokens / 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(labels: &[(&str, &str)]) -> Option<Price> {
        Price::from_labels(&labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect())
    }

    #[test]
    fn labels_are_prices_or_nothing() {
        assert_eq!(read(&[("price_per_hour", " 2.50 ")]), Some(Price::PerHour(2.5)));
        let both = read(&[("price_per_hour", "2"), ("price_per_million_tokens", "0.2")]);
        assert_eq!(both, Some(Price::PerMillionTokens(0.2)));
        assert_eq!(read(&[("price_per_hour", "0")]), Some(Price::PerHour(0.0)));
        for nonsense in ["", "cheap", "-1", "NaN", "inf"] {
            assert_eq!(read(&[("price_per_hour", nonsense)]), None, "{nonsense:?}");
        }
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn an_hour_of_all_slots_costs_the_hour() {
        assert_eq!(Price::PerHour(8.0).of_request(3_600.0, 8.0, 5.0), 1.0);
        assert_eq!(Price::PerMillionTokens(3.0).of_request(9.0, 8.0, 2e6), 6.0);
    }
}
