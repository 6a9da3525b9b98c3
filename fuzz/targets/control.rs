//! Control messages of the WebSocket protocol, read at either end.

#![no_main]

use gateway_transport_ws::protocol::{GatewayMessage, RunnerMessage, RunnerStatus};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // A text frame that is no UTF-8 does not come so far.
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(message) = RunnerMessage::parse(text) {
        match &message {
            RunnerMessage::Register(register) => {
                let _ = (register.spec(), register.status.to_core());
            }
            RunnerMessage::Heartbeat(status) | RunnerMessage::StatusUpdate(status) => drop(status.to_core()),
            RunnerMessage::CommandResponse(response) => drop(response.reply()),
        }
        assert!(RunnerMessage::parse(&message.to_text()).is_ok(), "{message:?}");
    }
    if let Ok(message) = GatewayMessage::parse(text) {
        assert_eq!(GatewayMessage::parse(&message.to_text()).ok(), Some(message));
    }
    let _ = serde_json::from_str::<RunnerStatus>(text).map(|status| status.to_core());
});
