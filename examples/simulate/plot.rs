//! A picture of the figures, drawn by hand: one SVG that needs nothing else.
//!
//! One row per strategy with a column for each thing measured, and below them how times to first token are distributed.

use std::fmt::Write;

use super::figures::{Figures, Quantiles};

const WIDTH: f64 = 1_180.0;
const HEAD: f64 = 84.0;
const ROW: f64 = 46.0;
const CURVES: f64 = 340.0;
/// Left and right edge of each column.
const FIRST_TOKEN: (f64, f64) = (170.0, 430.0);
const PER_TOKEN: (f64, f64) = (460.0, 620.0);
const HITS: (f64, f64) = (650.0, 780.0);
const BUSY: (f64, f64) = (810.0, 1_010.0);
const WORDS: (f64, f64) = (1_040.0, WIDTH - 20.0);
/// Okabe and Ito's colours, which those who see few colours can tell apart; further strategies get them dashed.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// The picture as a page.
pub(crate) fn page(figures: &[Figures]) -> String {
    format!("<!doctype html>\n<meta charset=\"utf-8\">\n<title>Simulation</title>\n{}", svg(figures))
}

/// The picture.
pub(crate) fn svg(figures: &[Figures]) -> String {
    let rows = figures.len() as f64 * ROW;
    let height = HEAD + rows + CURVES;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    if let Some(first) = figures.first() {
        title(&mut text, first);
        table(&mut text, figures);
        curves(&mut text, figures, HEAD + rows + 50.0);
    }
    text + "</svg>\n"
}

fn title(text: &mut String, any: &Figures) {
    let words = format!(
        "{} requests on {} runners, load without cache hits {:.2} of capacity",
        any.requests, any.runners, any.load
    );
    label(text, 20.0, 26.0, "start", "#000", &format!("<tspan font-size=\"16\">{words}</tspan>"));
    let mut head = |(left, right): (f64, f64), words: &str| {
        label(text, (left + right) / 2.0, 52.0, "middle", "#000", words);
    };
    head(FIRST_TOKEN, "time to first token: p50 ● p90 ◆ p99 ▲");
    head(PER_TOKEN, "time per token: p50 p90 p99");
    head(HITS, "prefix hits, ideal ┆");
    head(BUSY, "share of capacity used, per runner");
    head(WORDS, "fairness, cost");
}

fn table(text: &mut String, figures: &[Figures]) {
    let bottom = HEAD + figures.len() as f64 * ROW;
    let spread = |of: fn(&Figures) -> Quantiles| {
        let values = figures.iter().map(of).flat_map(|q| [q.p50, q.p99]).filter(|value| *value > 0.0);
        values.fold((f64::INFINITY, 0.0), |(least, most): (f64, f64), value| {
            (least.min(value), most.max(value))
        })
    };
    let first = Axis::logarithmic(FIRST_TOKEN, spread(|figures| figures.first_token));
    let token = Axis::logarithmic(PER_TOKEN, spread(|figures| figures.per_token));
    let ideal = figures.iter().map(|figures| figures.ideal_hit_rate_blocks).fold(0.0, f64::max);
    let hits = Axis::linear(HITS, (0.0, (ideal * 1.1).max(0.05)));
    first.grid(text, HEAD - 8.0, bottom, time);
    token.grid(text, HEAD - 8.0, bottom, time);
    hits.grid(text, HEAD - 8.0, bottom, |share| format!("{:.0} %", share * 100.0));
    for (at, one) in figures.iter().enumerate() {
        let (colour, middle) = (colour(at), HEAD + (at as f64 + 0.5) * ROW);
        label(text, FIRST_TOKEN.0 - 16.0, middle + 4.0, "end", colour, &escape(&one.strategy));
        range(text, &first, middle, colour, one.first_token);
        range(text, &token, middle, colour, one.per_token);
        let (x, width) = (hits.place(0.0), hits.place(one.hit_rate_blocks) - hits.place(0.0));
        rect(text, x, middle - 8.0, width, 16.0, colour);
        let share = format!("{:.1} %", one.hit_rate_blocks * 100.0);
        label(text, x + 4.0, middle + 22.0, "start", "#555", &share);
        busy(text, one, middle + ROW / 2.0 - 5.0, colour);
        words(text, one, middle);
    }
    if ideal > 0.0 {
        let x = hits.place(ideal);
        let _ = writeln!(
            text,
            "<path d=\"M{x:.1} {HEAD} V{bottom}\" stroke=\"#000\" stroke-dasharray=\"3 3\" fill=\"none\"/>"
        );
    }
}

