//! Reading an answer: bytes, status and headers in, one of four verdicts out.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::codes::{self, Replay};
use crate::error::{ConnectionReason, Error, ErrorKind, FieldViolation, PermissionViolation, Station};
use crate::outcome::FailedUserReason;
use crate::secret::{self, Mask};
use crate::token::BoxError;
use crate::transport::{Fault, Peer, TransportError, causes};

/// The content type of every request (the platform's page).
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

// Made once: looking a header up by a text parses that first.
const TT_LOGID: HeaderName = HeaderName::from_static("x-tt-logid");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// No answer of the platform is near this size; one that is comes from something else.
pub(crate) const MOST_BYTES: usize = 1024 * 1024;

/// The platform's answers nest five deep at most.
const DEEPEST: usize = 32;

/// Nobody means more than this, and no clock overflows by it.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// How much of an answer that is not the platform's an error shows.
const EXCERPT: usize = 200;

/// What an answer says.
#[derive(Debug)]
pub(crate) enum Reading<T> {
    /// `code` 0, with the call's own data.
    Success { data: T, log_id: Option<String> },
    /// Anything else.
    Failure(Failure),
}

/// An answer that is not a success.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) replay: Replay,
    /// How long the platform says to wait.
    pub(crate) wait: Option<Duration>,
    /// The platform's own limit, where it tells one.
    pub(crate) limit: Option<u32>,
    /// Whether the platform has spoken. Something in between (a proxy's 504) says nothing of whether
    /// the request arrived, or of when.
    pub(crate) from_platform: bool,
}

/// What an answer carries where it is a success.
pub(crate) trait Data: DeserializeOwned {
    /// Success is 0, whatever the status (FACTS: the gateway).
    fn code(&self) -> i64;
}

#[derive(Deserialize)]
struct Envelope {
    code: i64,
}

/// `data` of both calls; absent, null and `{}` all mean that nobody failed (FACTS: the call).
#[derive(Debug, Default, Deserialize)]
pub(crate) struct CallData {
    code: i64,
    #[serde(default)]
    data: Option<FailedUsers>,
}

impl Data for CallData {
    fn code(&self) -> i64 {
        self.code
    }
}

#[derive(Debug, Default, Deserialize)]
struct FailedUsers {
    #[serde(default)]
    failed_user_reasons: Option<Vec<Reason>>,
}

#[derive(Debug, Deserialize)]
struct Reason {
    #[serde(default)]
    error_code: Option<i64>,
    #[serde(default)]
    error_message: Option<String>,
    #[serde(default)]
    user_id: Option<String>,
}

impl Reading<CallData> {
    /// A success may repeat a secret as well.
    pub(crate) fn masked(mut self, mask: Mask<'_>) -> Self {
        if let Self::Success { data, log_id } = &mut self {
            let mask = |text: &mut String| {
                mask(text);
                secret::mask_basic(text);
            };
            log_id.iter_mut().for_each(mask);
            let reasons = data
                .data
                .as_mut()
                .and_then(|data| data.failed_user_reasons.as_mut());
            for reason in reasons.into_iter().flatten() {
                reason.error_message.iter_mut().for_each(mask);
                reason.user_id.iter_mut().for_each(mask);
            }
        }
        self
    }
}

impl CallData {
    pub(crate) fn into_reasons(self) -> Vec<FailedUserReason> {
        let reasons = self
            .data
            .and_then(|data| data.failed_user_reasons)
            .unwrap_or_default();
        reasons
            .into_iter()
            .map(|reason| FailedUserReason {
                error_code: reason.error_code.unwrap_or_default(),
                error_message: reason.error_message.unwrap_or_default(),
                user_id: reason.user_id.filter(|id| !id.is_empty()),
            })
            .collect()
    }
}

/// Reads an answer whose success carries a `T`. A server or a proxy may echo what it
/// was sent, so `mask` takes the secrets out of every text an error keeps.
pub(crate) fn read<T: Data>(response: &Response<Bytes>, mask: Mask<'_>) -> Reading<T> {
    read_quoting(response, mask, true)
}

