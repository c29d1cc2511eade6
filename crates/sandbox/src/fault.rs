//! The fault script: a list of steps that the following requests take one by one.

use std::collections::VecDeque;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::model::Endpoint;

/// One step of the fault script. A request takes the first step whose [`on`](Fault::on) matches it. A step that was
/// taken [`times`](Fault::times) times is removed. The default step has no effect on the requests that take it.
///
/// The fields can be combined. They apply in this order: `refuse`, `late_ms`, `delay_before_ms`, `reset: before`,
/// `revoke_tokens`, the platform itself or a scripted response (`code`, `status`, `html`, `body`), `delay_after_ms`,
/// `reset: after`, and changes to the response (`headers`, `expire`, `big_body`, `no_content_length`, `truncate`).
///
/// A request with a scripted response does not reach the platform unless [`after`](Fault::after) is set. Delays use
/// tokio's clock, so moving the sandbox's clock does not shorten them.
///
/// ```
/// use feishu_feed_card_sandbox::Fault;
///
/// fn main() -> serde_json::Result<()> {
///     let fault: Fault = serde_json::from_str(r#"{"on": "call", "times": 2, "status": 502, "html": true}"#)?;
///     assert_eq!(fault.times, 2);
///     assert!(serde_json::from_str::<Fault>(r#"{"on": "call", "statsu": 502}"#).is_err());
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is an independent fault with its own name in JSON"
)]
pub struct Fault {
    /// Which requests take this step.
    pub on: On,
    /// The number of requests that take this step. 0: all, until the script is cleared. Default: 1.
    pub times: u64,
    /// Delay before the request reaches the platform. If the client closes its connection during that time, the
    /// request does not reach the platform, unless `detached` is set.
    pub delay_before_ms: u64,
    /// Delay between the change of the platform's state and the response.
    pub delay_after_ms: u64,
    /// The request reaches the platform and changes its state even if the client closes its connection.
    pub detached: bool,
    /// The connection is reset (after `delay_before_ms`), and the request reaches the platform this much later, as
    /// behind a proxy with a queue. With a scripted response, the client gets that response instead of the reset, as
    /// from a gateway that does not wait for the platform any longer.
    pub late_ms: Option<u64>,
    /// The connection is accepted and closed at once. This is a new connection if the step is the first of the
    /// script when the connection is made, and otherwise the connection of the request that takes the step.
    pub refuse: bool,
    /// The connection is reset (RST) before or after the change of the platform's state.
    pub reset: Option<Reset>,
    /// The HTTP status of the response.
    #[serde(with = "status_number")]
    pub status: Option<StatusCode>,
    /// Headers of the response. They replace headers of the same name.
    #[serde(with = "header_map")]
    pub headers: HeaderMap,
    /// The exact body of the response. With `status` alone the body is empty.
    pub body: Option<String>,
    /// The response is an error with this code, in the form of the endpoint that the request is for. The HTTP
    /// status is the usual one for the code, unless `status` is given.
    pub code: Option<i64>,
    /// The `msg` of a response with `code`. Default: a usual one for the code.
    pub msg: Option<String>,
    /// The response is an HTML page, like one of a proxy.
    pub html: bool,
    /// The request reaches the platform before it gets the scripted response. With `status` alone, the response has
    /// the body of the platform's answer.
    pub after: bool,
    /// Only this many bytes of the body are sent, although `Content-Length` is that of the full body.
    pub truncate: Option<usize>,
    /// All tokens are revoked before the request reaches the platform.
    pub revoke_tokens: bool,
    /// The JSON body of the response is padded to this many bytes.
    pub big_body: Option<usize>,
    /// The response has no `Content-Length`.
    pub no_content_length: bool,
    /// The `expire` of a token response; null leaves it out. Does not change the life of the token.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub expire: Option<Value>,
}

impl Default for Fault {
    fn default() -> Self {
        Self {
            on: On::Any,
            times: 1,
            delay_before_ms: 0,
            delay_after_ms: 0,
            detached: false,
            late_ms: None,
            refuse: false,
            reset: None,
            status: None,
            headers: HeaderMap::new(),
            body: None,
            code: None,
            msg: None,
            html: false,
            after: false,
            truncate: None,
            revoke_tokens: false,
            big_body: None,
            no_content_length: false,
            expire: None,
        }
    }
}

