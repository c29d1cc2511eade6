//! What shall go wrong: a script whose steps are taken one by one by the requests to come.

use std::collections::VecDeque;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::model::Endpoint;

/// One step of the script. A request takes the first step that is [`on`](Fault::on) its kind; a step that
/// was taken [`times`](Fault::times) times is gone. A step that says nothing lets its requests pass.
///
/// The fields combine, in the order in which a request meets them: `refuse`, `late_ms`, `delay_before_ms`,
/// `reset: before`, an answer of the script's own (`code`, `status`, `html`, `body`), `revoke_tokens`, the
/// platform itself, `delay_after_ms`, `reset: after`, and what is done to the answer on its way out
/// (`headers`, `expire`, `big_body`, `no_content_length`, `truncate`).
///
/// With an answer of the script's own the platform does not see the request, unless
/// [`after`](Fault::after) is set. Delays run on tokio's clock; moving the sandbox's clock does not shorten
/// them.
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
    reason = "each is one thing that may go wrong, told apart by name in JSON"
)]
pub struct Fault {
    /// Which requests take this step.
    pub on: On,
    /// How many take it; 0 for all, until the script is replaced.
    pub times: u64,
    /// Time that passes before the platform sees the request. A client that closes its connection meanwhile
    /// has recalled the request, unless `detached` is set.
    pub delay_before_ms: u64,
    /// Time between the change of state and the answer.
    pub delay_after_ms: u64,
    /// The request reaches the platform, and changes its state, also when the client has gone.
    pub detached: bool,
    /// The connection is reset (after `delay_before_ms`), and yet the request reaches the platform this much
    /// later: what a proxy with a queue does. With an answer of the script's own, the client gets that answer
    /// instead of the reset: what a gateway does that stops waiting for the platform.
    pub late_ms: Option<u64>,
    /// The connection is accepted and closed at once: a new connection if this is the script's next step
    /// when it comes, else the one on which a request takes it.
    pub refuse: bool,
    /// The connection is reset (RST) before or after the state changed.
    pub reset: Option<Reset>,
    /// The answer's HTTP status.
    #[serde(with = "status_number")]
    pub status: Option<StatusCode>,
    /// Headers added to the answer, in place of those of the same name.
    #[serde(with = "header_map")]
    pub headers: HeaderMap,
    /// The answer's body, as it is. Empty where only `status` is given.
    pub body: Option<String>,
    /// An answer with this code in the gateway's form (of the token endpoints' form to a token call), with
    /// the status that goes with it unless `status` is given.
    pub code: Option<i64>,
    /// The `msg` that goes with `code`.
    pub msg: Option<String>,
    /// An HTML page, as a proxy makes it.
    pub html: bool,
    /// The platform sees the request before it gets the script's own answer. With `status` alone the
    /// platform's answer keeps its body.
    pub after: bool,
    /// Only this many bytes of the body are sent, under the full `Content-Length`.
    pub truncate: Option<usize>,
    /// Every token is revoked before the platform sees the request.
    pub revoke_tokens: bool,
    /// The JSON answer is padded to this many bytes.
    pub big_body: Option<usize>,
    /// The answer goes without a `Content-Length`.
    pub no_content_length: bool,
    /// A token answer's `expire`; null leaves it out. The token itself lives as long as it would.
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
    /// A step for the next request to one of the two calls.
    pub fn on_call() -> Self {
        Self {
            on: On::Call,
            ..Self::default()
        }
    }

    /// A step for the next request for a token.
    pub fn on_token() -> Self {
        Self {
            on: On::Token,
            ..Self::default()
        }
    }

    /// Whether the script has an answer of its own.
    pub(crate) fn answers(&self) -> bool {
        self.code.is_some() || self.status.is_some() || self.html || self.body.is_some()
    }
}

/// Which requests a step is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum On {
    /// Whatever comes.
    #[default]
    Any,
    /// The two calls.
    Call,
    /// The token calls.
    Token,
}

/// When a connection is reset. Over HTTP/2 its other requests end with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reset {
    /// The platform never sees the request.
    Before,
    /// The state has changed, the client is not told.
    After,
}

/// The steps that are left.
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

    /// Whether a connection that comes now shall be closed at once.
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

/// Tells `null` from nothing.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

mod status_number {
    use super::{Deserialize, Deserializer, Serializer, StatusCode};
    use serde::de::Error;

    #[allow(
        clippy::ref_option,
        clippy::trivially_copy_pass_by_ref,
        reason = "serde calls it so"
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
        // An informational answer is no answer.
        number
            .map(|number| match StatusCode::from_u16(number) {
                Ok(status) if !status.is_informational() => Ok(status),
                _ => Err(D::Error::custom(format_args!(
                    "status: {number} is not between 200 and 999"
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
                        "headers: {name:?}: {value:?} is not a header"
                    ))),
                },
            )
            .collect()
    }
}