/// Like [`read`], for an answer that may carry a secret nobody knows yet: a 2xx that cannot be read is not
/// quoted.
pub(crate) fn read_secret<T: Data>(response: &Response<Bytes>, mask: Mask<'_>) -> Reading<T> {
    read_quoting(response, mask, !response.status().is_success())
}

fn read_quoting<T: Data>(response: &Response<Bytes>, mask: Mask<'_>, quote: bool) -> Reading<T> {
    let body = &response.body()[..];
    let fault = if nests_deeper_than(body, DEEPEST) {
        "the answer nests too deep".to_owned()
    } else if !body.trim_ascii_start().starts_with(b"{") {
        // serde would read a list as well, its elements as fields in their order.
        "not an answer of the platform: no JSON object".to_owned()
    } else {
        let data = serde_json::from_slice::<T>(body);
        // Only a success has to carry what was asked for.
        let code = match &data {
            Ok(data) => Ok(data.code()),
            Err(_) => serde_json::from_slice::<Envelope>(body).map(|envelope| envelope.code),
        };
        match (code, data) {
            (Ok(0), Ok(data)) => {
                return Reading::Success {
                    data,
                    log_id: log_id(response, None),
                };
            }
            (Ok(0), Err(error)) => format!("the answer's data cannot be read: {error}"),
            (Ok(code), _) => return Reading::Failure(refusal(response, code, mask)),
            (Err(error), _) => format!("not an answer of the platform: {error}"),
        }
    };
    let shown = if quote {
        format!("{fault}: {}", excerpt(response.body(), mask))
    } else {
        format!("an answer of {} bytes cannot be read", body.len())
    };
    Reading::Failure(unreadable(response, shown, mask))
}

fn refusal(response: &Response<Bytes>, code: i64, mask: Mask<'_>) -> Failure {
    let status = response.status();
    let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    let msg = body["msg"].as_str().map(str::to_owned);
    let known = codes::lookup(code);
    let (kind, replay, hint) = match &known {
        Some(known) => (known.kind, known.replay, known.hint),
        None if status.is_server_error() => (
            ErrorKind::Server,
            Replay::Backoff,
            "The platform failed: call again later",
        ),
        None => (
            ErrorKind::Rejected,
            Replay::No,
            "The platform refused the call: its msg says why",
        ),
    };
    let permission = permission_violations(&body);
    let fields = field_violations(&body);
    let hint = specific_hint(&permission, &fields).map_or(Cow::Borrowed(hint), Cow::Owned);
    let headers = response.headers();
    let wait = told_wait(headers);
    let said = msg.as_deref().filter(|msg| !msg.is_empty()).unwrap_or("no msg");
    let error = Error::new(kind, format!("the platform said: {said}"))
        .with_platform(Some(code), msg.clone(), status.as_u16())
        .with_log_id(log_id(response, Some(&body)))
        .with_hint(hint)
        .with_retry_after(wait)
        .with_violations(permission, fields)
        .with_station(Station::Answer)
        .without_secrets(mask);
    Failure {
        error,
        replay,
        wait,
        limit: known.as_ref().and_then(|_| told_limit(headers)),
        // A proxy has codes of its own, as in {"code":504}.
        from_platform: known.is_some() || !status.is_server_error(),
    }
}

/// An answer that is not the platform's: the status is all there is to go by.
fn unreadable(response: &Response<Bytes>, message: String, mask: Mask<'_>) -> Failure {
    let status = response.status();
    let (kind, replay, hint) = by_status(status);
    let wait = told_wait(response.headers());
    let error = Error::new(kind, message)
        .with_platform(None, None, status.as_u16())
        .with_log_id(log_id(response, None))
        .with_hint(hint)
        .with_retry_after(wait)
        .with_station(Station::Answer)
        .without_secrets(mask);
    Failure {
        error,
        replay,
        wait,
        limit: None,
        from_platform: !status.is_server_error(),
    }
}