impl Fault {
    /// A step for the next call of either interface.
    pub fn on_call() -> Self {
        Self {
            on: On::Call,
            ..Self::default()
        }
    }

    /// A step for the next request to a token endpoint.
    pub fn on_token() -> Self {
        Self {
            on: On::Token,
            ..Self::default()
        }
    }

    /// Whether the step has a scripted response.
    pub(crate) fn has_response(&self) -> bool {
        self.code.is_some() || self.status.is_some() || self.html || self.body.is_some()
    }
}

/// Which requests a step is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum On {
    /// All requests.
    #[default]
    Any,
    /// Calls of both interfaces.
    Call,
    /// Requests to the token endpoints.
    Token,
}

/// When a connection is reset. Over HTTP/2 this also ends the connection's other requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reset {
    /// Before the request reaches the platform.
    Before,
    /// After the platform's state has changed, instead of the response.
    After,
}

/// The remaining steps.
#[derive(Debug, Default)]
pub(crate) struct Script(VecDeque<Fault>);

impl Script {
    pub(crate) fn extend(&mut self, faults: impl IntoIterator<Item = Fault>) {
        self.0.extend(faults);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn steps(&self) -> Vec<Fault> {
        self.0.iter().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn next(&mut self, endpoint: &Endpoint) -> Option<Fault> {
        let index = self.0.iter().position(|step| match step.on {
            On::Any => true,
            On::Call => endpoint.interface().is_some(),
            On::Token => endpoint.is_token(),
        })?;
        self.take(index)
    }

    /// Whether a new connection is closed at once. Takes the step that does so.
    pub(crate) fn refuses_connection(&mut self) -> bool {
        let refuses = self.0.front().is_some_and(|step| step.refuse);
        refuses && self.take(0).is_some()
    }

    fn take(&mut self, index: usize) -> Option<Fault> {
        let step = self.0.get_mut(index)?;
        match step.times {
            0 => Some(step.clone()),
            1 => self.0.remove(index),
            _ => {
                step.times -= 1;
                Some(step.clone())
            }
        }
    }
}

/// Makes `null` a value, so that it differs from a missing field.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

mod status_number {
    use super::{Deserialize, Deserializer, Serializer, StatusCode};
    use serde::de::Error;

    #[allow(
        clippy::ref_option,
        clippy::trivially_copy_pass_by_ref,
        reason = "serde requires this signature"
    )]
    pub(super) fn serialize<S: Serializer>(
        status: &Option<StatusCode>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match status {
            Some(status) => serializer.serialize_some(&status.as_u16()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<StatusCode>, D::Error> {
        let number = Option::<u16>::deserialize(deserializer)?;
        // A 1xx response is not the final response to a request.
        number
            .map(|number| match StatusCode::from_u16(number) {
                Ok(status) if !status.is_informational() => Ok(status),
                _ => Err(D::Error::custom(format_args!(
                    "status: expected a number from 200 to 999, got {number}"
                ))),
            })
            .transpose()
    }
}

mod header_map {
    use std::collections::BTreeMap;

    use super::{Deserialize, Deserializer, HeaderMap, HeaderName, HeaderValue, Serializer};
    use serde::de::Error;

    pub(super) fn serialize<S: Serializer>(headers: &HeaderMap, serializer: S) -> Result<S::Ok, S::Error> {
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        };
        serializer.collect_map(headers.iter().map(text))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HeaderMap, D::Error> {
        let headers = BTreeMap::<String, String>::deserialize(deserializer)?;
        headers
            .into_iter()
            .map(
                |(name, value)| match (HeaderName::try_from(&name), HeaderValue::try_from(&value)) {
                    (Ok(name), Ok(value)) => Ok((name, value)),
                    _ => Err(D::Error::custom(format_args!(
                        "headers: invalid name or value: {name:?}: {value:?}"
                    ))),
                },
            )
            .collect()
    }
}
