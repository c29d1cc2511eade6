//! Reads a response. The result is the call's data, or a failure with a hint and a rule for retries.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, Response, StatusCode};
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::data::error::{Error, ErrorKind, FieldViolation, PermissionViolation, Station};
use crate::data::outcome::FailedUserReason;
use crate::data::outside::{self, MAX_KEPT, MAX_QUOTED};
use crate::data::secret::{self, Mask};
use crate::data::text::{Template, Text, text};
use crate::platform::codes::{self, RetryRule};

// Constants, because a lookup by a string parses the name first.
const TT_LOGID: HeaderName = HeaderName::from_static("x-tt-logid");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Deepest nesting that is read. The platform's answers have at most five levels.
const DEEPEST: usize = 32;

/// Longest wait taken from a header: a day. A longer one is a mistake, and could overflow the clock.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest excerpt of an unreadable response in an error, in bytes.
const EXCERPT: usize = 200;

/// Longest content type in an error, in characters.
const MAX_CONTENT_TYPE: usize = 100;

/// Most violations that an error keeps. The platform names at most one for each user id, of which a request usually has
/// 50.
const MAX_VIOLATIONS: usize = 100;

/// A response that was read.
#[derive(Debug)]
pub(crate) enum Reading<T> {
    /// `code` 0, with the call's own data.
    Success { data: T, log_id: Option<String> },
    /// Everything else.
    Failure(Failure),
}

/// A failed attempt: a refusal, a response that is not the platform's, or no response.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) retry: RetryRule,
    /// How long to wait, from the response's headers.
    pub(crate) wait: Option<Duration>,
    /// The platform's limit, from its `x-ogw-ratelimit-limit` header.
    pub(crate) limit: Option<u32>,
    /// Whether this is the platform's answer: a JSON object with a `code` of the platform
    /// ([`codes::is_platform_code`]), regardless of the HTTP status (docs/architecture.md#answers). Anything else, such
    /// as a gateway's page, may arrive while the platform still processes the request.
    pub(crate) is_answer: bool,
}

/// The data of a success.
pub(crate) trait Data: DeserializeOwned {
    /// The platform's `code`. 0 is a success, regardless of the HTTP status (docs/platform.md#code-decides).
    fn code(&self) -> i64;

    /// Applies [`outside::admit`] to every text that errors, outcomes or logs may show.
    fn admit_texts(&mut self, mask: Mask<'_>);
}

#[derive(Deserialize)]
struct Envelope {
    code: i64,
}

/// The answer to both calls. An absent `data`, null and `{}` all mean that no user failed
/// (docs/platform.md#success-bodies).
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