fn by_status(status: StatusCode) -> (ErrorKind, Replay, &'static str) {
    if status.is_server_error() {
        (
            ErrorKind::Server,
            Replay::Backoff,
            "The platform, or a proxy before it, failed: call again later",
        )
    } else if status == StatusCode::TOO_MANY_REQUESTS {
        (
            ErrorKind::RateLimited,
            Replay::Pause,
            "The platform, or a proxy before it, says to slow down",
        )
    } else if status.is_redirection() {
        (
            ErrorKind::UnexpectedResponse,
            Replay::No,
            "Redirects are not followed, as they would carry the token elsewhere: check base_url",
        )
    } else {
        (
            ErrorKind::UnexpectedResponse,
            Replay::No,
            "Something else than the platform answered: check base_url and the proxy",
        )
    }
}

/// The first bytes of a body, so that whoever reads the error sees whose page it was.
fn excerpt(body: &[u8], mask: Mask<'_>) -> String {
    if body.is_empty() {
        return "the body is empty".to_owned();
    }
    // Masked before it is cut: half a token would not be recognised.
    let mut text = String::from_utf8_lossy(body).into_owned();
    mask(&mut text);
    let ends = text
        .char_indices()
        .map(|(start, character)| start + character.len_utf8());
    let end = ends.take_while(|end| *end <= EXCERPT).last().unwrap_or(0);
    let more = if text.len() > end { "…" } else { "" };
    format!("{:?}{more}", &text[..end])
}

