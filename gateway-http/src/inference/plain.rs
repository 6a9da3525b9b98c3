//! The fields of a JSON object, found quickly: strings are passed over as fast as memory is searched.
//!
//! Only what is plainly sound is taken. Anything unusual is left to `serde_json`, which has the last word on what is JSON
//! and what to say of what is not: no control characters, not even line breaks, no escapes in names, nothing nested deeper
//! than 64. So the two cannot disagree, and most requests never come to the slower one.

use memchr::memchr2;

/// Gives each field's name and its value, as it stands in the body, to `take`. `None` if the body is no plain object, or
/// as soon as `take` has no use for a field; what was given until then means nothing.
pub(super) fn fields<'b>(body: &'b [u8], take: impl FnMut(&'b str, &'b str) -> Option<()>) -> Option<()> {
    // Looked at as a whole: the compiler makes of it some few instructions for each 16 bytes.
    let least = body.iter().fold(u8::MAX, |least, byte| least.min(*byte));
    if least < b' ' {
        return None;
    }
    let mut walk = Walk { text: str::from_utf8(body).ok()?, at: 0 };
    walk.object(take)?;
    (walk.past_spaces() == walk.text.len()).then_some(())
}

/// Somewhere in the body.
struct Walk<'b> {
    text: &'b str,
    at: usize,
}

impl<'b> Walk<'b> {
    fn object(&mut self, mut take: impl FnMut(&'b str, &'b str) -> Option<()>) -> Option<()> {
        self.sign(b'{')?;
        if self.is_next(b'}') {
            return Some(());
        }
        loop {
            let name = self.name()?;
            let start = self.past_spaces();
            self.value()?;
            take(name, self.text.get(start..self.at)?)?;
            if !self.is_next(b',') {
                return self.sign(b'}');
            }
        }
    }

    /// Past a value. What is nested is counted and not called for: depth costs no stack.
    fn value(&mut self) -> Option<()> {
        // A bit for each that is open, the innermost lowest: whether it is an object.
        let (mut objects, mut depth) = (0_u64, 0);
        loop {
            self.past_spaces();
            let is_object = match self.next()? {
                b'"' => {
                    self.string()?;
                    None
                }
                b'{' => Some(true).filter(|_| !self.is_next(b'}')),
                b'[' => Some(false).filter(|_| !self.is_next(b']')),
                first => {
                    self.scalar(first)?;
                    None
                }
            };
            if let Some(is_object) = is_object {
                if depth == u64::BITS {
                    return None;
                }
                (objects, depth) = (objects << 1 | u64::from(is_object), depth + 1);
            } else {
                // What ends with it, until there is more.
                while depth > 0 && !self.is_next(b',') {
                    self.sign(if objects & 1 == 1 { b'}' } else { b']' })?;
                    (objects, depth) = (objects >> 1, depth - 1);
                }
            }
            if depth == 0 {
                return Some(());
            }
            if objects & 1 == 1 {
                self.name()?;
            }
        }
    }

