//! Ends an answer where the request says, although the worker does not know of it.

use super::Sink;

/// Looks for stop sequences in text that comes in pieces. What may be the beginning of one is held back.
#[derive(Debug)]
pub(crate) struct Stop {
    stops: Vec<String>,
    held: String,
}

impl Stop {
    /// `None` if there is nothing to look for.
    pub(crate) fn new(stops: Vec<String>) -> Option<Self> {
        (!stops.is_empty()).then(|| Self { stops, held: String::new() })
    }

    /// Passes on what is certain. `true` if a stop sequence was reached: what comes after it is no answer.
    pub(crate) fn text(&mut self, text: &str, sink: &mut impl Sink) -> bool {
        self.held.push_str(text);
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        let certain = found.unwrap_or_else(|| self.held.len() - self.possible());
        if certain > 0 {
            sink.text(&self.held[..certain]);
            self.held.drain(..certain);
        }
        found.is_some()
    }

    /// The answer has ended: what was held back was the beginning of nothing.
    pub(crate) fn end(&mut self, sink: &mut impl Sink) {
        if !self.held.is_empty() {
            sink.text(&std::mem::take(&mut self.held));
        }
    }

    /// How many bytes at the end may be the beginning of a stop sequence.
    fn possible(&self) -> usize {
        let begins = |stop: &String| {
            let most = (stop.len() - 1).min(self.held.len());
            let held = self.held.as_bytes();
            // Only where characters begin is a match possible: both are UTF-8.
            (1..=most).rev().find(|len| held.ends_with(&stop.as_bytes()[..*len]))
        };
        self.stops.iter().filter_map(begins).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Out(String);
    impl Sink for Out {
        fn text(&mut self, text: &str) {
            self.0.push_str(text);
        }
    }

    fn run(stops: &[String], pieces: &[&str]) -> (String, bool) {
        let mut stop = Stop::new(stops.to_vec()).unwrap();
        let mut out = Out::default();
        for piece in pieces {
            if stop.text(piece, &mut out) {
                return (out.0, true);
            }
        }
        stop.end(&mut out);
        (out.0, false)
    }

    #[test]
    fn what_cannot_be_a_stop_goes_on_at_once() {
        let mut stop = Stop::new(vec!["END".to_owned()]).unwrap();
        let mut out = Out::default();
        assert!(!stop.text("some E", &mut out));
        assert_eq!(out.0, "some ");
        assert!(!stop.text("N", &mut out));
        assert!(!stop.text("d é", &mut out));
        assert_eq!(out.0, "some ENd é");
        assert!(stop.text("ENDmore", &mut out));
        assert_eq!(out.0, "some ENd é");
    }

    proptest! {
        #[test]
        fn cuts_where_the_whole_text_would_be_cut(
            pieces in proptest::collection::vec("[abé]{0,4}", 0..12),
            stops in proptest::collection::vec("[abé]{1,4}", 1..4),
        ) {
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let all: String = pieces.concat();
            // Text that has gone out cannot be called back, so the sequence that is complete first decides.
            let end = |stop: &String| all.find(stop.as_str()).map(|at| at + stop.len());
            let (out, stopped) = run(&stops, &pieces);
            prop_assert!(all.starts_with(&out));
            prop_assert_eq!(stopped, stops.iter().any(|stop| end(stop).is_some()));
            if stopped {
                prop_assert!(stops.iter().all(|stop| !out.contains(stop.as_str())));
                prop_assert!(stops.iter().any(|stop| all[out.len()..].starts_with(stop.as_str())));
            } else {
                prop_assert_eq!(out, all);
            }
        }
    }
}
