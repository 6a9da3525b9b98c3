//! Connections that change to another protocol, such as WebSocket.

use http::HeaderValue;

/// Asks a runner to change to another protocol. It is found among the extensions of a
/// [`LinkRequest`](crate::LinkRequest) that goes to a link which [can](crate::LinkAbilities::upgrades).
///
/// Such a link asks with `connection: upgrade` and this value as `upgrade`, and with no body. If the runner answers
/// 101, the answer's body is what it sends from then on, and the request's body is what goes to it: bytes of
/// the other protocol in both directions, as they come. The answer ends when the runner's side does. The
/// runner's `upgrade` header stays in the answer: it says which of several protocols it chose. With any other
/// status the request's body is not touched.
///
/// ```
/// use gateway_core::UpgradeTo;
/// use http::HeaderValue;
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(UpgradeTo(HeaderValue::from_static("websocket")));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeTo(pub HeaderValue);