/// A line from p50 to p99 with a mark at each.
fn range(text: &mut String, axis: &Axis, y: f64, colour: &str, of: Quantiles) {
    if of.p50 <= 0.0 {
        return;
    }
    let (p50, p90, p99) = (axis.place(of.p50), axis.place(of.p90), axis.place(of.p99));
    let _ = writeln!(
        text,
        "<g stroke=\"{colour}\" fill=\"{colour}\"><path d=\"M{p50:.1} {y:.1} H{p99:.1}\" stroke-width=\"2\"/>\
         <circle cx=\"{p50:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>\
         <path d=\"M{p90:.1} {:.1} l5 5.5 l-5 5.5 l-5 -5.5 z\"/>\
         <path d=\"M{p99:.1} {:.1} l5.5 10 h-11 z\"/></g>",
        y - 5.5,
        y - 6.0
    );
    for (x, value) in [(p50, of.p50), (p99, of.p99)] {
        label(text, x, y + 20.0, "middle", "#555", &time(value));
    }
}

/// A bar per runner, full height being its whole capacity.
fn busy(text: &mut String, figures: &Figures, floor: f64, colour: &str) {
    let (left, right) = BUSY;
    let step = (right - left) / figures.busy.len().max(1) as f64;
    let most = ROW - 10.0;
    rect(text, left, floor - most, right - left, most, "#f2f2f2");
    for (runner, share) in figures.busy.iter().enumerate() {
        let height = share.clamp(0.0, 1.0) * most;
        rect(text, left + runner as f64 * step + step * 0.1, floor - height, step * 0.8, height, colour);
    }
}

fn words(text: &mut String, figures: &Figures, middle: f64) {
    let runners = format!("runners {:.3}", figures.fairness_runners);
    label(text, WORDS.0, middle - 8.0, "start", "#333", &runners);
    if let Some(tenants) = figures.fairness_tenants {
        label(text, WORDS.0, middle + 6.0, "start", "#333", &format!("tenants {tenants:.3}"));
    }
    let failed: usize = figures.failed.values().sum();
    let cost = match failed {
        0 => format!("{} ns a pick", figures.pick.p50_ns),
        _ => format!("{} ns, {failed} failed", figures.pick.p50_ns),
    };
    label(text, WORDS.0, middle + 20.0, "start", "#333", &cost);
}

