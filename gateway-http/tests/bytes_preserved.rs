//! What reaches the runner is what the client sent; at most the model's name is another.

mod common;

use common::*;
use gateway_core::{Model, RunnerId, RunnerSpec, RunnerStatus};
use gateway_http::Gateway;
use proptest::prelude::*;

/// Any JSON value as text, with odd spacing, escapes and number forms that a parser would not give back.
fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("-0.10e+2".to_owned()),
        Just("123456789012345678901234567890".to_owned()),
        Just(r#""\u0041\/\ud83d\ude00""#.to_owned()),
        "[a-zäöü {}\\[\\]:,]{0,12}".prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|all| format!("[ {} ]", all.join(" ,\n"))),
            prop::collection::vec(("[a-z]{0,6}|model", inner), 0..5).prop_map(|all| {
                let fields: Vec<_> = all.iter().map(|(key, value)| format!("\"{key}\" :\t{value}")).collect();
                format!("{{{}}}", fields.join(" , "))
            }),
        ]
    })
}

/// An object with any fields, `model` among them, and where the model's value stands in it.
fn body(value: &'static str) -> impl Strategy<Value = (String, std::ops::Range<usize>)> {
    let fields = prop::collection::vec(("x[a-z]{0,6}", json_text()), 0..6);
    (fields, any::<prop::sample::Index>(), "[ \n\t\r]{0,3}").prop_map(move |(fields, at, space)| {
        let at = at.index(fields.len() + 1);
        let mut text = format!("{space}{{");
        let mut found = 0..0;
        for place in 0..=fields.len() {
            let separator = if place == 0 { "" } else { "," };
            text.push_str(separator);
            text.push_str(&space);
            let index = if place > at { place - 1 } else { place };
            if place == at {
                text.push_str(&format!("\"model\"{space}:{space}"));
                found = text.len()..text.len() + value.len();
                text.push_str(value);
            } else {
                let (key, value) = &fields[index];
                text.push_str(&format!("\"{key}\":{value}"));
            }
            text.push_str(&space);
        }
        text.push('}');
        text.push_str(&space);
        (text, found)
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn seen_by_runner(gateway: &Gateway, link: &Mock, text: &str) -> bytes::Bytes {
    let answer = runtime().block_on(whole(gateway, chat(text.to_owned())));
    assert_eq!(answer.status, 200, "{text}: {answer:?}");
    link.last().body
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn without_an_alias_not_a_byte_changes((text, _) in body(r#""org\/m\u00fc""#)) {
        let link = Mock::ok();
        let gateway = builder().build().unwrap();
        join(&gateway, "r1", &["org/mü"], &link);
        prop_assert_eq!(seen_by_runner(&gateway, &link, &text), text.as_bytes());
    }

    #[test]
    fn with_an_alias_the_name_alone_changes((text, at) in body(r#""big""#)) {
        let link = Mock::ok();
        let gateway = builder().build().unwrap();
        let local = Model::loaded(model("big")).with_local_name(model(r#"C:\models\"big".gguf"#));
        let status = RunnerStatus { models: vec![local], ..RunnerStatus::serving([]) };
        join_with(&gateway, RunnerSpec::new(RunnerId::new("r1").unwrap()), status, &link);
        let expected = format!(r#"{}"C:\\models\\\"big\".gguf"{}"#, &text[..at.start], &text[at.end..]);
        prop_assert_eq!(seen_by_runner(&gateway, &link, &text), expected.as_bytes());
    }
}

#[tokio::test]
async fn an_answer_s_bytes_are_passed_on_as_they_are() {
    let link = Mock::new(|_| async {
        let mut response = http::Response::new(gateway_core::LinkBody::full(&b"\x00\xff not json \r\n"[..]));
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("audio/mpeg"));
        Ok(response)
    });
    let gateway = with_runner(&link);
    let answer = whole(&gateway, chat(r#"{"model":"m"}"#)).await;
    assert_eq!(&answer.body[..], b"\x00\xff not json \r\n");
    assert_eq!(answer.header("content-type"), Some("audio/mpeg"));
}
