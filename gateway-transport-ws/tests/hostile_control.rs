//! Control messages from peers that are broken or mean no good: none makes a decoder panic, and none costs more memory
//! than a stated multiple of its length.

mod hostile_support;

use gateway_transport_ws::protocol::{GatewayMessage, RunnerMessage, RunnerStatus};
use gateway_transport_ws::socket::MESSAGE_BYTES;
use hostile_support::{Harm, bytes, cases, harm, harmed, json};
use proptest::prelude::*;

/// Bytes held at once for each byte of a message while it is read and made into what the gateway works with, and what
/// an error costs besides. The worst is a list of empty objects where entries may be skipped: three bytes become a
/// value of JSON each, and the list grows by doubling.
const PER_BYTE: u64 = 64;
const BESIDES: u64 = 16 * 1024;

const REGISTER: &str = r#"{"type":"register","runner_id":"gpu-1","runner_name":"GPU one","machine_type":"gpu-server",
"http_port":8081,"protocol_version":1,"auth_token":"secret","status":{"health":"healthy","capabilities":[{"capability":
"fast_chat","status":{"status":"loading","progress":0.5},"model_id":"a:7b","active_requests":2,"avg_latency_ms":12.5,
"metadata":{"any":["thing"]}}],"engines":[{"engine_type":"llama_cpp","is_healthy":true,"version":"b1","loaded_models":
["b:1b"],"available_models":[{"id":"b:1b","name":"B","size_bytes":10,"parameter_count":20,"context_length":4096,
"quantization":"Q4","modified_at":"2024-02-29T10:30:05Z","reasoning":{"supported_efforts":["low"],
"supports_thinking_budget":true,"default_effort":"low"}}],"error":null,"batch_size":4}],"metrics":{"cpu_percent":3},
"model_aliases":{"a":"a:7b","b":"b:1b"},"load":{"active":1,"queued":2}},"mac_address":"AA:BB:CC:DD:EE:FF","slots":4,
"labels":{"zone":"eu"},"tunnel":{"version":1,"max_streams":64}}"#;

const SOUND: [&str; 9] = [
    REGISTER,
    r#"{"type":"heartbeat","health":"healthy","capabilities":[],"engines":[],"model_aliases":{}}"#,
    r#"{"type":"command_response","request_id":"1","success":false,"error":"no","status":null}"#,
    r#"{"type":"register_ack","runner_id":"gpu-1","tunnel":{"version":1,"max_streams":64}}"#,
    r#"{"type":"load_model","model_id":"m","request_id":"1"}"#,
    r#"{"type":"unload_model","model_id":"m","request_id":"1"}"#,
    r#"{"type":"request_status","request_id":"1"}"#,
    r#"{"type":"ping","timestamp":7}"#,
    r#"{"type":"error","code":"AUTH_FAILED","message":"no"}"#,
];

/// Everything that is done with a text frame at either end.
fn read(text: &str) {
    if let Ok(message) = RunnerMessage::parse(text) {
        match &message {
            RunnerMessage::Register(register) => {
                let _ = format!("{register:?}");
                let _ = register.spec();
                to_core(&register.status);
            }
            RunnerMessage::Heartbeat(status) | RunnerMessage::StatusUpdate(status) => to_core(status),
            RunnerMessage::CommandResponse(response) => {
                response.status.iter().for_each(to_core);
                let _ = response.reply();
            }
        }
        let again = RunnerMessage::parse(&message.to_text());
        assert!(again.is_ok(), "what was read is written so that it can be read: {message:?}");
    }
    if let Ok(message) = GatewayMessage::parse(text) {
        assert_eq!(GatewayMessage::parse(&message.to_text()).expect("it was just written"), message);
    }
    if let Ok(status) = serde_json::from_str::<RunnerStatus>(text) {
        to_core(&status);
    }
}

fn to_core(status: &RunnerStatus) {
    let core = status.to_core();
    assert!(core.models.len() <= 4096 && core.capabilities.len() <= 4096);
}