/// Share of requests whose first token came within a time.
fn curves(text: &mut String, figures: &[Figures], top: f64) {
    let bottom = top + CURVES - 90.0;
    // From the quickest hundredth on: the few before it would take half of the picture.
    let quick = |one: &Figures| one.first_tokens.get(one.first_tokens.len() / 100).copied();
    let least = figures.iter().filter_map(quick).filter(|time| *time > 0.0).fold(f64::INFINITY, f64::min);
    let most = figures.iter().map(|one| one.first_token.max).fold(0.0, f64::max);
    let axis = Axis::logarithmic((FIRST_TOKEN.0, WIDTH - 40.0), (least, most));
    label(
        text,
        FIRST_TOKEN.0,
        top - 14.0,
        "start",
        "#000",
        "share of requests whose first token came within",
    );
    axis.grid(text, top, bottom, time);
    for share in [0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0] {
        let y = bottom - share * (bottom - top);
        if share != 0.99 {
            label(text, axis.from - 8.0, y + 4.0, "end", "#555", &format!("{:.0} %", share * 100.0));
        }
        let _ = writeln!(text, "<path d=\"M{:.1} {y:.1} H{:.1}\" stroke=\"#e5e5e5\"/>", axis.from, axis.to);
    }
    for (at, one) in figures.iter().enumerate() {
        let mut path = String::new();
        // As many points as can be seen.
        let points = 400.min(one.first_tokens.len());
        for point in 0..points {
            let share = (point as f64 + 0.5) / points as f64;
            let value = one.first_tokens[(share * one.first_tokens.len() as f64) as usize];
            let command = if point == 0 { 'M' } else { 'L' };
            let y = bottom - share * (bottom - top);
            let _ = write!(path, "{command}{:.1} {y:.1}", axis.place(value.max(axis.least)));
        }
        let dash = if at < COLOURS.len() { "" } else { " stroke-dasharray=\"6 4\"" };
        let _ = writeln!(
            text,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\"{dash}/>",
            colour(at)
        );
        let y = top + 16.0 + at as f64 * 18.0;
        let x = axis.from + 14.0;
        let _ = writeln!(
            text,
            "<path d=\"M{x} {:.1} h24\" stroke=\"{}\" stroke-width=\"2\"{dash}/>",
            y - 4.0,
            colour(at)
        );
        label(text, x + 30.0, y, "start", "#333", &escape(&one.strategy));
    }
}

/// Where values lie across.
struct Axis {
    from: f64,
    to: f64,
    least: f64,
    most: f64,
    logarithmic: bool,
}

impl Axis {
    fn linear((from, to): (f64, f64), (least, most): (f64, f64)) -> Self {
        Self { from, to, least, most, logarithmic: false }
    }

    /// With some room at both ends; the values must be above zero.
    fn logarithmic((from, to): (f64, f64), (least, most): (f64, f64)) -> Self {
        let (least, most) = if least < most { (least * 0.8, most * 1.25) } else { (0.1, 10.0) };
        Self { from, to, least, most, logarithmic: true }
    }

    fn place(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value / self.least).ln() / (self.most / self.least).ln()
        } else {
            (value - self.least) / (self.most - self.least)
        };
        self.from + share * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        if !self.logarithmic {
            return (0..=2)
                .map(|part| self.least + f64::from(part) * 0.5 * (self.most - self.least))
                .collect();
        }
        let decades = self.least.log10().floor() as i32..=self.most.log10().ceil() as i32;
        // On a narrow axis only as many as can be read.
        let wide = (self.most / self.least).log10() * 140.0 < self.to - self.from;
        let steps: &[f64] = if wide { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let all = decades.flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)));
        all.filter(|tick| (self.least..=self.most).contains(tick)).collect()
    }

    fn grid(&self, text: &mut String, top: f64, bottom: f64, name: impl Fn(f64) -> String) {
        for tick in self.ticks() {
            let x = self.place(tick);
            let _ = writeln!(text, "<path d=\"M{x:.1} {top} V{bottom}\" stroke=\"#e5e5e5\"/>");
            label(text, x, bottom + 18.0, "middle", "#555", &name(tick));
        }
    }
}

fn colour(at: usize) -> &'static str {
    COLOURS[at % COLOURS.len()]
}

fn time(seconds: f64) -> String {
    if seconds >= 10.0 {
        format!("{seconds:.0} s")
    } else if seconds >= 1.0 {
        format!("{} s", (seconds * 10.0).round() / 10.0)
    } else {
        format!("{:.0} ms", seconds * 1e3)
    }
}

fn rect(text: &mut String, x: f64, y: f64, width: f64, height: f64, colour: &str) {
    let _ = writeln!(
        text,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
    );
}

fn label(text: &mut String, x: f64, y: f64, anchor: &str, colour: &str, words: &str) {
    let _ = writeln!(
        text,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{words}</text>"
    );
}

fn escape(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;")
}