    fn admit_texts(&mut self, mask: Mask<'_>) {
        let reasons = self
            .data
            .as_mut()
            .and_then(|data| data.failed_user_reasons.as_mut());
        for reason in reasons.into_iter().flatten() {
            for text in [&mut reason.error_message, &mut reason.user_id]
                .into_iter()
                .flatten()
            {
                *text = outside::admit(std::mem::take(text), mask, MAX_KEPT);
            }
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct FailedUsers {
    #[serde(default)]
    failed_user_reasons: Option<Vec<FailedUser>>,
}

#[derive(Debug, Deserialize)]
struct FailedUser {
    #[serde(default)]
    error_code: Option<i64>,
    #[serde(default)]
    error_message: Option<String>,
    #[serde(default)]
    user_id: Option<String>,
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

/// How much of a response an error may quote.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quoting {
    /// Everything but known secrets.
    Open,
    /// A response of a token endpoint may contain a secret that the client does not know yet, regardless of its status.
    /// An unreadable body is not quoted at all. In the texts of a refusal, every word that may be a token is masked.
    Guarded,
}

/// Reads the response of a call. A server or a proxy may repeat the request, so `mask` hides the known secrets in every
/// text that is kept.
pub(crate) fn read<T: Data>(response: &Response<Bytes>, mask: Mask<'_>) -> Reading<T> {
    read_quoting(response, mask, Quoting::Open)
}

/// Reads the response of a token endpoint.
pub(crate) fn read_secret<T: Data>(response: &Response<Bytes>, mask: Mask<'_>) -> Reading<T> {
    read_quoting(response, mask, Quoting::Guarded)
}

fn read_quoting<T: Data>(response: &Response<Bytes>, mask: Mask<'_>, quoting: Quoting) -> Reading<T> {
    let body = &response.body()[..];
    let mut is_answer = false;
    let fault = if nests_deeper_than(body, DEEPEST) {
        "the answer is nested too deeply".to_owned()
    } else if !body.trim_ascii_start().starts_with(b"{") {
        // serde would also accept a list, and use its elements as the fields in order.
        "not an answer of the platform: the body is not a JSON object".to_owned()
    } else {
        let data = serde_json::from_slice::<T>(body);
        // Only a success must have the call's data.
        let code = match &data {
            Ok(data) => Ok(data.code()),
            Err(_) => serde_json::from_slice::<Envelope>(body).map(|envelope| envelope.code),
        };
        match (code, data) {
            (Ok(0), Ok(mut data)) => {
                data.admit_texts(mask);
                return Reading::Success {
                    data,
                    log_id: log_id(response, None, mask),
                };
            }
            (Ok(0), Err(error)) => {
                is_answer = true;
                format!("the answer's data cannot be read: {error}")
            }
            (Ok(code), _) => return Reading::Failure(refusal(response, code, mask, quoting)),
            (Err(error), _) => format!("not an answer of the platform: {error}"),
        }
    };
    let message = match quoting {
        // The parser's message may quote the body, too.
        Quoting::Open => format!(
            "{}: {}",
            outside::admit(fault, mask, MAX_QUOTED),
            excerpt(body, mask)
        ),
        Quoting::Guarded => without_quoting(response),
    };
    Reading::Failure(Failure {
        is_answer,
        ..unreadable(response, message, mask)
    })
}

/// Describes an unreadable response of a token endpoint without quoting it. The status is among the details of the
/// error.
fn without_quoting(response: &Response<Bytes>) -> String {
    let content_type = response.headers().get(CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let content_type = content_type.map_or_else(
        || "no content type".to_owned(),
        |value| {
            let value = outside::admit(value, &secret::mask_token_like, MAX_CONTENT_TYPE);
            format!("content type {value}")
        },
    );
    let size = response.body().len();
    format!("a response of {size} bytes cannot be read ({content_type})")
}

/// Collects the texts under names such as `tenant_access_token`, at any depth.
fn named_secrets(value: &Value, found: &mut Vec<SecretString>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(secret)
                        if ["token", "ticket", "secret"]
                            .iter()
                            .any(|word| name.contains(word)) =>
                    {
                        found.push(secret.clone().into());
                    }
                    value => named_secrets(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| named_secrets(value, found)),
        _ => {}
    }
}

fn refusal(response: &Response<Bytes>, code: i64, mask: Mask<'_>, quoting: Quoting) -> Failure {
    let status = response.status();
    let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    let mut named = Vec::new();
    if quoting == Quoting::Guarded {
        named_secrets(&body, &mut named);
    }
    // For the log id: masks only known secrets, because a log id looks like a token.
    let mask_known = |text: &mut String| {
        mask(text);
        for secret in &named {
            secret::mask(text, secret);
        }
    };
    let log_id = log_id(response, Some(&body), &mask_known);
    let mask = &|text: &mut String| {
        mask_known(text);
        if quoting == Quoting::Guarded {
            secret::mask_token_like(text);
        }
    };
    let msg = body["msg"].as_str();
    let msg = msg.map(|msg| outside::admit(msg, mask, MAX_KEPT));
    let known = codes::lookup(code);
    let is_answer = codes::is_platform_code(code);
    let (kind, retry, hint) = match &known {
        Some(known) => (known.kind, known.retry, known.hint),
        None if status.is_server_error() => (
            ErrorKind::Server,
            RetryRule::Backoff,
            text!("Call again later: the platform failed"),
        ),
        None if is_answer => (
            ErrorKind::Rejected,
            RetryRule::No,
            text!("See the platform's msg for the reason"),
        ),
        None => (ErrorKind::Rejected, RetryRule::No, NOT_THE_PLATFORM),
    };
    let permission = permission_violations(&body, mask);
    let fields = field_violations(&body, mask);
    let hint = specific_hint(&permission, &fields).unwrap_or_else(|| hint.into());
    let headers = response.headers();
    let wait = wait_from(headers);
    let quote = msg.as_deref().filter(|msg| !msg.is_empty()).unwrap_or("no msg");
    let quote = outside::quoted(quote);
    let sender = if is_answer { "the platform" } else { "a gateway" };
    let error = Error::new(kind, format!("{sender} said: {quote}"))
        .with_platform(Some(code), msg, status.as_u16())
        .with_log_id(log_id)
        .with_hint(hint)
        .with_retry_after(wait)
        .with_violations(permission, fields)
        .with_station(Station::Answer);
    Failure {
        error,
        retry,
        wait,
        limit: known.as_ref().and_then(|_| limit_from(headers)),
        is_answer,
    }
}

/// Failure of a response without a `code`; its kind follows from the status.
fn unreadable(response: &Response<Bytes>, message: String, mask: Mask<'_>) -> Failure {
    let status = response.status();
    let (kind, retry, hint) = by_status(status);
    let wait = wait_from(response.headers());
    let error = Error::new(kind, message)
        .with_platform(None, None, status.as_u16())
        .with_log_id(log_id(response, None, mask))
        .with_hint(hint)
        .with_retry_after(wait)
        .with_station(Station::Answer);
    Failure {
        error,
        retry,
        wait,
        limit: None,
        is_answer: false,
    }
}

pub(super) fn by_status(status: StatusCode) -> (ErrorKind, RetryRule, Template) {
    if status.is_server_error() {
        (
            ErrorKind::Server,
            RetryRule::Backoff,
            text!("Call again later: the platform, or a proxy in front of it, failed"),
        )
    } else if status == StatusCode::TOO_MANY_REQUESTS {
        (
            ErrorKind::RateLimited,
            RetryRule::Pause,
            text!("Call again later: the platform, or a proxy in front of it, limits the rate of requests"),
        )
    } else if status.is_redirection() {
        (
            ErrorKind::UnexpectedResponse,
            RetryRule::No,
            text!(
                "Check {base_url}: redirects are not followed, because they would carry the token to another host"
            ),
        )
    } else {
        (ErrorKind::UnexpectedResponse, RetryRule::No, NOT_THE_PLATFORM)
    }
}

pub(crate) const NOT_THE_PLATFORM: Template =
    text!("Check {base_url} and the proxy: the response did not come from the platform");

/// Quotes the start of a body, which shows who sent it.
fn excerpt(body: &[u8], mask: Mask<'_>) -> String {
    if body.is_empty() {
        return "the body is empty".to_owned();
    }
    let mut text = String::from_utf8_lossy(body).into_owned();
    // Mask before cutting: the mask would not recognise half a token.
    mask(&mut text);
    secret::mask_basic(&mut text);
    let ends = text
        .char_indices()
        .map(|(start, character)| start + character.len_utf8());
    let end = ends.take_while(|end| *end <= EXCERPT).last().unwrap_or(0);
    let more = if text.len() > end { "…" } else { "" };
    text.truncate(end);
    format!("\"{}\"{more}", outside::quoted(text))
}

/// Whether brackets are nested more than `most` levels deep. serde does not limit this, because it skips unknown fields
/// of any depth.
fn nests_deeper_than(body: &[u8], most: usize) -> bool {
    // A level takes at least two bytes, so most answers are too short for this depth.
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
            // A backslash outside of a string is not JSON; the parser reports that.
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

/// The log id: from `X-Tt-Logid`, else from the body, else from `X-Request-Id` (docs/platform.md#log-id).
fn log_id(response: &Response<Bytes>, body: Option<&Value>, mask: Mask<'_>) -> Option<String> {
    let header = |name: &HeaderName| plausible(response.headers().get(name)?.to_str().ok()?);
    let in_body = |value: &Value| {
        value.as_object()?.iter().find_map(|(key, value)| {
            let is_log_id = key.eq_ignore_ascii_case("log_id") || key.eq_ignore_ascii_case("logid");
            value.as_str().filter(|_| is_log_id).and_then(plausible)
        })
    };
    let mut log_id = header(&TT_LOGID)
        .or_else(|| body.and_then(|body| in_body(&body["error"]).or_else(|| in_body(body))))
        .or_else(|| header(&REQUEST_ID))?;
    // It is one printable word, so only secrets must be removed.
    mask(&mut log_id);
    Some(log_id)
}

/// Returns a text if it looks like a log id. Other texts must not enter logs as one.
fn plausible(log_id: &str) -> Option<String> {
    let is_one_word = (1..=128).contains(&log_id.len()) && log_id.bytes().all(|byte| byte.is_ascii_graphic());
    is_one_word.then(|| log_id.to_owned())
}

/// How long to wait: from `x-ogw-ratelimit-reset`, else from the undocumented `Retry-After`, both in seconds.
fn wait_from(headers: &HeaderMap) -> Option<Duration> {
    ["x-ogw-ratelimit-reset", "retry-after"]
        .into_iter()
        .find_map(|name| {
            let seconds: f64 = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
            let most = LONGEST_WAIT.as_secs_f64();
            Duration::try_from_secs_f64(if seconds > most { most } else { seconds }).ok()
        })
}

fn limit_from(headers: &HeaderMap) -> Option<u32> {
    let limit = headers
        .get("x-ogw-ratelimit-limit")?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    (limit > 0).then_some(limit)
}

fn text(value: &Value, mask: Mask<'_>) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        value => value.to_string(),
    };
    outside::admit(text, mask, MAX_KEPT)
}

fn permission_violations(body: &Value, mask: Mask<'_>) -> Vec<PermissionViolation> {
    let violations = body["error"]["permission_violations"].as_array();
    violations
        .into_iter()
        .flatten()
        .take(MAX_VIOLATIONS)
        .map(|violation| PermissionViolation {
            kind: text(&violation["type"], mask),
            subject: text(&violation["subject"], mask),
        })
        .collect()
}

fn field_violations(body: &Value, mask: Mask<'_>) -> Vec<FieldViolation> {
    let violations = body["error"]["field_violations"].as_array();
    violations
        .into_iter()
        .flatten()
        .take(MAX_VIOLATIONS)
        .map(|violation| FieldViolation {
            field: text(&violation["field"], mask),
            value: text(&violation["value"], mask),
            description: text(&violation["description"], mask),
        })
        .collect()
}

/// A hint that names the scopes or the field, if the platform named them.
fn specific_hint(permission: &[PermissionViolation], fields: &[FieldViolation]) -> Option<Text> {
    let scopes: Vec<&str> = permission
        .iter()
        .map(|violation| violation.subject.as_str())
        .filter(|scope| !scope.is_empty())
        .collect();
    if !scopes.is_empty() {
        return Some(text!(
            "Give the app one of these scopes in the developer console, and publish a version: {}",
            scopes.join(", ")
        ));
    }
    let first = fields.first()?;
    Some(text!("Correct the field {}: {}", first.field, first.description))
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
    fn code_0_is_a_success_regardless_of_the_status() {
        for status in [200, 201, 400, 500] {
            assert!(matches!(
                reading(&answer(status, &[], r#"{"code":0}"#)),
                Reading::Success { .. }
            ));
        }
    }

    #[test]
    fn an_unreadable_body_is_not_a_success() {
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
                let has_code_0 = body == bodies[11];
                assert_eq!(failure.is_answer, has_code_0, "{status} {body}");
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
    fn the_depth_counts_and_not_the_number_of_brackets() {
        let is_read = |x: &str| {
            let body = format!(r#"{{"code":0,"x":{x}}}"#);
            matches!(reading(&answer(200, &[], body)), Reading::Success { .. })
        };
        assert!(is_read(&format!("[{}[]]", "[],{},".repeat(100))));
        // Brackets in strings do not count.
        assert!(!is_read(&format!(
            "{}{}",
            r#"["]}",{"]}":"#.repeat(DEEPEST / 2) + "0",
            "}]".repeat(DEEPEST / 2)
        )));
    }

    #[test]
    fn the_log_id_is_found_in_headers_and_body() {
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
        // Longer than the clock can add.
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
    fn a_refusal_quotes_its_msg_if_it_has_one() {
        for (body, said) in [
            (r#"{"code":1,"msg":"chat not found"}"#, "chat not found"),
            (r#"{"code":1,"msg":""}"#, "no msg"),
            (r#"{"code":1}"#, "no msg"),
        ] {
            let error = failure(&answer(400, &[], body)).error;
            assert!(error.message().ends_with(said), "{body}: {error}");
        }
    }

    /// The platform has no code from 1 to 999. Gateways write their HTTP status there.
    #[test]
    fn only_code_0_or_one_of_at_least_1000_is_an_answer() {
        for status in [200, 302, 400, 403, 404, 408, 429, 500, 504] {
            for code in [1, 200, 400, 403, 404, 408, 429, 502, 504, 999, -1, i64::MIN] {
                let failure = failure(&answer(status, &[], format!(r#"{{"code":{code}}}"#)));
                assert!(!failure.is_answer, "{status}, code {code}");
                assert_eq!(failure.error.platform_code(), Some(code));
            }
            for code in [1000, 1500, 2200, 99_991_400, 230_001, i64::MAX] {
                let failure = failure(&answer(status, &[], format!(r#"{{"code":{code}}}"#)));
                assert!(failure.is_answer, "{status}, code {code}");
            }
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
    fn a_long_msg_is_quoted_in_part_and_kept_within_bounds() {
        let msg = "x".repeat(900_000);
        let violations: Vec<_> = (0..1000)
            .map(|_| serde_json::json!({"subject": "y".repeat(500)}))
            .collect();
        let body =
            serde_json::json!({"code": 1000, "msg": msg, "error": {"permission_violations": violations}});
        let error = failure(&answer(400, &[], body.to_string())).error;
        assert_eq!(error.msg().unwrap().len(), MAX_KEPT + "…".len());
        assert_eq!(error.message().matches('x').count(), MAX_QUOTED);
        assert_eq!(error.permission_violations().len(), MAX_VIOLATIONS);
        assert!(error.to_string().len() < 4000);
    }

    /// serde quotes a text that stands in place of a number.
    #[test]
    fn the_parsers_quotation_is_masked_and_cut_too() {
        let body = format!(r#"{{"code":"t-secret\u001b{}"}}"#, "x".repeat(900_000));
        let mask = |text: &mut String| *text = text.replace("t-secret", "[secret]");
        let Reading::Failure(failure) = read::<CallData>(&answer(200, &[], body), &mask) else {
            panic!("read as success")
        };
        let message = failure.error.message();
        assert!(
            message.contains("[secret]") && !message.contains("t-secret"),
            "{message}"
        );
        assert!(
            message.len() < 1000 && !message.contains(char::is_control),
            "{message}"
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

    /// JSON of any shape, with many of the names that answers have.
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
        let is_shown = |text: &str| {
            assert!(!text.contains(char::is_control), "{text:?}");
            assert!(text.chars().count() <= MAX_KEPT + 1);
        };
        match read_secret::<CallData>(&response, &|_| {}) {
            Reading::Success { .. } => {}
            Reading::Failure(Failure { error, .. }) => {
                is_shown(error.message());
                is_shown(error.msg().unwrap_or_default());
            }
        }
        match reading(&response) {
            Reading::Success { data, .. } => {
                for reason in data.into_reasons() {
                    is_shown(&reason.error_message);
                    is_shown(&reason.user_id.unwrap_or_default());
                }
            }
            Reading::Failure(Failure { error, .. }) => {
                is_shown(&error.to_string());
                is_shown(error.msg().unwrap_or_default());
                for violation in error.permission_violations() {
                    is_shown(&violation.kind);
                    is_shown(&violation.subject);
                }
                for violation in error.field_violations() {
                    is_shown(&violation.field);
                    is_shown(&violation.value);
                    is_shown(&violation.description);
                }
            }
        }
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
