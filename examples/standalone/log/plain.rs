//! How a line looks when nobody watches: as the library writes it, without colours and at a fraction of the cost.

use std::cell::Cell;
use std::fmt;
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
    static STAMP: Cell<(u64, [u8; SECOND])> = const { Cell::new((0, [0; SECOND])) };
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
        stamp(&mut writer)?;
        let metadata = event.metadata();
        writer.write_str(match *metadata.level() {
            tracing::Level::ERROR => " ERROR ",
            tracing::Level::WARN => "  WARN ",
            tracing::Level::INFO => "  INFO ",
            tracing::Level::DEBUG => " DEBUG ",
            tracing::Level::TRACE => " TRACE ",
        })?;
        writer.write_str(metadata.target())?;
        writer.write_str(": ")?;
        let mut fields = Fields { writer, is_first: true, result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        fields.writer.write_char('\n')
    }
}

/// Years are not worked out again for every line of a second.
fn stamp(writer: &mut Writer<'_>) -> fmt::Result {
    let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else {
        return time::SystemTime.format_time(writer);
    };
    let (known, mut text) = STAMP.get();
    if known != now.as_secs() {
        let mut whole = String::with_capacity(32);
        time::SystemTime.format_time(&mut Writer::new(&mut whole))?;
        let Some((second, _)) = whole.as_bytes().split_first_chunk::<SECOND>() else {
            return writer.write_str(&whole);
        };
        text = *second;
        STAMP.set((now.as_secs(), text));
    }
    writer.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)?;
    write!(writer, ".{:06}Z", now.subsec_micros())
}

struct Fields<'w> {
    writer: Writer<'w>,
    is_first: bool,
    result: fmt::Result,
}

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.result.is_ok() {
            self.result = self.name(field.name()).and_then(|()| value(&mut self.writer));
        }
    }

    fn name(&mut self, name: &str) -> fmt::Result {
        if !std::mem::replace(&mut self.is_first, false) {
            self.writer.write_str(" ")?;
        }
        if name == "message" {
            return Ok(());
        }
        self.writer.write_str(name.strip_prefix("r#").unwrap_or(name))?;
        self.writer.write_str("=")
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, |writer| write!(writer, "{value:?}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, |writer| write!(writer, "{value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let is_message = field.name() == "message";
        self.put(field, |writer| {
            if is_message {
                return writer.write_str(value);
            }
            // Names and paths, which have nothing in them to escape.
            if !value.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
                return write!(writer, "{value:?}");
            }
            writer.write_str("\"")?;
            writer.write_str(value)?;
            writer.write_str("\"")
        });
    }
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
            tracing::error!(error = %"e");
            let span = tracing::info_span!("outer", id = 3);
            let _in = span.enter();
            tracing::info!(r#type = "t", "within");
        };
        let plain = lines(say, true);
        assert_eq!(plain, lines(say, false));
        assert_eq!(plain.len(), 4);
    }
}
