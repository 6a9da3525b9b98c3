//! The text of a JSON string, put where it is wanted.

use std::iter::from_fn;

use memchr::memchr;

/// Appends the text of a JSON string that has been read over: prompts are long, and `serde_json` would copy them twice on
/// the way.
pub(super) fn unescape(json: &str, into: &mut String) -> Result<(), serde_json::Error> {
    let before = into.len();
    if appended(json, into).is_none() {
        into.truncate(before);
        // It says what is wrong.
        into.push_str(&serde_json::from_str::<String>(json)?);
    }
    Ok(())
}

/// `None` if it is no string.
fn appended(json: &str, into: &mut String) -> Option<()> {
    let mut rest = json.strip_prefix('"')?.strip_suffix('"')?;
    into.reserve(rest.len());
    while let Some(at) = memchr(b'\\', rest.as_bytes()) {
        into.push_str(&rest[..at]);
        rest = &rest[at..];
        let escaped = match rest.as_bytes().get(1)? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                // All that follow one another: two may be one character.
                let units = from_fn(|| {
                    let (digits, after) = rest.strip_prefix(r"\u")?.split_at_checked(4)?;
                    let unit = u16::from_str_radix(digits, 16).ok()?;
                    rest = after;
                    Some(unit)
                });
                let before = into.len();
                for character in char::decode_utf16(units) {
                    into.push(character.ok()?);
                }
                if into.len() == before {
                    return None;
                }
                continue;
            }
            _ => return None,
        };
        into.push(escaped);
        rest = &rest[2..];
    }
    into.push_str(rest);
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes of it behind something else.
    fn text(json: &str) -> Result<String, String> {
        let mut into = "before".to_owned();
        let done = unescape(json, &mut into).map_err(|error| error.to_string());
        let text = into.strip_prefix("before").expect("what was there stays").to_owned();
        done.map(|()| text)
    }

    fn expected(json: &str) -> Result<String, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn it_is_what_serde_json_reads() {
        for json in [
            r#""""#,
            r#""plain, ünd mehr""#,
            r#""\"\\\/\b\f\n\r\t""#,
            r#""\u00e9\u4f60\u597d and \ud83d\ude00\ud83d\ude00.\u0000""#,
            r#""\ud83d""#,
            r#""\ud83d\u0041""#,
            r#""\ude00\ud83d""#,
            r#""\ud83dA""#,
            r#""\u12""#,
            r#""\u""#,
            r#""\x""#,
            r#""\""#,
            r#"""#,
            "7",
            "[]",
        ] {
            assert_eq!(text(json), expected(json), "{json}");
        }
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text_in in any::<String>(), ascii in any::<bool>()) {
            let mut json = serde_json::to_string(&text_in).unwrap();
            if ascii {
                // As Python writes it.
                json = json.chars().map(|c| match c {
                    c if c.is_ascii() => c.to_string(),
                    c => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
                }).collect();
            }
            prop_assert_eq!(text(&json), Ok(text_in));
        }
    }
}