/// Whether brackets nest deeper than `most`. Without building anything: serde skips unknown fields
/// however deep they are.
fn nests_deeper_than(body: &[u8], most: usize) -> bool {
    // Each level is opened and closed, or it is no JSON: most answers are too short for so many.
    if body.len() <= 2 * most {
        return false;
    }
    let openings = body.iter().filter(|byte| matches!(byte, b'[' | b'{'));
    if openings.count() <= most {
        return false;
    }
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut bytes = body.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            // Only strings have escapes; elsewhere it is no JSON, and found so when it is read.
            b'\\' => {
                bytes.next();
            }
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > most {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// `X-Tt-Logid` first, then the body's own, then `X-Request-Id` (FACTS: the gateway).
fn log_id(response: &Response<Bytes>, body: Option<&Value>) -> Option<String> {
    let header = |name: &HeaderName| plausible(response.headers().get(name)?.to_str().ok()?);
    let in_body = |value: &Value| {
        value.as_object()?.iter().find_map(|(key, value)| {
            let is_log_id = key.eq_ignore_ascii_case("log_id") || key.eq_ignore_ascii_case("logid");
            value.as_str().filter(|_| is_log_id).and_then(plausible)
        })
    };
    header(&TT_LOGID)
        .or_else(|| body.and_then(|body| in_body(&body["error"]).or_else(|| in_body(body))))
        .or_else(|| header(&REQUEST_ID))
}

/// A log id goes into every log, so what cannot be one stays out.
fn plausible(log_id: &str) -> Option<String> {
    let is_one_word = (1..=128).contains(&log_id.len()) && log_id.bytes().all(|byte| byte.is_ascii_graphic());
    is_one_word.then(|| log_id.to_owned())
}

/// The reset header first, then the undocumented `Retry-After`, both in seconds.
fn told_wait(headers: &HeaderMap) -> Option<Duration> {
    ["x-ogw-ratelimit-reset", "retry-after"]
        .into_iter()
        .find_map(|name| {
            let seconds: f64 = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
            let most = LONGEST_WAIT.as_secs_f64();
            Duration::try_from_secs_f64(if seconds > most { most } else { seconds }).ok()
        })
}

fn told_limit(headers: &HeaderMap) -> Option<u32> {
    let limit = headers
        .get("x-ogw-ratelimit-limit")?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    (limit > 0).then_some(limit)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(
        || {
            if value.is_null() {
                String::new()
            } else {
                value.to_string()
            }
        },
        str::to_owned,
    )
}

fn permission_violations(body: &Value) -> Vec<PermissionViolation> {
    let violations = body["error"]["permission_violations"].as_array();
    violations
        .into_iter()
        .flatten()
        .map(|violation| PermissionViolation {
            kind: text(&violation["type"]),
            subject: text(&violation["subject"]),
        })
        .collect()
}

fn field_violations(body: &Value) -> Vec<FieldViolation> {
    let violations = body["error"]["field_violations"].as_array();
    violations
        .into_iter()
        .flatten()
        .map(|violation| FieldViolation {
            field: text(&violation["field"]),
            value: text(&violation["value"]),
            description: text(&violation["description"]),
        })
        .collect()
}

/// What the platform names beats what the code alone tells.
fn specific_hint(permission: &[PermissionViolation], fields: &[FieldViolation]) -> Option<String> {
    let scopes: Vec<&str> = permission
        .iter()
        .map(|violation| violation.subject.as_str())
        .filter(|scope| !scope.is_empty())
        .collect();
    if !scopes.is_empty() {
        return Some(format!(
            "Give the app one of these scopes in the developer console and publish a version: {}",
            scopes.join(", ")
        ));
    }
    let first = fields.first()?;
    Some(format!(
        "The platform refused {}: {}",
        first.field, first.description
    ))
}

/// A transport's failure, in the form of an answer's.
pub(crate) fn no_answer(error: TransportError, was_sent: bool) -> Failure {
    let (error, replay) = match error {
        TransportError::Connect(fault) => {
            let error = connection_failed("no connection", fault).with_station(Station::Connect);
            let replay = if error.retryable() {
                Replay::Backoff
            } else {
                Replay::No
            };
            (error, replay)
        }
        TransportError::Broken(fault) => {
            let station = if was_sent { Station::Answer } else { Station::Send };
            let error = connection_failed("the connection broke", fault).with_station(station);
            let replay = if error.retryable() {
                Replay::Backoff
            } else {
                Replay::No
            };
            (error, replay)
        }
        TransportError::Unprocessed(fault) => {
            let error = connection_failed("the server did not process the request", fault);
            (error.with_station(Station::Send), Replay::Resend)
        }
        TransportError::TooLarge(status) => {
            let why = format!("the answer is larger than {MOST_BYTES} bytes");
            let (kind, replay, hint) = by_status(status);
            let error = Error::new(kind, why)
                .with_platform(None, None, status.as_u16())
                .with_station(Station::Answer)
                .with_hint(hint);
            (error, replay)
        }
    };
    Failure {
        error,
        replay,
        wait: None,
        limit: None,
        from_platform: false,
    }
}

fn connection_failed(what: &str, fault: Fault) -> Error {
    let Fault { reason, peer, source } = fault;
    let cause = innermost(&*source);
    let message = match &peer {
        Some(Peer::Host(host)) => format!("{what} ({host}): {cause}"),
        Some(Peer::Proxy(proxy)) => format!("{what} (proxy {proxy}): {cause}"),
        None => format!("{what}: {cause}"),
    };
    Error::new(ErrorKind::ConnectionFailed, message)
        .with_reason(reason)
        .with_hint(connection_hint(reason, peer.as_ref()))
        .with_source(source)
}

/// The hint where nothing is wrong with the connection.
const OUT_OF_RESOURCES: &str =
    "Call again later; if it persists, check the process's limits of file descriptors and threads";

/// The system refused a thread or a file descriptor, and nothing was sent.
pub(crate) fn out_of_resources(error: impl Into<BoxError>) -> Error {
    let error = error.into();
    let message = format!("the process has no thread or file descriptor left for the call: {error}");
    Error::new(ErrorKind::ConnectionFailed, message)
        .with_hint(OUT_OF_RESOURCES)
        .with_source(error)
}

fn connection_hint(reason: Option<ConnectionReason>, peer: Option<&Peer>) -> &'static str {
    use ConnectionReason as Reason;

    match (reason, peer) {
        (
            Some(Reason::Dns | Reason::Refused | Reason::Unreachable | Reason::Timeout),
            Some(Peer::Proxy(_)),
        ) => {
            "Check host and port of the proxy: the option proxy, or the environment variable HTTPS_PROXY, HTTP_PROXY or ALL_PROXY"
        }
        (Some(Reason::Dns), _) => "Check the host in base_url and this machine's DNS",
        (Some(Reason::Refused), _) => {
            "Check host and port in base_url, and whether a firewall refuses the connection"
        }
        (Some(Reason::Unreachable), _) => "Check this machine's network and the host in base_url",
        (Some(Reason::Timeout), _) => {
            "Check base_url, and whether a firewall drops the connection or a proxy is needed to reach the platform"
        }
        (Some(Reason::TlsUntrusted), _) => {
            "If a proxy or gateway inspects TLS, give its CA certificate with ca_certs, or with the environment variable SSL_CERT_FILE or (Node.js) NODE_EXTRA_CA_CERTS"
        }
        (Some(Reason::TlsExpired), _) => {
            "Check this machine's clock; if it is right, the certificate has to be renewed"
        }
        (Some(Reason::TlsName), _) => "Check the host in base_url: the certificate is for another name",
        (Some(Reason::Tls), _) => "Check that base_url and the proxy speak TLS on this port",
        (Some(Reason::Proxy), _) => {
            "Check the proxy's port and kind, and whether it permits connections to the platform"
        }
        (Some(Reason::ProxyAuth), _) => {
            "Check user name and password of the proxy, percent-encoded in its URL"
        }
        (Some(Reason::Closed), _) => "Call again: setting the same state twice does no harm",
        (None, _) => OUT_OF_RESOURCES,
    }
}

/// The cause that says something: the outer ones only repeat that a request failed.
fn innermost<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    causes(error).last().unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Bytes> {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        response.body(body.into()).unwrap()
    }

    fn reading(response: &Response<Bytes>) -> Reading<CallData> {
        read(response, &|_| {})
    }

    fn failure(response: &Response<Bytes>) -> Failure {
        match reading(response) {
            Reading::Failure(failure) => failure,
            Reading::Success { .. } => panic!("read as success: {response:?}"),
        }
    }

    fn reasons(body: &'static str) -> Vec<FailedUserReason> {
        match reading(&answer(200, &[], body)) {
            Reading::Success { data, .. } => data.into_reasons(),
            Reading::Failure(failure) => panic!("{body}: {}", failure.error),
        }
    }

    #[test]
    fn every_shape_of_success_is_read() {
        for body in [
            r#"{"code":0}"#,
            r#"{"code":0,"msg":"ok"}"#,
            r#"{"code":0,"data":null}"#,
            r#"{"code":0,"data":{}}"#,
            r#"{"code":0,"data":{"failed_user_reasons":null}}"#,
            r#"{"code":0,"data":{"failed_user_reasons":[]},"more":[1,{"a":2}]}"#,
        ] {
            assert_eq!(reasons(body), [], "{body}");
        }
        let listed = reasons(
            r#"{"code":0,"data":{"failed_user_reasons":[{"error_code":0,"error_message":"no","user_id":"ou_1"},{"user_id":""},{}]}}"#,
        );
        assert_eq!(listed.len(), 3);
        assert_eq!(listed[0].user_id.as_deref(), Some("ou_1"));
        assert_eq!(
            (listed[1].user_id.as_deref(), listed[2].user_id.as_deref()),
            (None, None)
        );
    }

    #[test]
    fn success_is_code_0_whatever_the_status() {
        for status in [200, 201, 400, 500] {
            assert!(matches!(
                reading(&answer(status, &[], r#"{"code":0}"#)),
                Reading::Success { .. }
            ));
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_success() {
        let nested = format!(r#"{{"code":0,"x":{}{}}}"#, "[".repeat(40), "]".repeat(40));
        let bodies: [&str; 14] = [
            "",
            " ",
            "null",
            "[]",
            "{}",
            "0",
            "<html></html>",
            r#"{"code":"0"}"#,
            r#"{"code":null}"#,
            r#"{"code":0.5}"#,
            r#"{"code":0,"code":0}"#,
            r#"{"code":0,"data":{"failed_user_reasons":{}}}"#,
            r#"{"code":0,"data":[]"#,
            &nested,
        ];
        for body in bodies {
            for (status, kind) in [
                (200, ErrorKind::UnexpectedResponse),
                (403, ErrorKind::UnexpectedResponse),
                (302, ErrorKind::UnexpectedResponse),
                (429, ErrorKind::RateLimited),
                (500, ErrorKind::Server),
                (504, ErrorKind::Server),
            ] {
                let failure = failure(&answer(status, &[], body.to_owned()));
                assert_eq!(failure.error.kind(), kind, "{status} {body}");
                assert_eq!(failure.from_platform, status < 500);
            }
        }
    }

    #[test]
    fn brackets_in_strings_do_not_nest() {
        let body = format!(r#"{{"code":0,"x":"{}\"{}"}}"#, "[".repeat(100), "{".repeat(100));
        assert!(matches!(
            reading(&answer(200, &[], body)),
            Reading::Success { .. }
        ));
        for (depth, is_read) in [(DEEPEST - 1, true), (DEEPEST, false)] {
            let body = format!(r#"{{"code":0,"x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
            assert_eq!(
                matches!(reading(&answer(200, &[], body)), Reading::Success { .. }),
                is_read,
                "{depth}"
            );
        }
    }

    #[test]
    fn depth_counts_and_not_how_many_there_are() {
        let is_read = |x: &str| {
            let body = format!(r#"{{"code":0,"x":{x}}}"#);
            matches!(reading(&answer(200, &[], body)), Reading::Success { .. })
        };
        assert!(is_read(&format!("[{}[]]", "[],{},".repeat(100))));
        // What a string closes is still open.
        assert!(!is_read(&format!(
            "{}{}",
            r#"["]}",{"]}":"#.repeat(DEEPEST / 2) + "0",
            "}]".repeat(DEEPEST / 2)
        )));
    }

    #[test]
    fn the_log_id_is_found_wherever_it_is() {
        let log_id = |headers: &[(&str, &str)], body: &'static str| {
            failure(&answer(400, headers, body))
                .error
                .log_id()
                .map(str::to_owned)
        };
        let both = [("X-TT-LOGID", "a"), ("x-request-id", "z")];
        assert_eq!(log_id(&both, r#"{"code":1,"log_id":"b"}"#).as_deref(), Some("a"));
        assert_eq!(
            log_id(&both[1..], r#"{"code":1,"Log_Id":"b"}"#).as_deref(),
            Some("b")
        );
        assert_eq!(
            log_id(&both[1..], r#"{"code":1,"error":{"LOG_ID":"c"},"log_id":"b"}"#).as_deref(),
            Some("c")
        );
        assert_eq!(
            log_id(&both[1..], r#"{"code":1,"logId":"b"}"#).as_deref(),
            Some("b")
        );
        assert_eq!(log_id(&both[1..], r#"{"code":1}"#).as_deref(), Some("z"));
        assert_eq!(
            log_id(
                &[("x-tt-logid", "two words")],
                r#"{"code":1,"log_id":"","error":7}"#
            ),
            None
        );
    }

    #[test]
    fn the_reset_header_comes_before_retry_after() {
        let wait = |headers: &[(&str, &str)]| failure(&answer(429, headers, r#"{"code":99991400}"#)).wait;
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(
            wait(&[("x-ogw-ratelimit-reset", "3"), ("retry-after", "5")]),
            seconds(3)
        );
        assert_eq!(
            wait(&[("x-ogw-ratelimit-reset", "soon"), ("retry-after", " 5 ")]),
            seconds(5)
        );
        assert_eq!(wait(&[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")]), None);
        assert_eq!(wait(&[("retry-after", "-1")]), None);
        // More than a clock can add.
        assert_eq!(wait(&[("retry-after", "1e19")]), seconds(86_400));
        assert_eq!(wait(&[("retry-after", "1e400")]), seconds(86_400));
        assert_eq!(wait(&[("retry-after", "nan")]), None);
        assert_eq!(wait(&[]), None);
        let limit = |value| {
            failure(&answer(
                429,
                &[("x-ogw-ratelimit-limit", value)],
                r#"{"code":99991400}"#,
            ))
            .limit
        };
        assert_eq!(
            (limit("20"), limit("0"), limit("-3"), limit("many")),
            (Some(20), None, None, None)
        );
    }

    #[test]
    fn what_the_platform_said_is_told_and_that_it_said_nothing() {
        for (body, said) in [
            (r#"{"code":1,"msg":"chat not found"}"#, "chat not found"),
            (r#"{"code":1,"msg":""}"#, "no msg"),
            (r#"{"code":1}"#, "no msg"),
        ] {
            let error = failure(&answer(400, &[], body)).error;
            assert!(error.message().ends_with(said), "{body}: {error}");
        }
    }

    #[test]
    fn a_server_errors_unknown_code_is_not_the_platforms_word() {
        for (status, code, is_its_word) in [
            (500, 2200, true),
            (504, 504, false),
            (400, 504, true),
            (200, 504, true),
        ] {
            let failure = failure(&answer(status, &[], format!(r#"{{"code":{code}}}"#)));
            assert_eq!(failure.from_platform, is_its_word, "{status}, code {code}");
        }
    }

    #[test]
    fn an_excerpt_is_cut_at_200_bytes_and_between_characters() {
        let text = failure(&answer(200, &[], "提".repeat(100)))
            .error
            .message()
            .to_owned();
        assert_eq!(text.matches('提').count(), 66);
        assert!(text.ends_with("…"), "{text}");
        let text = failure(&answer(200, &[], "x".repeat(200)))
            .error
            .message()
            .to_owned();
        assert!(!text.ends_with('…'), "{text}");
        assert!(
            failure(&answer(200, &[], ""))
                .error
                .message()
                .contains("the body is empty")
        );
    }

    #[test]
    fn hints_name_what_the_platform_names() {
        let body = r#"{"code":99991672,"msg":"no","error":{"permission_violations":[{"type":"action","subject":"im:a"},{"subject":"im:b"}]}}"#;
        let error = failure(&answer(400, &[], body)).error;
        assert_eq!(error.permission_violations().len(), 2);
        assert!(error.hint().unwrap().ends_with("im:a, im:b"), "{error}");
        let body = r#"{"code":99992402,"error":{"field_violations":[{"field":"user_ids","value":["x"],"description":"the max len is 50"}]}}"#;
        let error = failure(&answer(400, &[], body)).error;
        assert_eq!(error.field_violations()[0].value, r#"["x"]"#);
        assert!(
            error.hint().unwrap().contains("user_ids: the max len is 50"),
            "{error}"
        );
    }

    /// JSON of any shape, rich in the names that answers have.
    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            prop::sample::select(vec![0, 230_001, 99_991_400, 99_991_663, 2200]).prop_map(Value::from),
        ];
        let name = prop_oneof![
            prop::sample::select(vec![
                "code",
                "msg",
                "data",
                "error",
                "log_id",
                "failed_user_reasons",
                "user_id",
                "error_code",
                "error_message",
                "permission_violations",
                "field_violations",
                "subject",
                "field",
            ])
            .prop_map(str::to_owned),
            ".{0,6}",
        ];
        leaf.prop_recursive(6, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(name.clone(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn check(status: u16, headers: &[(String, Vec<u8>)], body: Vec<u8>) {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name.as_str(), &value[..]);
        }
        let Ok(response) = response.body(Bytes::from(body)) else {
            return;
        };
        if let Reading::Failure(failure) = reading(&response) {
            let error = &failure.error;
            assert_eq!(error.http_status(), Some(status));
            assert!(
                ErrorKind::ALL.contains(&error.kind())
                    && !error.message().is_empty()
                    && error.hint().is_some()
            );
            let _ = format!("{error} {error:?}");
        }
    }

    fn headers() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
        let name = prop::sample::select(vec![
            "x-tt-logid",
            "x-request-id",
            "x-ogw-ratelimit-reset",
            "x-ogw-ratelimit-limit",
            "retry-after",
        ]);
        let value = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..20),
            "[0-9.eE+-]{0,12}".prop_map(String::into_bytes)
        ];
        prop::collection::vec((name.prop_map(str::to_owned), value), 0..4)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_read_without_a_panic(status in 100_u16..1000, headers in headers(), body in prop::collection::vec(any::<u8>(), 0..300)) {
            check(status, &headers, body);
        }

        #[test]
        fn any_json_is_read_without_a_panic(status in 100_u16..1000, headers in headers(), body in json()) {
            check(status, &headers, body.to_string().into_bytes());
        }
    }
}
