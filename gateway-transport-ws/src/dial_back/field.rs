//! Takes one member out of a JSON object and leaves every other byte as it is.

use std::ops::Range;

use bytes::Bytes;

/// The object without its top-level members of that name. What is no object, or has none, is returned as
/// it came, without a copy.
pub(super) fn remove(json: Bytes, name: &str) -> Bytes {
    let quoted = format!("\"{name}\"");
    if !contains(&json, quoted.as_bytes()) {
        return json;
    }
    // In one go: there may be tens of thousands of them.
    let members = find(&json, quoted.as_bytes()).unwrap_or_default();
    if members.is_empty() {
        return json;
    }
    let mut rest = Vec::with_capacity(json.len());
    let mut from = 0;
    for member in members {
        rest.extend_from_slice(&json[from..member.start]);
        from = member.end;
    }
    rest.extend_from_slice(&json[from..]);
    rest.into()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Where the members stand, each with one of the commas beside it.
fn find(json: &[u8], quoted: &[u8]) -> Option<Vec<Range<usize>>> {
    let mut at = Scan { json, at: 0 };
    at.space();
    at.expect(b'{')?;
    let mut found = Vec::new();
    // After a member that stays, the comma before goes; before the first that stays, the one behind.
    let mut one_stays = false;
    let mut comma_before = 0;
    loop {
        at.space();
        let start = at.at;
        let key = at.string()?;
        at.space();
        at.expect(b':')?;
        at.value()?;
        let end = at.at;
        at.space();
        let next = at.next()?;
        match &json[key] == quoted {
            true if one_stays => found.push(comma_before..end),
            true if next == b',' => found.push(start..at.at),
            true => found.push(start..end),
            false => one_stays = true,
        }
        if next != b',' {
            return (next == b'}').then_some(found);
        }
        comma_before = at.at - 1;
    }
}

struct Scan<'a> {
    json: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn next(&mut self) -> Option<u8> {
        let byte = *self.json.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn space(&mut self) {
        while self.json.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn string(&mut self) -> Option<Range<usize>> {
        let start = self.at;
        self.expect(b'"')?;
        loop {
            match self.next()? {
                b'"' => return Some(start..self.at),
                b'\\' => {
                    self.next()?;
                }
                _ => {}
            }
        }
    }

    /// Passes over a value: brackets are counted, not checked.
    fn value(&mut self) -> Option<()> {
        self.space();
        let mut depth = 0_usize;
        loop {
            match self.json.get(self.at)? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                _ if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                // A number or a word: up to what cannot be part of it.
                _ => {
                    let rest = &self.json[self.at..];
                    let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
                    let len = rest.iter().position(is_end)?;
                    self.at += len;
                    return (len > 0).then_some(());
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn removed(json: &str) -> String {
        String::from_utf8_lossy(&remove(Bytes::copy_from_slice(json.as_bytes()), "m")).into_owned()
    }

    #[test]
    fn one_member_goes_and_all_else_stays() {
        assert_eq!(removed(r#"{"a": 1.50, "m": {"x":[1,"}"]}, "b":2}"#), r#"{"a": 1.50, "b":2}"#);
        assert_eq!(removed(r#"{"m":1,"a":1}"#), r#"{"a":1}"#);
        assert_eq!(removed(r#" { "m" : "\"m\"" } "#), r#" {  } "#);
        assert_eq!(removed(r#"{"a":1,"m":null}"#), r#"{"a":1}"#);
        assert_eq!(removed(r#"{"m":1,"m":2,"a":3}"#), r#"{"a":3}"#);
    }

    #[test]
    fn what_only_looks_like_it_stays() {
        for same in [
            r#"{"a":{"m":1}}"#,
            r#"{"a":"\"m\":1"}"#,
            r#"["m",1]"#,
            r#"{"a":["m"]}"#,
            r#"{"m""#,
            "",
            r#"{"m":}"#,
        ] {
            assert_eq!(removed(same), same);
        }
    }

    proptest! {
        #[test]
        fn anything_is_passed_without_panic(json in r#"[\{\}\[\]",:m\\1 ]{0,40}"#) {
            let _ = removed(&json);
        }

        #[test]
        fn an_object_loses_that_member_only(
            before in prop::collection::btree_map("[a-l]{1,3}", any::<i32>(), 0..4),
            after in prop::collection::btree_map("[n-z]{1,3}", "\\PC{0,8}", 0..4),
        ) {
            let members = |with: bool| {
                let before = before.iter().map(|(key, value)| format!("{key:?}:{value}"));
                let after = after.iter().map(|(key, value)| format!("{key:?}: {}", serde_json::json!(value)));
                let own = with.then(|| r#""m": {"deep":["x"]}"#.to_owned());
                before.chain(own).chain(after).collect::<Vec<_>>().join(",")
            };
            let expected: serde_json::Value = serde_json::from_str(&format!("{{{}}}", members(false))).unwrap();
            let got = removed(&format!("{{{}}}", members(true)));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&got).unwrap(), expected);
        }
    }
}
