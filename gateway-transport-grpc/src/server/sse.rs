//! Event streams, taken apart as they come: whatever the pieces in which they come, the events are the same.

use std::ops::Range;

use bytes::Bytes;
use memchr::memchr2;

/// The longest event that is put together from pieces: 1 MiB, far above what an engine says at once.
pub(crate) const LONGEST_EVENT: usize = 1 << 20;

/// An event is longer than [`LONGEST_EVENT`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// The events of the pieces that were pushed. An event that lies within one piece is not copied.
#[derive(Debug, Default)]
pub(crate) struct Events {
    piece: Bytes,
    /// What of the piece has been read.
    at: usize,
    /// A line whose end has not come yet.
    line: Vec<u8>,
    /// The event's only line of data so far, if it lies within the piece.
    within: Option<Range<usize>>,
    /// The event's data so far, otherwise.
    data: Vec<u8>,
    has_data: bool,
    /// Whether it has a name of which clients of completions know nothing.
    is_other: bool,
    /// Whether a line feed would belong to the line end before it.
    after_cr: bool,
    /// Whether the event that was given out has to go.
    is_given: bool,
}

impl Events {
    /// More of the stream, once everything before it has been read.
    pub(crate) fn push(&mut self, piece: Bytes) {
        debug_assert_eq!(self.at, self.piece.len(), "a piece is read before the next one comes");
        self.piece = piece;
        self.at = 0;
    }

