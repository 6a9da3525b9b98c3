//! Which functions a case spends its instructions in.

use std::collections::HashMap;
use std::path::Path;

use gateway_core::BoxError;

use crate::case::{Bench, Case, Effort, Measure};
use crate::subject::Meter;

/// Functions that are printed.
const MOST: usize = 60;

/// Prints the costliest functions of a case, callees not included, and keeps callgrind's file for other views.
///
/// # Errors
/// Valgrind is not installed, or what it wrote cannot be read.
pub(crate) fn print(case: Case) -> Result<(), BoxError> {
    let effort = Effort { requests: 400, large: 20, streams: 4 };
    let mut bench = Bench::start(Meter::Instructions, effort)?;
    let total = bench.run(case)?;
    let kept = format!("{}.callgrind", case.name());
    std::fs::copy(bench.subject().last_profile(), &kept)?;
    bench.end()?;
    let spent = own(Path::new(&kept))?;
    let all: u64 = spent.values().sum();
    let mut functions: Vec<_> = spent.into_iter().collect();
    functions.sort_by_key(|(_, own)| std::cmp::Reverse(*own));
    let total = total.into_iter().find(|(measure, _)| *measure == Measure::Instructions);
    let total = total
        .map(|(_, figure)| figure)
        .ok_or_else(|| format!("{} is not about instructions", case.name()))?;
    println!("{total:>10.0} {:>7} % {}", 100, case.name());
    for (function, own) in functions.into_iter().take(MOST) {
        let share = own as f64 / all as f64;
        println!("{:>10.0} {:>7.2} % {function}", share * total, 100.0 * share);
    }
    println!("callgrind_annotate --inclusive=yes {kept}    # with what they call");
    Ok(())
}

/// What each function spent itself.
fn own(path: &Path) -> Result<HashMap<String, u64>, BoxError> {
    let text = std::fs::read_to_string(path)?;
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut spent: HashMap<&str, u64> = HashMap::new();
    let (mut function, mut is_call) = ("", false);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            // "(number) name" when it comes first, "(number)" from then on.
            let (number, name) = name.split_once(' ').unwrap_or((name, ""));
            function = number;
            if !name.is_empty() {
                names.insert(number, name);
            }
        } else if let Some(name) = line.strip_prefix("cfn=") {
            if let Some((number, name)) = name.split_once(' ') {
                names.insert(number, name);
            }
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            // What a call cost is its callee's own.
            if !std::mem::replace(&mut is_call, false) {
                let cost = line.split(' ').nth(1).and_then(|cost| cost.parse().ok()).unwrap_or(0);
                *spent.entry(function).or_default() += cost;
            }
        }
    }
    Ok(spent
        .into_iter()
        .map(|(number, own)| (names.get(number).unwrap_or(&number).to_string(), own))
        .collect())
}
