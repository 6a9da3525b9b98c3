//! What is to be simulated: machines, load, faults.

use std::str::FromStr;
use std::time::Duration;

use super::machine::Machine;
use super::trace::Trace;

/// One scenario, to be run with several strategies.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    /// Arrivals are as they shall be: scaled already.
    pub(crate) trace: Trace,
    pub(crate) runners: usize,
    pub(crate) machine: Machine,
    pub(crate) stragglers: Vec<Straggler>,
    pub(crate) faults: Vec<Fault>,
    /// How old what a runner reports is when it arrives.
    pub(crate) report_delay: Duration,
    pub(crate) seed: u64,
}

/// How often a runner reports its load.
pub(crate) const REPORT_EVERY: Duration = Duration::from_secs(1);
/// After how long a dead runner is taken off the list: one report is missing.
pub(crate) const NOTICED_AFTER: Duration = REPORT_EVERY;

impl Scenario {
    /// A scenario without faults.
    pub(crate) fn new(trace: Trace, runners: usize, machine: Machine) -> Self {
        Self {
            trace,
            runners,
            machine,
            stragglers: Vec::new(),
            faults: Vec::new(),
            report_delay: Duration::ZERO,
            seed: 1,
        }
    }

    /// The share of the runners' capacity that the trace takes if nothing is ever cached; see
    /// [`Machine::seconds_of_work`]. Stragglers count as healthy.
    pub(crate) fn load(&self) -> f64 {
        let (prompts, answers) = self.trace.tokens();
        self.machine.seconds_of_work(prompts, answers) / (self.trace.span() * self.runners as f64)
    }

    /// Scales the arrivals so that [`Scenario::load`] is `load`.
    pub(crate) fn scale_to(&mut self, load: f64) {
        let factor = load / self.load();
        self.trace.speed_up(factor);
    }

    /// The machine of one runner.
    pub(crate) fn machine_of(&self, runner: usize) -> Machine {
        let slow = self.stragglers.iter().find(|straggler| straggler.runner == runner);
        Machine { slowdown: slow.map_or(1.0, |slow| slow.factor), ..self.machine }
    }
}

/// A runner for which everything takes longer: `N` or `N@FACTOR`, runners counted from 0, three times unless said
/// otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Straggler {
    pub(crate) runner: usize,
    pub(crate) factor: f64,
}

impl FromStr for Straggler {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (runner, factor) = text.split_once('@').unwrap_or((text, "3"));
        let parsed = runner.parse().ok().zip(factor.parse().ok().filter(|factor: &f64| *factor > 0.0));
        let (runner, factor) =
            parsed.ok_or(format!("`{text}` is not N or N@FACTOR, such as 2 or 2@1.5 (from 0)"))?;
        Ok(Self { runner, factor })
    }
}

/// What happens to a runner, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Fault {
    pub(crate) runner: usize,
    /// From the first arrival.
    pub(crate) at: Duration,
    pub(crate) kind: FaultKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    Dies,
    ComesBack,
}

/// A runner and a time, as `N@SECONDS`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RunnerAt {
    pub(crate) runner: usize,
    pub(crate) at: Duration,
}

impl FromStr for RunnerAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once('@')
            .and_then(|(runner, at)| Some(Self { runner: runner.parse().ok()?, at: seconds(at).ok()? }));
        parsed.ok_or(format!("`{text}` is not N@SECONDS, such as 2@600 (runners from 0)"))
    }
}

/// `5`, `5s`, `250ms`.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let parsed =
        number.parse::<f64>().ok().and_then(|number| Duration::try_from_secs_f64(number * unit).ok());
    parsed.ok_or(format!("`{text}` is not a time such as 5s or 250ms"))
}
