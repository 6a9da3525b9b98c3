//! The figures for people.

use std::fmt::Write;

use super::figures::Figures;
use super::ideal::Bounds;
use super::scenario::Scenario;

const HEAD: [&str; 15] = [
    "strategy", "TTFT p50", "p90", "p99", "TPOT p50", "p90", "p99", "hits", "of ideal", "busy min", "mean",
    "max", "fair", "failed", "pick ns",
];

/// A table with a row per strategy, and what bounds them. Times in seconds but for TPOT, in milliseconds.
pub(crate) fn render(scenario: &Scenario, bounds: &Bounds, figures: &[Figures]) -> String {
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    rows.extend(figures.iter().map(row));
    let widths: Vec<usize> =
        (0..HEAD.len()).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    let mut text = head(scenario, bounds);
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 => write!(text, "{cell:<width$}"),
                _ => write!(text, "  {cell:>width$}"),
            };
        }
        text.push('\n');
    }
    for one in figures.iter().filter(|one| !one.failed.is_empty() || one.retried > 0) {
        let _ = writeln!(text, "{}: {} tried again; failed: {:?}", one.strategy, one.retried, one.failed);
    }
    text
}

fn head(scenario: &Scenario, bounds: &Bounds) -> String {
    let alone = bounds.first_token;
    format!(
        "{} requests, {} runners, load without hits {:.3} of capacity, {:.0} s\n\
         one LRU cache of the same total size: {:.1} % of blocks ({:.1} % of tokens); without limit: {:.1} %\n\
         alone on a runner with that cache: TTFT p50 {:.2}, p90 {:.2}, p99 {:.2}\n\n",
        scenario.trace.requests.len(),
        scenario.runners,
        scenario.load(),
        scenario.trace.span(),
        bounds.hit_rate_blocks * 100.0,
        bounds.hit_rate_tokens * 100.0,
        bounds.unlimited_hit_rate_blocks * 100.0,
        alone.p50,
        alone.p90,
        alone.p99,
    )
}

fn row(figures: &Figures) -> Vec<String> {
    let (least, mean, most) = figures.busy_range();
    let (first, token) = (figures.first_token, figures.per_token);
    let fair = match figures.fairness_tenants {
        Some(tenants) => format!("{:.3}/{tenants:.3}", figures.fairness_runners),
        None => format!("{:.3}", figures.fairness_runners),
    };
    let failed = figures.failed.values().sum::<usize>();
    let seconds = |value: f64| format!("{value:.2}");
    let millis = |value: f64| format!("{:.0}", value * 1e3);
    let percent = |value: f64| format!("{:.1} %", value * 100.0);
    vec![
        figures.strategy.clone(),
        seconds(first.p50),
        seconds(first.p90),
        seconds(first.p99),
        millis(token.p50),
        millis(token.p90),
        millis(token.p99),
        percent(figures.hit_rate_blocks),
        percent(figures.share_of_ideal),
        format!("{least:.2}"),
        format!("{mean:.2}"),
        format!("{most:.2}"),
        fair,
        failed.to_string(),
        figures.pick.p50_ns.to_string(),
    ]
}
