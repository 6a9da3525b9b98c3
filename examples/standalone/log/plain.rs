//! How a line looks when nobody watches: as the library writes it, without colours and at a fraction of the cost.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::time::{self, FormatTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// `2026-11-21T17:41:53`, the part of a time stamp that stays for a second.
const SECOND: usize = 19;

thread_local! {
    /// Taken while a line is written: a value that logs while it is being shown begins one of its own.
    static LINE: Cell<Line> = const { Cell::new(Line { second: 0, text: String::new() }) };
}

/// One line for each event; what stands in a span is left to the library's own format.
#[derive(Default)]
pub(super) struct Plain(Format<Full>);

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if context.event_scope().is_some() {
            return self.0.format_event(context, writer, event);
        }
        let mut line = LINE.take();
        line.begin()?;
        let metadata = event.metadata();
        line.text.push_str(match *metadata.level() {
            tracing::Level::ERROR => " ERROR ",
            tracing::Level::WARN => "  WARN ",
            tracing::Level::INFO => "  INFO ",
            tracing::Level::DEBUG => " DEBUG ",
            tracing::Level::TRACE => " TRACE ",
        });
        line.text.push_str(metadata.target());
        line.text.push_str(": ");
        let mut fields = Fields { line: &mut line.text, is_first: true, result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        line.text.push('\n');
        // In one piece: the way to the writer is longer than most fields are.
        writer.write_str(&line.text)?;
        LINE.set(line);
        Ok(())
    }
}

/// A line, begun with the time of the one before it.
#[derive(Default)]
struct Line {
    /// The second, since 1970, whose stamp the text begins with.
    second: u64,
    text: String,
}

impl Line {
    /// Leaves the stamp. Years are not worked out again for every line of a second.
    fn begin(&mut self) -> fmt::Result {
        let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else {
            (self.second, self.text) = (0, String::new());
            return time::SystemTime.format_time(&mut Writer::new(&mut self.text));
        };
        if self.second != now.as_secs() || self.text.len() < SECOND {
            self.text.clear();
            time::SystemTime.format_time(&mut Writer::new(&mut self.text))?;
            self.second = now.as_secs();
        }
        self.text.truncate(SECOND);
        write!(self.text, ".{:06}Z", now.subsec_micros())
    }
}

struct Fields<'l> {
    line: &'l mut String,
    is_first: bool,
    result: fmt::Result,
}

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl FnOnce(&mut String) -> fmt::Result) {
        if self.result.is_ok() {
            self.name(field.name());
            self.result = value(self.line);
        }
    }

    fn name(&mut self, name: &str) {
        if !std::mem::replace(&mut self.is_first, false) {
            self.line.push(' ');
        }
        if name != "message" {
            self.line.push_str(name.strip_prefix("r#").unwrap_or(name));
            self.line.push('=');
        }
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, |line| write!(line, "{value:?}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, |line| {
            line.push_str(itoa::Buffer::new().format(value));
            Ok(())
        });
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, |line| match thousandths(value) {
            Some((whole, rest)) => {
                line.push_str(itoa::Buffer::new().format(whole));
                line.push('.');
                let digits =
                    [rest / 100, rest / 10 % 10, rest % 10].map(|digit| char::from(b'0' + digit as u8));
                let shown = digits.iter().rposition(|digit| *digit != '0').map_or(1, |last| last + 1);
                line.extend(&digits[..shown]);
                Ok(())
            }
            None => write!(line, "{value:?}"),
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let is_message = field.name() == "message";
        self.put(field, |line| {
            if is_message {
                line.push_str(value);
                return Ok(());
            }
            // Names and paths, which have nothing in them to escape.
            let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) & (byte != b'"') & (byte != b'\\');
            if !value.bytes().fold(true, |all, byte| all & is_plain(byte)) {
                return write!(line, "{value:?}");
            }
            line.push('"');
            line.push_str(value);
            line.push('"');
            Ok(())
        });
    }
}

/// A number of up to three decimals, as times in milliseconds are: its whole and its thousandths. Then these are what
/// the shortest form of it shows, and need not be searched for.
fn thousandths(value: f64) -> Option<(u64, u64)> {
    /// Far below where floats have gaps that show in the third decimal.
    const MOST: f64 = 1e12;
    if !(0.0..MOST).contains(&value) || value.is_sign_negative() {
        return None;
    }
    let scaled = (value * 1000.0).round();
    (scaled / 1000.0 == value).then_some((scaled as u64 / 1000, scaled as u64 % 1000))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The lines without their time stamps, whose length is looked at.
    fn lines(say: impl Fn(), plain: bool) -> Vec<String> {
        let kept = Kept::default();
        let writer = kept.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        if plain {
            tracing::subscriber::with_default(log.event_format(Plain::default()).finish(), say);
        } else {
            tracing::subscriber::with_default(log.finish(), say);
        }
        let bytes = kept.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        text.lines()
            .map(|line| line.split_once("Z ").unwrap())
            .map(|(time, rest)| format!("{} {rest}", time.len()))
            .collect()
    }

    #[test]
    fn lines_are_the_library_s() {
        let say = || {
            tracing::info!(target: "gateway::request", request_id = %"r-1", path = "/v1/x", none = None::<u32>, status = 200, tries = Some(1), "request finished");
            tracing::warn!(odd = "a\"b\\c\né", debug = ?"x", float = 1.5, yes = true, "two words");
            tracing::info!(
                a = 0.0,
                b = -0.0,
                c = 0.001,
                d = 12.34,
                e = 1e-4,
                f = 1e13,
                g = f64::NAN,
                h = -1.5,
                i = 99.9,
                "floats"
            );
            tracing::error!(error = %"e");
            let span = tracing::info_span!("outer", id = 3);
            let _in = span.enter();
            tracing::info!(r#type = "t", "within");
        };
        let plain = lines(say, true);
        assert_eq!(plain, lines(say, false));
        assert_eq!(plain.len(), 5);
    }

    #[test]
    fn floats_are_the_library_s() {
        use proptest::prelude::*;
        proptest!(|(micros in 0..10_000_000_000_u64, other in any::<f64>())| {
            for value in [micros as f64 / 1000.0, other] {
                let say = || tracing::info!(value);
                prop_assert_eq!(lines(say, true), lines(say, false));
            }
        });
    }
}
