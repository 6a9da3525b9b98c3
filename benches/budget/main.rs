//! What a request may cost: allocations, and where valgrind is installed instructions, against the figures in
//! `figures.toml` beside this file.
//!
//! ```sh
//! cargo run --release -p gateway-budget                     # the check; fails if something costs more than 5 % more
//! UPDATE_BUDGET=1 cargo run --release -p gateway-budget     # records what it costs now
//! cargo run --release -p gateway-budget -- profile request  # which functions a case spends its instructions in
//! ```
//!
//! The gateway is a process of its own, set up as `standalone` is, on one thread. Client and engine are in this one. They
//! are in step: nobody has anything to do but whoever is waited for. So what is counted does not depend on timing.

mod case;
mod client;
mod engine;
mod figures;
mod gateway;
mod pace;
mod profile;
mod subject;

use std::process::ExitCode;

use gateway_core::BoxError;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use case::{Bench, Case, Effort};
use figures::{Figures, Verdict};
use subject::Meter;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// Set to anything but nothing, what is measured is recorded.
const UPDATE: &str = "UPDATE_BUDGET";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        [] => check(),
        ["gateway", engine, model] => gateway::serve(engine, model).map(|()| ExitCode::SUCCESS),
        ["profile", case] => case::named(case).and_then(profile::print).map(|()| ExitCode::SUCCESS),
        _ => Err("usage: budget [profile CASE]".into()),
    };
    done.unwrap_or_else(|error| {
        eprintln!("budget: {error}");
        ExitCode::FAILURE
    })
}

fn check() -> Result<ExitCode, BoxError> {
    let recorded = Figures::recorded()?;
    let mut now = Figures::of_this_build();
    measure(Meter::Allocations, &mut now)?;
    if subject::has_valgrind() {
        measure(Meter::Instructions, &mut now)?;
    } else {
        println!("valgrind is not installed: instructions are not counted");
    }
    if std::env::var_os(UPDATE).is_some_and(|update| !update.is_empty()) {
        now.record(&recorded)?;
        println!("recorded in {}", Figures::PATH);
        return Ok(ExitCode::SUCCESS);
    }
    let verdict = now.compare(&recorded);
    if !now.are_instructions_comparable(&recorded) {
        println!(
            "instructions were recorded with {}, this is {}: they are shown and not judged",
            recorded.compiler, now.compiler
        );
    }
    match verdict {
        Verdict::Within => println!("within the budget"),
        Verdict::Better => println!("cheaper than recorded: keep it with {UPDATE}=1"),
        Verdict::Worse => {
            println!(
                "over the budget. `budget profile CASE` says where instructions go; if it has to be, {UPDATE}=1"
            );
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(meter: Meter, into: &mut Figures) -> Result<(), BoxError> {
    let effort = match meter {
        Meter::Allocations => Effort { requests: 500, large: 50, streams: 10 },
        Meter::Instructions => Effort { requests: 100, large: 10, streams: 2 },
    };
    let mut bench = Bench::start(meter, effort)?;
    for case in Case::ALL {
        for (measure, figure) in bench.run(case)? {
            into.set(case, measure, figure);
        }
    }
    bench.end()
}