/// Reads with an eye on memory.
fn look(text: &str) {
    let used = allocation_counter::measure(|| read(text));
    let allowed = text.len() as u64 * PER_BYTE + BESIDES;
    assert!(used.bytes_max <= allowed, "{} bytes for {} of text", used.bytes_max, text.len());
    assert_eq!(used.bytes_current, 0, "nothing stays");
}

proptest! {
    #![proptest_config(cases(4096))]

    #[test]
    fn any_bytes(bytes in bytes(2048)) {
        look(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_json(json in json()) {
        look(&json);
    }

    #[test]
    fn sound_messages_that_are_harmed(
        sound in prop::sample::select(&SOUND[..]), harms in prop::collection::vec(harm(), 1..6),
    ) {
        let harms: &[Harm] = &harms;
        look(&String::from_utf8_lossy(&harmed(sound, harms)));
    }
}

/// Messages as long as they may be, made to cost as much as can be.
#[test]
fn the_longest_ones_cost_their_multiple_and_no_more() {
    let fill = |before: &str, item: &str, after: &str| {
        let times = (MESSAGE_BYTES - before.len() - after.len()) / item.len();
        format!("{before}{}{after}", item.repeat(times))
    };
    let status = r#"{"type":"heartbeat","health":"healthy","#;
    for text in [
        fill("", "[", ""),
        fill("", r#"{"type":"#, ""),
        fill(r#"{"type":"ping","timestamp":"#, "9", "}"),
        fill(r#"{"x":["#, "0,", r#"0],"type":"ping","timestamp":1}"#),
        fill(r#"{"x":["#, "{},", r#"0],"type":"ping","timestamp":1}"#),
        fill(&format!(r#"{status}"engines":[],"capabilities":["#), "{},", "0]}"),
        fill(&format!(r#"{status}"engines":[],"capabilities":["#), "0,", "0]}"),
        fill(&format!(r#"{status}"engines":[],"capabilities":["#), r#"[[]],"#, "0]}"),
        fill(&format!(r#"{status}"capabilities":[],"engines":["#), "[],", "0]}"),
        fill(
            &format!(
                r#"{status}"capabilities":[],"engines":[{{"engine_type":"x","is_healthy":true,"loaded_models":["#
            ),
            r#""a","#,
            r#""b"]}]}"#,
        ),
        fill(
            &format!(r#"{status}"engines":[],"capabilities":[],"model_aliases":{{"#),
            r#""a":"b","#,
            r#""c":"d"}}"#,
        ),
        fill(r#"{"type":"error","code":"","message":""#, r"\u0041", r#""}"#),
        fill(r#"{"type":""#, "x", r#""}"#),
        fill("", "\u{feff}", ""),
    ] {
        assert!(text.len() <= MESSAGE_BYTES);
        look(&text);
    }
}

/// So many distinct short names, quoted.
fn names(prefix: char, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |number| format!("\"{prefix}{number:x}\""))
}

fn list(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(",")
}

fn engine(error: &str, loaded: &str, aliases: &str) -> String {
    let text = format!(
        r#"{{"type":"heartbeat","health":"healthy","capabilities":[],"engines":[{{"engine_type":"x",
        "is_healthy":false,"error":"{error}","loaded_models":[{loaded}]}}],"model_aliases":{{{aliases}}}}}"#
    );
    assert!(text.len() <= MESSAGE_BYTES, "{}", text.len());
    text
}

#[test]
fn one_long_error_is_not_kept_for_each_of_many_models() {
    look(&engine(&"x".repeat(600_000), &list(names('m', 40_000)), ""));
}

/// Would take minutes if every name were looked for among all aliases.
#[test]
fn many_names_and_many_aliases_are_not_multiplied() {
    let (loaded, other) =
        (|| list(names('m', 50_000)), list(names('x', 30_000).map(|name| format!("{name}:{name}"))));
    look(&engine("", &loaded(), &other));
    // All of them stand for one name, which is there time and again.
    let same = list(names('x', 30_000).map(|name| format!("{name}:\"m\"")));
    look(&engine("", &list(std::iter::repeat_n("\"m\"".to_owned(), 100_000)), &same));
}
