//! What a peer may send who means no good, or is broken; and how to see that nothing panics.
#![allow(dead_code, missing_docs, unreachable_pub)] // Every test file uses its own part.

use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// So many cases, or a multiple of them: `HOSTILE_TIMES=100` makes a long run of every test here.
pub fn cases(usual: u32) -> Config {
    let times = std::env::var("HOSTILE_TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    // Failures are to be pinned by tests of their own, not by files.
    Config { cases: usual.saturating_mul(times), failure_persistence: None, ..Config::default() }
}

/// Runs a property that is no closure of the macro's: one that keeps things from case to case.
pub fn each<S: Strategy>(usual: u32, strategy: S, mut look: impl FnMut(S::Value)) {
    let look = std::cell::RefCell::new(&mut look);
    let tried = TestRunner::new(cases(usual)).run(&strategy, |value| {
        PANICS.store(0, Ordering::SeqCst);
        (look.borrow_mut())(value);
        Ok(())
    });
    tried.unwrap_or_else(|failed| panic!("{failed}"));
}

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// A panic in a task is told to whoever awaits it, and here nobody does.
pub fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            usual(panic);
        }));
    });
}

pub fn no_panics() {
    assert_eq!(PANICS.load(Ordering::SeqCst), 0, "something panicked on the way");
}

/// Any bytes, and runs of one byte.
pub fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..most),
        1 => (any::<u8>(), 0..most).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

/// Any JSON, a few levels deep, with numbers and names that programs trip over.
pub fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|it| it.to_string()),
        any::<i64>().prop_map(|it| it.to_string()),
        any::<f64>().prop_map(|it| format!("{it:e}")),
        Just("1e999".to_owned()),
        Just("-0".to_owned()),
        Just("18446744073709551616".to_owned()),
        "\\PC{0,12}".prop_map(|it| serde_json::Value::from(it).to_string()),
        Just(r#""\ud800""#.to_owned()),
        Just(r#""\u0000""#.to_owned()),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((name(), inner), 0..5).prop_map(|members| {
                let members: Vec<_> =
                    members.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

/// Names that mean something to the protocol, and any others.
pub fn name() -> impl Strategy<Value = String> {
    const NAMES: [&str; 36] = [
        "type",
        "runner_id",
        "runner_name",
        "machine_type",
        "http_port",
        "protocol_version",
        "auth_token",
        "status",
        "mac_address",
        "slots",
        "labels",
        "tunnel",
        "version",
        "max_streams",
        "health",
        "capabilities",
        "engines",
        "metrics",
        "model_aliases",
        "capability",
        "model_id",
        "active_requests",
        "avg_latency_ms",
        "metadata",
        "engine_type",
        "is_healthy",
        "loaded_models",
        "available_models",
        "error",
        "batch_size",
        "request_id",
        "success",
        "timestamp",
        "code",
        "message",
        "progress",
    ];
    prop_oneof![4 => prop::sample::select(&NAMES[..]).prop_map(str::to_owned), 1 => "[a-z]{0,6}"]
}

/// What is done to a sound message.
#[derive(Debug, Clone)]
pub enum Harm {
    Cut(prop::sample::Index),
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, String),
    /// A value is put in the place of what stands behind some colon.
    Replace(prop::sample::Index, String),
    Repeat(prop::sample::Index, prop::sample::Index, u8),
}

pub fn harm() -> impl Strategy<Value = Harm> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        1 => at().prop_map(Harm::Cut),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Harm::Flip(at, byte)),
        2 => (at(), json()).prop_map(|(at, json)| Harm::Insert(at, json)),
        6 => (at(), json()).prop_map(|(at, json)| Harm::Replace(at, json)),
        1 => (at(), at(), any::<u8>()).prop_map(|(from, to, times)| Harm::Repeat(from, to, times)),
    ]
}

/// The message with all of it done, as bytes.
pub fn harmed(sound: &str, harms: &[Harm]) -> Vec<u8> {
    let mut text = sound.as_bytes().to_vec();
    for harm in harms {
        if text.is_empty() {
            break;
        }
        match harm {
            Harm::Cut(at) => text.truncate(at.index(text.len())),
            Harm::Flip(at, byte) => {
                let at = at.index(text.len());
                text[at] ^= byte;
            }
            Harm::Insert(at, json) => {
                let at = at.index(text.len());
                text.splice(at..at, json.bytes());
            }
            Harm::Replace(at, json) => {
                let colons: Vec<_> = (0..text.len()).filter(|at| text[*at] == b':').collect();
                if !colons.is_empty() {
                    let from = colons[at.index(colons.len())] + 1;
                    let end = value_end(&text[from..]);
                    text.splice(from..from + end, json.bytes());
                }
            }
            Harm::Repeat(from, to, times) => {
                let (from, to) = (from.index(text.len()), to.index(text.len()));
                let part = text[from.min(to)..from.max(to)].to_vec();
                let part = part.repeat(usize::from(*times % 8));
                text.splice(from..from, part);
            }
        }
    }
    text
}

/// Where a JSON value ends, near enough.
fn value_end(text: &[u8]) -> usize {
    let (mut depth, mut quoted) = (0_i32, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

/// A frame of HTTP/2, sound or not.
pub fn http2_frame() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![8 => 0..10_u8, 1 => any::<u8>()];
    let stream = prop_oneof![4 => 0..9_u32, 1 => any::<u32>()];
    let payload = prop_oneof![
        3 => bytes(64),
        1 => bytes(2048),
        // Settings and window updates that mean something.
        2 => (0..8_u16, any::<u32>()).prop_map(|(id, value)| {
            [id.to_be_bytes().as_slice(), value.to_be_bytes().as_slice()].concat()
        }),
        2 => any::<u32>().prop_map(|value| value.to_be_bytes().to_vec()),
        1 => Just(Vec::new()),
        // `:status: 200`, and what comes after it.
        2 => bytes(32).prop_map(|rest| [&[0x88][..], &rest].concat()),
    ];
    let lie = prop_oneof![9 => Just(0_i32), 1 => -40..40_i32];
    (kind, any::<u8>(), stream, payload, lie).prop_map(|(kind, flags, stream, payload, lie)| {
        let len = u32::try_from(payload.len()).unwrap().saturating_add_signed(lie);
        let mut frame = len.to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    })
}

/// Bytes where HTTP/2 is expected: frames mostly, with or without the settings that come first.
pub fn http2() -> impl Strategy<Value = Vec<u8>> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let frames = || prop::collection::vec(http2_frame(), 0..24).prop_map(|frames| frames.concat());
    let begun = frames().prop_map(|frames: Vec<u8>| [&SETTINGS[..], &frames].concat());
    prop_oneof![6 => begun, 2 => frames(), 2 => bytes(4096)]
}

/// The beginning of HTTP/2 as a client has it, and whatever.
pub fn http2_client() -> impl Strategy<Value = Vec<u8>> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    prop_oneof![4 => http2().prop_map(|rest| [PREFACE, &rest].concat()), 1 => http2()]
}

/// A binary message is cut into frames of the WebSocket anywhere.
pub fn in_pieces(bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| bytes[cut[0]..cut[1]].to_vec()).collect()
}
