//! What is done about runners that fail.

use std::time::Duration;

use gateway_core::{
    Backoff, BreakerPolicy, BudgetPolicy, HealthPolicy, HedgePolicy, HoldPolicy, OutlierPolicy, RetryPolicy,
    WarmupPolicy,
};

use super::section::{ConfigError, Seconds, section, within};

section! {
    /// When a request is tried on another runner.
    Retry {
        max_failures: u32 = RetryPolicy::MAX_FAILURES,
        budget: bool = true,
        budget_ratio: f64 = BudgetPolicy::RATIO,
        budget_min_per_second: f64 = BudgetPolicy::MIN_PER_SECOND,
        budget_window_s: Seconds = Seconds(BudgetPolicy::WINDOW),
        pause_s: Seconds = Seconds(Backoff::SHORTEST),
        longest_pause_s: Seconds = Seconds(Backoff::LONGEST),
        jitter: f64 = Backoff::JITTER,
    }
}

impl Retry {
    pub(super) fn policy(&self) -> Result<RetryPolicy, ConfigError> {
        within("retry.max_failures", self.max_failures, (1, u32::MAX))?;
        let budget = BudgetPolicy {
            ratio: within("retry.budget_ratio", self.budget_ratio, (0.0, f64::MAX))?,
            min_per_second: within(
                "retry.budget_min_per_second",
                self.budget_min_per_second,
                (0.0, f64::MAX),
            )?,
            window: window("retry.budget_window_s", self.budget_window_s)?,
        };
        let backoff = Backoff::new(self.pause_s.0, self.longest_pause_s.0, self.jitter);
        Ok(RetryPolicy {
            max_failures: self.max_failures,
            budget: self.budget.then_some(budget),
            backoff: backoff.map_err(|error| ConfigError::at("retry", error))?,
        })
    }
}

/// What is counted in a window needs some time to be counted in.
fn window(key: &str, time: Seconds) -> Result<Duration, ConfigError> {
    within(key, time.0.as_secs_f64(), (0.01, f64::MAX))?;
    Ok(time.0)
}

section! {
    /// When nothing more is sent to a runner that fails.
    Breaker {
        enabled: bool = true,
        consecutive_faults: u32 = BreakerPolicy::CONSECUTIVE_FAULTS,
        fault_rate: f64 = BreakerPolicy::FAULT_RATE,
        min_requests: u32 = BreakerPolicy::MIN_REQUESTS,
        window_s: Seconds = Seconds(HealthPolicy::WINDOW),
        open_s: Seconds = Seconds(BreakerPolicy::OPEN_FOR),
        longest_open_s: Seconds = Seconds(BreakerPolicy::LONGEST_OPEN),
        probes: u8 = BreakerPolicy::PROBES,
        close_after: u8 = BreakerPolicy::CLOSE_AFTER,
    }
}

section! {
    /// When others are preferred to a runner that cannot be reached, or asks for a pause.
    Hold {
        enabled: bool = true,
        after: u8 = HoldPolicy::AFTER,
        shortest_s: Seconds = Seconds(HoldPolicy::SHORTEST),
        longest_s: Seconds = Seconds(HoldPolicy::LONGEST),
        longest_asked_s: Seconds = Seconds(HoldPolicy::LONGEST_ASKED),
    }
}

section! {
    /// How a runner that comes back gets its share again.
    SlowStart {
        over_s: Seconds = Seconds(WarmupPolicy::OVER),
        from: f64 = WarmupPolicy::FROM,
    }
}

section! {
    /// When others are preferred to a runner that does much worse than they.
    Outliers {
        enabled: bool = true,
        min_peers: usize = OutlierPolicy::MIN_PEERS,
        min_requests: u32 = OutlierPolicy::MIN_REQUESTS,
        deviations: f64 = OutlierPolicy::DEVIATIONS,
        least_gap: f64 = OutlierPolicy::LEAST_GAP,
        times_median: f64 = OutlierPolicy::TIMES_MEDIAN,
        least_latency_s: Seconds = Seconds(OutlierPolicy::LEAST_LATENCY),
        eject_s: Seconds = Seconds(OutlierPolicy::EJECT_FOR),
        longest_s: Seconds = Seconds(OutlierPolicy::LONGEST),
        most: f64 = OutlierPolicy::MOST,
    }
}

impl Breaker {
    fn policy(&self) -> Result<BreakerPolicy, ConfigError> {
        Ok(BreakerPolicy {
            consecutive_faults: self.consecutive_faults,
            fault_rate: within("breaker.fault_rate", self.fault_rate, (0.0, f64::MAX))?,
            min_requests: self.min_requests,
            open_for: self.open_s.0,
            longest_open: self.longest_open_s.0,
            probes: within("breaker.probes", self.probes, (1, 63))?,
            close_after: within("breaker.close_after", self.close_after, (1, 63))?,
        })
    }
}

impl Hold {
    fn policy(&self) -> Result<HoldPolicy, ConfigError> {
        Ok(HoldPolicy {
            after: within("hold.after", self.after, (1, u8::MAX))?,
            shortest: self.shortest_s.0,
            longest: self.longest_s.0,
            longest_asked: self.longest_asked_s.0,
        })
    }
}

impl SlowStart {
    fn policy(&self) -> Result<WarmupPolicy, ConfigError> {
        let from = within("slow_start.from", self.from, (0.0, 1.0))?;
        Ok(WarmupPolicy { over: self.over_s.0, from })
    }
}

impl Outliers {
    fn policy(&self) -> Result<OutlierPolicy, ConfigError> {
        Ok(OutlierPolicy {
            min_peers: within("outliers.min_peers", self.min_peers, (2, usize::MAX))?,
            min_requests: self.min_requests,
            deviations: within("outliers.deviations", self.deviations, (0.0, f64::MAX))?,
            least_gap: within("outliers.least_gap", self.least_gap, (0.0, 1.0))?,
            times_median: within("outliers.times_median", self.times_median, (1.0, f64::MAX))?,
            least_latency: self.least_latency_s.0,
            eject_for: self.eject_s.0,
            longest: self.longest_s.0,
            most: within("outliers.most", self.most, (0.0, 1.0))?,
        })
    }
}

/// Whether a runner deserves requests, from four sections.
pub(super) fn health(
    breaker: &Breaker,
    hold: &Hold,
    slow_start: &SlowStart,
    outliers: &Outliers,
) -> Result<HealthPolicy, ConfigError> {
    // Checked although they may be switched off: a mistake should not wait for the day when they are on.
    let (breaks, holds, warms, ejects) =
        (breaker.policy()?, hold.policy()?, slow_start.policy()?, outliers.policy()?);
    Ok(HealthPolicy {
        breaker: Some(breaks).filter(|_| breaker.enabled),
        hold: Some(holds).filter(|_| hold.enabled),
        warmup: Some(warms).filter(|warms| !warms.over.is_zero()),
        outliers: Some(ejects).filter(|_| outliers.enabled),
        window: window("breaker.window_s", breaker.window_s)?,
    })
}

section! {
    /// When a request is sent to a second runner because the first takes long.
    Hedge {
        enabled: bool = false,
        after_s: Seconds = Seconds(Duration::from_secs(2)),
        ratio: f64 = HedgePolicy::RATIO,
    }
}

impl Hedge {
    pub(super) fn policy(&self) -> Result<Option<HedgePolicy>, ConfigError> {
        let ratio = within("hedge.ratio", self.ratio, (0.0, 1.0))?;
        Ok(self.enabled.then_some(HedgePolicy { after: self.after_s.0, ratio }))
    }
}