    /// The next event's data; `None` if more of the stream is needed for it.
    pub(crate) fn next(&mut self) -> Option<Result<&[u8], TooLong>> {
        if std::mem::take(&mut self.is_given) {
            self.forget();
        }
        match self.read_on() {
            Ok(true) => {
                self.is_given = true;
                let data = self.within.clone().map_or(&self.data[..], |within| &self.piece[within]);
                Some(Ok(data))
            }
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Reads to the end of the next event; `false` if the piece ends before.
    fn read_on(&mut self) -> Result<bool, TooLong> {
        while let Some(&first) = self.piece.get(self.at) {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                self.at += 1;
                continue;
            }
            let start = self.at;
            let Some(len) = memchr2(b'\n', b'\r', &self.piece[start..]) else {
                self.at = self.piece.len();
                let rest = &self.piece[start..];
                if self.line.len() + rest.len() > LONGEST_EVENT {
                    return Err(TooLong);
                }
                self.line.extend_from_slice(rest);
                break;
            };
            let end = start + len;
            self.at = end + 1;
            self.after_cr = self.piece[end] == b'\r';
            if self.line.is_empty() && len == 0 {
                if self.has_data && !self.is_other {
                    return Ok(true);
                }
                self.forget();
            } else if self.line.is_empty() {
                self.whole_line(start..end)?;
            } else {
                self.line_in_pieces(start..end)?;
            }
        }
        // The piece goes, the event stays.
        if let Some(within) = self.within.take() {
            self.data.extend_from_slice(&self.piece[within]);
        }
        Ok(false)
    }

    fn whole_line(&mut self, at: Range<usize>) -> Result<(), TooLong> {
        match Line::read(&self.piece[at.clone()]) {
            Line::Data(value) if !self.has_data => {
                self.has_data = true;
                self.within = Some(at.start + value..at.end);
            }
            Line::Data(value) => {
                let piece = self.piece.clone();
                self.add(&piece[at.start + value..at.end])?;
            }
            Line::Named { is_other } => self.is_other = is_other,
            Line::Nothing => {}
        }
        Ok(())
    }

    /// A line that began in an earlier piece.
    fn line_in_pieces(&mut self, rest: Range<usize>) -> Result<(), TooLong> {
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(&self.piece[rest]);
        match Line::read(&line) {
            Line::Data(value) => self.add(&line[value..])?,
            Line::Named { is_other } => self.is_other = is_other,
            Line::Nothing => {}
        }
        line.clear();
        self.line = line;
        Ok(())
    }

    fn add(&mut self, value: &[u8]) -> Result<(), TooLong> {
        if let Some(within) = self.within.take() {
            self.data.extend_from_slice(&self.piece[within]);
        }
        if self.data.len() + value.len() > LONGEST_EVENT {
            return Err(TooLong);
        }
        if self.has_data {
            self.data.push(b'\n');
        }
        self.has_data = true;
        self.data.extend_from_slice(value);
        Ok(())
    }

    fn forget(&mut self) {
        self.within = None;
        self.data.clear();
        self.has_data = false;
        self.is_other = false;
    }
}

/// What a line says.
enum Line {
    /// Data, which begin here.
    Data(usize),
    Named {
        is_other: bool,
    },
    Nothing,
}

impl Line {
    fn read(line: &[u8]) -> Self {
        let value = |prefix: usize| match line.get(prefix) {
            Some(b' ') => prefix + 1,
            _ => prefix,
        };
        match line {
            b"data" => Self::Data(line.len()),
            [b'd', b'a', b't', b'a', b':', ..] => Self::Data(value(5)),
            [b'e', b'v', b'e', b'n', b't', b':', ..] => {
                let name = &line[value(6)..];
                Self::Named { is_other: !matches!(name, b"" | b"message" | b"error") }
            }
            _ => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<String>, TooLong> {
        let mut events = Events::default();
        let mut all = Vec::new();
        for piece in pieces {
            events.push(Bytes::copy_from_slice(piece));
            while let Some(data) = events.next() {
                all.push(String::from_utf8_lossy(data?).into_owned());
            }
        }
        Ok(all)
    }

    #[test]
    fn all_kinds_of_lines_are_understood() {
        let text = b"data: a\n\n: comment\n\ndata:b\r\n\r\ndata:  c\rdata: d\r\rdata\n\nid: 1\nretry: 2\n\n\
                     event: metrics\ndata: hidden\n\nevent: error\ndata: e\n\nevent: message\ndata: f\n\ndata: cut\n";
        assert_eq!(events([&text[..]]).unwrap(), ["a", "b", " c\nd", "", "e", "f"]);
    }

    #[test]
    fn an_event_without_end_is_given_up() {
        let piece = vec![b'x'; 64 << 10];
        let line = std::iter::once(&b"data: "[..]).chain(std::iter::repeat_n(&piece[..], 17));
        assert_eq!(events(line), Err(TooLong));
        let mut lines = b"data: ".to_vec();
        lines.extend_from_slice(&piece);
        lines.push(b'\n');
        assert_eq!(events(std::iter::repeat_n(&lines[..], 17)), Err(TooLong));
    }

    fn cut(text: &[u8], at: &[usize]) -> Vec<Vec<u8>> {
        let mut at: Vec<_> = at.iter().map(|at| at % (text.len() + 1)).chain([0, text.len()]).collect();
        at.sort_unstable();
        at.windows(2).map(|ends| text[ends[0]..ends[1]].to_vec()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn pieces_make_no_difference(
            parts in prop::collection::vec(
                prop_oneof![
                    Just("\n"), Just("\r"), Just("\r\n"), Just("data: "), Just("data:"), Just("data"), Just(":"),
                    Just("event: "), Just("error"), Just("message"), Just("x"), Just("é"), Just("\n\n"),
                ],
                0..40,
            ),
            at in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let text = parts.concat().into_bytes();
            let pieces = cut(&text, &at);
            prop_assert_eq!(events(pieces.iter().map(Vec::as_slice)), events([&text[..]]));
        }

        #[test]
        fn any_bytes_do(
            bytes in prop::collection::vec(any::<u8>(), 0..512),
            at in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let pieces = cut(&bytes, &at);
            prop_assert_eq!(events(pieces.iter().map(Vec::as_slice)), events([&bytes[..]]));
        }
    }
}
