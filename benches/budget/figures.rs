//! What was recorded, what is now, and whether that is well.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use gateway_core::BoxError;
use serde::Deserialize;

use crate::case::{Case, Measure};

/// What may be added before it is a regression. The figures themselves vary by less than 1 %.
const TOLERANCE: f64 = 0.05;
/// Allocations are exact, and one more per request is a regression whatever there are already.
const ALLOCATIONS: f64 = 0.5;
/// What happens once in a measurement, such as a map that grows, is no regression.
const SLACK: f64 = 0.02;
/// The same in bytes, or instructions.
const SLACK_BYTES: f64 = 16.0;

/// What each case costs.
#[derive(Debug, Deserialize)]
pub(crate) struct Figures {
    /// Instructions are comparable if it is the same.
    pub(crate) compiler: String,
    #[serde(flatten)]
    of: BTreeMap<Case, BTreeMap<Measure, f64>>,
}

/// How it is now against how it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Within,
    Better,
    Worse,
}

impl Figures {
    pub(crate) const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/figures.toml");

    pub(crate) fn of_this_build() -> Self {
        let compiler = format!("{} for {}", env!("BUDGET_RUSTC"), std::env::consts::ARCH);
        Self { compiler, of: BTreeMap::new() }
    }

    /// # Errors
    /// The file is not there or makes no sense.
    pub(crate) fn recorded() -> Result<Self, BoxError> {
        let explain = |error: &dyn std::fmt::Display| format!("{}: {error}", Self::PATH);
        let text = std::fs::read_to_string(Self::PATH).map_err(|error| explain(&error))?;
        Ok(toml::from_str(&text).map_err(|error| explain(&error))?)
    }

    pub(crate) fn set(&mut self, case: Case, measure: Measure, figure: f64) {
        self.of.entry(case).or_default().insert(measure, figure);
    }

    fn get(&self, case: Case, measure: Measure) -> Option<f64> {
        self.of.get(&case)?.get(&measure).copied()
    }

    pub(crate) fn are_instructions_comparable(&self, recorded: &Self) -> bool {
        self.compiler == recorded.compiler
    }

    /// Writes the figures down. What was not measured now stays as it was.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn record(&self, before: &Self) -> Result<(), BoxError> {
        let mut text = "# What things cost, written by UPDATE_BUDGET=1. See benches/README.md.\n".to_owned();
        let has_instructions = self.get(Case::Request, Measure::Instructions).is_some();
        let compiler = if has_instructions { &self.compiler } else { &before.compiler };
        writeln!(text, "compiler = {compiler:?}")?;
        for case in Case::ALL {
            writeln!(text, "\n[{}]", case.name())?;
            for measure in Measure::ALL {
                if let Some(figure) = self.get(case, measure).or_else(|| before.get(case, measure)) {
                    writeln!(text, "{} = {}", measure.name(), measure.rounded(figure))?;
                }
            }
        }
        Ok(std::fs::write(Self::PATH, text)?)
    }

    /// Prints all beside what was recorded, and says what it comes to.
    pub(crate) fn compare(&self, recorded: &Self) -> Verdict {
        let mut verdict = Verdict::Within;
        println!("{:<16} {:<16} {:>12} {:>12} {:>8}", "", "", "recorded", "now", "");
        for (case, measures) in &self.of {
            for (measure, now) in measures {
                let is_judged =
                    *measure != Measure::Instructions || self.are_instructions_comparable(recorded);
                let before = recorded.get(*case, *measure);
                let judged = judge(*measure, *now, before).filter(|_| is_judged);
                verdict = verdict.max(judged.unwrap_or(Verdict::Within));
                let recorded = before.map_or("-".to_owned(), |before| measure.rounded(before));
                let change = before.filter(|before| *before > 0.0).map(|before| 100.0 * (now / before - 1.0));
                let change = change.map_or(String::new(), |change| format!("{change:+.1} %"));
                let remark = match judged {
                    Some(Verdict::Worse) => "  WORSE",
                    Some(Verdict::Better) => "  better",
                    Some(Verdict::Within) => "",
                    None => "  not judged",
                };
                let (case, name, now) = (case.name(), measure.name(), measure.rounded(*now));
                println!("{case:<16} {name:<16} {recorded:>12} {now:>12} {change:>8}{remark}");
            }
        }
        verdict
    }
}

/// `None` if nothing was recorded.
fn judge(measure: Measure, now: f64, before: Option<f64>) -> Option<Verdict> {
    let before = before?;
    let margin = before * TOLERANCE;
    let margin = match measure {
        Measure::Allocations => margin.clamp(SLACK, ALLOCATIONS),
        _ => margin.max(SLACK_BYTES),
    };
    Some(match now - before {
        more if more > margin => Verdict::Worse,
        more if more < -margin => Verdict::Better,
        _ => Verdict::Within,
    })
}

impl Measure {
    const ALL: [Self; 4] = [Self::Allocations, Self::AllocatedBytes, Self::HeldBytes, Self::Instructions];

    /// Its name in `figures.toml`.
    fn name(self) -> &'static str {
        match self {
            Self::Allocations => "allocations",
            Self::AllocatedBytes => "allocated_bytes",
            Self::HeldBytes => "held_bytes",
            Self::Instructions => "instructions",
        }
    }

    fn rounded(self, figure: f64) -> String {
        match self {
            Self::Allocations => format!("{figure:.2}"),
            _ => format!("{figure:.0}"),
        }
    }
}