    /// A name, and past the colon behind it.
    fn name(&mut self) -> Option<&'b str> {
        self.sign(b'"')?;
        let start = self.at;
        let is_escaped = self.string()?;
        let name = self.text.get(start..self.at - 1).filter(|_| !is_escaped)?;
        self.sign(b':')?;
        Some(name)
    }

    /// Past a string that has begun. Whether something in it is escaped.
    fn string(&mut self) -> Option<bool> {
        let mut is_escaped = false;
        loop {
            self.at += memchr2(b'"', b'\\', self.text.as_bytes().get(self.at..)?)?;
            if self.next()? == b'"' {
                return Some(is_escaped);
            }
            is_escaped = true;
            match self.next()? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                b'u' => {
                    for _ in 0..4 {
                        self.next().filter(u8::is_ascii_hexdigit)?;
                    }
                }
                _ => return None,
            }
        }
    }

    /// Past a number or a word that begins so.
    fn scalar(&mut self, first: u8) -> Option<()> {
        let rest = match first {
            b't' => "rue",
            b'f' => "alse",
            b'n' => "ull",
            _ => return self.number(first),
        };
        self.text.get(self.at..)?.starts_with(rest).then(|| self.at += rest.len())
    }

    fn number(&mut self, first: u8) -> Option<()> {
        let first = if first == b'-' { self.next()? } else { first };
        match first {
            b'0' => {}
            b'1'..=b'9' => {
                self.digits();
            }
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits().then_some(())?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits().then_some(())?;
        }
        Some(())
    }

    /// Whether there were any.
    fn digits(&mut self) -> bool {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at > start
    }

    /// Past this sign, which must be the next.
    fn sign(&mut self, sign: u8) -> Option<()> {
        self.is_next(sign).then_some(())
    }

    /// Past this sign, if it is the next.
    fn is_next(&mut self, sign: u8) -> bool {
        self.past_spaces();
        let is_next = self.peek() == Some(sign);
        self.at += usize::from(is_next);
        is_next
    }

    fn past_spaces(&mut self) -> usize {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
        self.at
    }

    fn next(&mut self) -> Option<u8> {
        let next = self.peek();
        self.at += usize::from(next.is_some());
        next
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;

    fn quickly(body: &[u8]) -> Option<HashMap<&str, &str>> {
        let mut found = HashMap::new();
        fields(body, |name, value| {
            found.insert(name, value);
            Some(())
        })?;
        Some(found)
    }

    /// What it must never differ from.
    fn slowly(body: &[u8]) -> Option<HashMap<String, &str>> {
        let all: HashMap<String, &RawValue> = serde_json::from_slice(body).ok()?;
        Some(all.into_iter().map(|(name, value)| (name, value.get())).collect())
    }

    fn agrees(body: &[u8]) -> bool {
        let text = || String::from_utf8_lossy(body);
        match (quickly(body), slowly(body)) {
            (Some(quick), Some(slow)) => {
                let quick: HashMap<String, &str> =
                    quick.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
                assert_eq!(quick, slow, "{}", text());
                true
            }
            (Some(_), None) => panic!("taken for JSON: {}", text()),
            (None, _) => false,
        }
    }

    #[test]
    fn what_clients_send_is_plain() {
        for body in [
            "{}",
            " { } ",
            r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"n":1,"x":-0.5e+3,"y":1E9,"z":0}"#,
            r#"{ "a" : [ ] , "b" : { } , "c" : [ { } , [ 1 , "ü" ] , null ] , "d" : true , "e" : false }"#,
            r#"{"a":"line\nline \"quoted\" \\ \/ \u00fc \ud800 tab\t","a":{"b":{"c":[[[]]]}}}"#,
            "{\"\":\"\u{7f}\"}",
        ] {
            assert!(agrees(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn what_is_unusual_is_left_to_the_other() {
        let deep = |depth| format!(r#"{{"a":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(agrees(deep(64).as_bytes()));
        for body in [&deep(65), "{\n\"a\":1}", "{\"a\":1}\n", r#"{"\u0061":1}"#, "[]", "\"a\"", "7", "", " "]
        {
            assert!(!agrees(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn what_is_no_json_is_not_taken_for_it() {
        for body in [
            r#"{"a":01}"#,
            r#"{"a":+1}"#,
            r#"{"a":1.}"#,
            r#"{"a":.5}"#,
            r#"{"a":1e}"#,
            r#"{"a":-}"#,
            r#"{"a":1-}"#,
            r#"{"a":tru}"#,
            r#"{"a":True}"#,
            r#"{"a":nul"#,
            r#"{"a":truefalse}"#,
            r#"{"a":}"#,
            r#"{"a"}"#,
            r#"{"a" 1}"#,
            r#"{"a":1,}"#,
            r#"{,"a":1}"#,
            r#"{"a":1 "b":2}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":[,1]}"#,
            r#"{"a":[1 2]}"#,
            r#"{"a":[1}"#,
            r#"{"a":{"b":1]}"#,
            r#"{"a":{"b"}}"#,
            r#"{"a":{"b":1,}}"#,
            r#"{"a":{1:2}}"#,
            r#"{a:1}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\u12g4"}"#,
            r#"{"a":"\u12"}"#,
            r#"{"a":"b}"#,
            r#"{"a":"b\"}"#,
            r#"{"a":"\"#,
            r#"{"a":1}}"#,
            r#"{"a":1} x"#,
            r#"{"a":1"#,
            "{",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\0\"}",
            "{'a':1}",
            "\u{feff}{}",
        ] {
            assert_eq!((quickly(body.as_bytes()), slowly(body.as_bytes())), (None, None), "{body}");
        }
        assert_eq!(quickly(b"{\"a\":\"\xff\"}"), None);
        assert_eq!(quickly(b"{\"\xc3\":1}"), None);
    }

    #[test]
    fn it_ends_when_a_field_is_of_no_use() {
        let mut names = Vec::new();
        let done = fields(br#"{"a":1,"b":2,"c":3}"#, |name, _| {
            names.push(name);
            (name != "b").then_some(())
        });
        assert_eq!((done, names), (None, vec!["a", "b"]));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "(\\PC|[\"\\\\/\n\t]){0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map("[a-zü \"]{0,6}", inner, 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn object() -> impl Strategy<Value = String> {
        let fields = prop::collection::vec(("[a-z_]{0,4}", json()), 0..6);
        (fields, any::<bool>()).prop_map(|(fields, spaced)| {
            let (colon, comma) = if spaced { (" : ", " , ") } else { (":", ",") };
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| format!("\"{name}\"{colon}{value}")).collect();
            format!("{{{}}}", fields.join(comma))
        })
    }

    proptest! {
        /// Names of objects within may have escapes: those are the other's.
        #[test]
        fn it_finds_what_is_there(body in object()) {
            let is_plain = agrees(body.as_bytes());
            prop_assert!(is_plain || body.contains('\\'), "{body}");
        }

        #[test]
        fn a_body_that_is_broken_somewhere_is_not_taken_for_another(
            body in object(), at in any::<prop::sample::Index>(), with in prop::option::of(any::<u8>()), more: bool,
        ) {
            let mut body = body.into_bytes();
            let at = at.index(body.len());
            let rest = body.split_off(at);
            body.extend(with);
            body.extend(&rest[usize::from(!more)..]);
            agrees(&body);
        }

        #[test]
        fn no_bytes_make_it_panic_or_err(
            parts in prop::collection::vec(
                prop_oneof![
                    Just("{"), Just("}"), Just("["), Just("]"), Just(":"), Just(","), Just("\""), Just("\\"), Just(" "),
                    Just("\"a\""), Just("\"a\":"), Just("\"ü\":"), Just("-"), Just("0"), Just("1"), Just("."), Just("e"),
                    Just("true"), Just("false"), Just("null"), Just("\\u00e4"), Just("\\n"), Just("\n"), Just("x"),
                ],
                0..24,
            ),
            in_object: bool,
        ) {
            let body = parts.concat();
            agrees(if in_object { format!("{{\"a\":{body}}}") } else { body }.as_bytes());
        }
    }
}
