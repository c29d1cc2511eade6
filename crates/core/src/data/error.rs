//! The error type of all calls: what went wrong, and what to do.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::data::outcome::{Outcome, UserIds};
use crate::data::outside::{MAX_KEPT, MAX_QUOTED, make_printable, printable, quoted};
use crate::data::text::{Spelling, Text};

/// Any error, as libraries and token providers return them.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The kinds of error that a call can end with. Every language has one class for each kind.
///
/// ```
/// use feishu_feed_card::{Error, ErrorKind};
///
/// fn advice(error: &Error) -> &'static str {
///     match error.kind() {
///         ErrorKind::PermissionDenied => "ask the app's administrator",
///         kind if kind.retryable() => "try again later",
///         _ => "read the message",
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument or option is wrong; nothing was sent.
    InvalidInput,
    /// Wrong app, secret, ticket or token, after one retry with a new token.
    Authentication,
    /// A scope is missing, the bot is not in the chat, the IP address is not allowed, or the app is disabled.
    PermissionDenied,
    /// The platform refused the parameters.
    Rejected,
    /// The quota has no slot before the deadline, or the platform reports a frequency limit and no retries are left.
    RateLimited,
    /// The month's quota of the tenant is used up.
    QuotaExhausted,
    /// The platform reports an internal error or a 5xx status, and no retries are left.
    Server,
    /// The response could not be read: HTML, broken JSON, or no `code`.
    UnexpectedResponse,
    /// DNS, TCP, TLS or the proxy failed, or the connection broke.
    ConnectionFailed,
    /// The call's deadline passed. [`Error::station`] is the step that it interrupted.
    DeadlineExceeded,
    /// The client was closed before the call, or while it was in progress.
    ClientClosed,
    /// Some users were not reached. Only from [`Outcome::into_result`].
    PartialFailure,
}

impl ErrorKind {
    /// All kinds, in the order of the table in the README.
    pub const ALL: &'static [Self] = &[
        Self::InvalidInput,
        Self::Authentication,
        Self::PermissionDenied,
        Self::Rejected,
        Self::RateLimited,
        Self::QuotaExhausted,
        Self::Server,
        Self::UnexpectedResponse,
        Self::ConnectionFailed,
        Self::DeadlineExceeded,
        Self::ClientClosed,
        Self::PartialFailure,
    ];

    /// The kind's name in every language's data: `"INVALID_INPUT"`, `"RATE_LIMITED"`, …
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidInput => "INVALID_INPUT",
            Self::Authentication => "AUTHENTICATION",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::Rejected => "REJECTED",
            Self::RateLimited => "RATE_LIMITED",
            Self::QuotaExhausted => "QUOTA_EXHAUSTED",
            Self::Server => "SERVER",
            Self::UnexpectedResponse => "UNEXPECTED_RESPONSE",
            Self::ConnectionFailed => "CONNECTION",
            Self::DeadlineExceeded => "TIMEOUT",
            Self::ClientClosed => "CLIENT_CLOSED",
            Self::PartialFailure => "PARTIAL_FAILURE",
        }
    }

    /// Whether the same call may succeed later without any change.
    pub const fn retryable(self) -> bool {
        matches!(
            self,
            Self::RateLimited | Self::Server | Self::ConnectionFailed | Self::DeadlineExceeded
        )
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why there is no connection, or why it broke.
///
/// ```
/// use feishu_feed_card::{ConnectionReason, Error};
///
/// fn whom_to_ask(error: &Error) -> Option<&'static str> {
///     match error.reason()? {
///         ConnectionReason::Dns => Some("the operator of the DNS server"),
///         ConnectionReason::Proxy | ConnectionReason::ProxyAuth => Some("the operator of the proxy"),
///         _ => None,
///     }
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// #     let builder = feishu_feed_card::Client::builder().app("cli_…", "secret");
/// #     let client = builder.base_url("https://nowhere.invalid").max_retries(0).build()?;
/// #     let error = client.set_time_sensitive("oc_1", ["ou_1"], true).await.unwrap_err();
/// #     assert_eq!(whom_to_ask(&error), Some("the operator of the DNS server"));
/// #     Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectionReason {
    /// The host name of the platform or the proxy cannot be resolved.
    Dns,
    /// The host refuses connections on this port.
    Refused,
    /// No route to the host, or a firewall of this machine forbids it.
    Unreachable,
    /// The host does not respond, or the connection went silent.
    Timeout,
    /// The server's certificate has an unknown issuer, or is otherwise not trusted. Not retried.
    TlsUntrusted,
    /// The server's certificate has expired or is not valid yet. Not retried.
    TlsExpired,
    /// The server's certificate is for another host name. Not retried.
    TlsName,
    /// Another failure of the TLS handshake.
    Tls,
    /// The proxy refused or failed to make the connection.
    Proxy,
    /// The proxy refuses the user name and password, or requires them. Not retried: repeating a wrong password can lock
    /// an account.
    ProxyAuth,
    /// The other end closed the connection.
    Closed,
}

impl ConnectionReason {
    /// The reason's name in every language's data: `"dns"`, `"tls_untrusted"`, …
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::TlsUntrusted => "tls_untrusted",
            Self::TlsExpired => "tls_expired",
            Self::TlsName => "tls_name",
            Self::Tls => "tls",
            Self::Proxy => "proxy",
            Self::ProxyAuth => "proxy_auth",
            Self::Closed => "closed",
        }
    }

    /// Whether the same call may succeed later without any change.
    pub const fn retryable(self) -> bool {
        !matches!(
            self,
            Self::TlsUntrusted | Self::TlsExpired | Self::TlsName | Self::ProxyAuth
        )
    }
}

impl fmt::Display for ConnectionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A step of a call.
///
/// ```
/// use feishu_feed_card::{Error, Station};
///
/// fn is_about_the_app(error: &Error) -> bool {
///     error.station() == Some(Station::Token)
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// #     let sandbox = feishu_feed_card_sandbox::Sandbox::builder().start()?;
/// #     let builder = feishu_feed_card::Client::builder().app("cli_example", "not the secret");
/// #     let client = builder.base_url(sandbox.base_url()).build()?;
/// #     assert!(is_about_the_app(&client.set_time_sensitive("oc_1", ["ou_1"], true).await.unwrap_err()));
/// #     Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Station {
    /// Waiting for an earlier call of the opposite state on the same chat.
    Order,
    /// Waiting for a slot of the quota.
    Quota,
    /// Fetching a token.
    Token,
    /// Making the connection: DNS, TCP, TLS, proxy.
    Connect,
    /// Sending the request: the connection broke before it was sent, or the server did not process it.
    Send,
    /// Waiting for the answer to the request that was sent, or reading it.
    Answer,
}

impl Station {
    /// The station's name in every language's data: `"quota"`, `"answer"`, …
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Quota => "quota",
            Self::Token => "token",
            Self::Connect => "connect",
            Self::Send => "send",
            Self::Answer => "answer",
        }
    }
}

impl fmt::Display for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A missing permission, as the platform reports it in `error.permission_violations[]`. See
/// [`Error::permission_violations`].
///
/// ```
/// fn scopes(error: &feishu_feed_card::Error) -> Vec<&str> {
///     error.permission_violations().iter().map(|missing| &*missing.subject).collect()
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PermissionViolation {
    /// The kind of permission, in the platform's words.
    pub kind: String,
    /// The scope's name, such as `im:datasync.feed_card.time_sensitive:write`.
    pub subject: String,
}

/// A field that the platform refused, as it reports it in `error.field_violations[]`. See [`Error::field_violations`].
///
/// ```
/// fn complaints(error: &feishu_feed_card::Error) -> Vec<String> {
///     error.field_violations().iter().map(|wrong| format!("{}: {}", wrong.field, wrong.description)).collect()
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldViolation {
    /// The field's name.
    pub field: String,
    /// The value that was refused, as text.
    pub value: String,
    /// What is wrong with it, in the platform's words.
    pub description: String,
}

/// Why a call failed, and everything known about it. One pointer wide.
///
/// [`Display`](fmt::Display) prints the message, the details and the hint on one line, without the cause. To print the
/// cause as well, follow the chain of [`source`](std::error::Error::source), as `{:#}` of `anyhow` does.
///
/// ```
/// use std::error::Error as _;
///
/// use feishu_feed_card::{Error, ErrorKind};
///
/// fn log(error: &Error) {
///     if error.kind() == ErrorKind::InvalidInput {
///         eprintln!("wrong: {:?}", error.field());
///     }
///     eprintln!("{error}; never sent to {:?}", error.users().not_attempted);
///     let mut source = error.source();
///     while let Some(cause) = source {
///         eprintln!("caused by: {cause}");
///         source = cause.source();
///     }
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// #     let client = feishu_feed_card::Client::builder().app("cli_example", "secret").build()?;
/// #     let error = client.set_time_sensitive("not-a-chat", ["ou_1"], true).await.unwrap_err();
/// #     log(&error);
/// #     assert_eq!(error.field(), Some("feed_card_id"));
/// #     Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Error(Box<Detail>);

#[derive(Clone, Default)]
struct Detail {
    kind: Option<ErrorKind>,
    message: Text,
    field: Option<Text>,
    platform_code: Option<i64>,
    msg: Option<String>,
    http_status: Option<u16>,
    log_id: Option<String>,
    retry_after: Option<Duration>,
    attempts: u32,
    station: Option<Station>,
    reason: Option<ConnectionReason>,
    hint: Option<Text>,
    permission_violations: Vec<PermissionViolation>,
    field_violations: Vec<FieldViolation>,
    users: UserIds,
    call: Option<u64>,
    outcome: Option<Outcome>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    /// The text of the source, for languages whose printed errors do not show causes. `Display` leaves it out, because
    /// a program that prints the chain of sources would print it twice.
    cause: Option<Text>,
}

// Text from outside is masked and cut where it is read (see `outside`). These functions escape and cut texts again, so
// that no text of an error is left out.
impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Text>) -> Self {
        Self(Box::new(Detail {
            kind: Some(kind),
            message: message.into(),
            ..Detail::default()
        }))
    }

    /// Error for a wrong argument or option, with its name, its value (never a secret), and what is expected.
    pub(crate) fn invalid_input(
        field: impl Into<Text>,
        value: impl Into<Text>,
        expected: impl Into<Text>,
    ) -> Self {
        let field = field.into();
        let mut message = field.clone();
        message.push(": ");
        message.push(value);
        message.push("; expected ");
        message.push(expected);
        let mut error = Self::new(ErrorKind::InvalidInput, message);
        error.0.field = Some(field);
        error
    }

    pub(crate) fn with_message(mut self, message: impl Into<Text>) -> Self {
        self.0.message = message.into();
        self
    }

    pub(crate) fn with_platform(mut self, code: Option<i64>, msg: Option<String>, http_status: u16) -> Self {
        self.0.platform_code = code;
        self.0.msg = msg.map(|msg| printable(msg, MAX_KEPT));
        self.0.http_status = Some(http_status);
        self
    }

    pub(crate) fn with_log_id(mut self, log_id: Option<String>) -> Self {
        self.0.log_id = log_id.map(|log_id| printable(log_id, MAX_QUOTED));
        self
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<Text>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    pub(crate) fn with_station(mut self, station: Station) -> Self {
        self.0.station = Some(station);
        self
    }

    pub(crate) fn with_reason(mut self, reason: Option<ConnectionReason>) -> Self {
        self.0.reason = reason;
        self
    }

    pub(crate) fn with_attempts(mut self, attempts: u32) -> Self {
        self.0.attempts = attempts;
        self
    }

    pub(crate) fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.0.retry_after = retry_after;
        self
    }

    pub(crate) fn with_violations(
        mut self,
        mut permission: Vec<PermissionViolation>,
        mut field: Vec<FieldViolation>,
    ) -> Self {
        for violation in &mut permission {
            make_printable(&mut violation.kind, MAX_KEPT);
            make_printable(&mut violation.subject, MAX_KEPT);
        }
        for violation in &mut field {
            make_printable(&mut violation.field, MAX_KEPT);
            make_printable(&mut violation.value, MAX_KEPT);
            make_printable(&mut violation.description, MAX_KEPT);
        }
        self.0.permission_violations = permission;
        self.0.field_violations = field;
        self
    }

    pub(crate) fn with_users(mut self, users: UserIds) -> Self {
        self.0.users = users;
        self
    }

    pub(crate) fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.0.outcome = Some(outcome);
        self
    }

    /// Sets the number of the call, also in the outcome that the error carries.
    pub(crate) fn set_call(&mut self, number: u64) {
        self.0.call = Some(number);
        if let Some(outcome) = &mut self.0.outcome {
            outcome.call = Some(number);
        }
    }

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into().into());
        self
    }

    /// Sets the text of the source: see [`Detail::cause`].
    pub(crate) fn with_cause(mut self, cause: impl Into<Text>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind.unwrap_or(ErrorKind::UnexpectedResponse)
    }

    /// What happened, without the details and the hint that [`Display`](fmt::Display) adds. The cause is in
    /// [`source`](std::error::Error::source).
    pub fn message(&self) -> &str {
        self.0.message.as_str()
    }

    /// The argument or option that is wrong, such as `user_ids[3]`.
    pub fn field(&self) -> Option<&str> {
        self.0.field.as_ref().map(Text::as_str)
    }

    /// The platform's `code`.
    pub fn platform_code(&self) -> Option<i64> {
        self.0.platform_code
    }

    /// The platform's `msg`. Prose that changes over the years: show it, never branch on it. Control characters
    /// are escaped, and it is cut after 4,000 characters; [`message`](Self::message) quotes at most 500.
    pub fn msg(&self) -> Option<&str> {
        self.0.msg.as_deref()
    }

    /// The HTTP status of the last answer.
    pub fn http_status(&self) -> Option<u16> {
        self.0.http_status
    }

    /// The platform's log id of the last answer. The platform's support asks for it.
    pub fn log_id(&self) -> Option<&str> {
        self.0.log_id.as_deref()
    }

    /// Whether the same call may succeed later without any change.
    pub fn retryable(&self) -> bool {
        self.kind().retryable() && self.0.reason.is_none_or(ConnectionReason::retryable)
    }

    /// How long to wait before calling again, if known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Number of the call, unique in this process: the `call` of its spans and events. `None` if the call's arguments
    /// were invalid, because no call began.
    pub fn call(&self) -> Option<u64> {
        self.0.call
    }

    /// How many times the request was sent.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// The step at which the call failed.
    pub fn station(&self) -> Option<Station> {
        self.0.station
    }

    /// Why there was no connection, or why it broke. Only set for [`ConnectionFailed`](ErrorKind::ConnectionFailed).
    /// `None` if the connection is not at fault, for example if the process has no file descriptor left.
    pub fn reason(&self) -> Option<ConnectionReason> {
        self.0.reason
    }

    /// What to do, in one sentence.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_ref().map(Text::as_str)
    }

    /// The missing permissions, as the platform reports them.
    pub fn permission_violations(&self) -> &[PermissionViolation] {
        &self.0.permission_violations
    }

    /// The fields that the platform refused.
    pub fn field_violations(&self) -> &[FieldViolation] {
        &self.0.field_violations
    }

    /// The user ids of the call, by result.
    pub fn users(&self) -> &UserIds {
        &self.0.users
    }

    /// The outcome of those requests of a split call that succeeded. For a
    /// [`PartialFailure`](ErrorKind::PartialFailure), the outcome of the whole call.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.0.outcome.as_ref()
    }
}

/// The texts of an error, with the names in a language's spelling.
#[derive(Debug)]
pub struct Spelled {
    /// The printed error.
    pub printed: String,
    /// [`Error::field`]
    pub field: Option<String>,
    /// [`Error::hint`]
    pub hint: Option<String>,
}

impl Error {
    pub(crate) fn spelled(&self, spelling: Spelling) -> Spelled {
        let field = self.0.field.as_ref().map(|field| field.spelled(spelling));
        let hint = self.0.hint.as_ref().map(|hint| hint.spelled(spelling));
        let mut message = self.0.message.spelled(spelling);
        if let Some(cause) = &self.0.cause {
            message.push_str(": ");
            message.push_str(&cause.spelled(spelling));
        }
        Spelled {
            printed: self.printed(&message, hint.as_deref()),
            field,
            hint,
        }
    }

    fn printed(&self, message: &str, hint: Option<&str>) -> String {
        let detail = &*self.0;
        let mut details = Vec::new();
        details.extend(detail.platform_code.map(|code| format!("code {code}")));
        details.extend(detail.http_status.map(|status| format!("HTTP {status}")));
        details.extend(detail.reason.map(|reason| format!("reason {reason}")));
        details.extend(detail.station.map(|station| format!("station {station}")));
        details.extend((detail.attempts > 0).then(|| format!("attempts {}", detail.attempts)));
        details.extend(
            detail
                .retry_after
                .map(|wait| format!("retry after {:.1} s", wait.as_secs_f64())),
        );
        details.extend(detail.log_id.as_ref().map(|log_id| format!("log_id {log_id}")));
        let details = if details.is_empty() {
            String::new()
        } else {
            format!(" ({})", details.join(", "))
        };
        let hint = hint.map(|hint| format!(". {hint}")).unwrap_or_default();
        format!("{message}{details}{hint}")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.printed(self.message(), self.hint()))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = &*self.0;
        let mut debug = f.debug_struct("Error");
        debug
            .field("kind", &self.kind())
            .field("message", &self.message());
        macro_rules! known {
            ($($field:ident),+) => { $(if let Some(value) = &detail.$field { debug.field(stringify!($field), value); })+ };
        }
        known!(
            platform_code,
            msg,
            http_status,
            log_id,
            station,
            reason,
            retry_after
        );
        if let Some(hint) = self.hint() {
            debug.field("hint", &hint);
        }
        debug.field("attempts", &detail.attempts);
        if let Some(source) = &detail.source {
            debug.field("source", &format_args!("{}", quoted(source)));
        }
        debug.finish_non_exhaustive()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::data::text::text;

    /// An error with every detail that is printed.
    fn full() -> Error {
        Error::new(ErrorKind::RateLimited, "the platform said: slow down")
            .with_platform(Some(99_991_400), Some("slow down".to_owned()), 429)
            .with_log_id(Some("2026".to_owned()))
            .with_station(Station::Answer)
            .with_attempts(3)
            .with_retry_after(Some(Duration::from_millis(1500)))
            .with_hint("Call again later")
            .with_source("the cause")
    }

    #[test]
    fn a_printed_error_has_the_message_then_the_details_then_the_hint() {
        assert_eq!(
            full().to_string(),
            "the platform said: slow down (code 99991400, HTTP 429, station answer, attempts 3, \
             retry after 1.5 s, log_id 2026). Call again later"
        );
    }

    #[test]
    fn only_the_bindings_print_the_cause() {
        let source = std::io::Error::other("no answer in time");
        let error = Error::new(ErrorKind::ConnectionFailed, "no connection (x.invalid)")
            .with_reason(Some(ConnectionReason::Dns))
            .with_cause(text!("no answer in {timeout}"))
            .with_source(source);
        assert_eq!(error.to_string(), "no connection (x.invalid) (reason dns)");
        assert_eq!(
            error.spelled(str::to_uppercase).printed,
            "no connection (x.invalid): no answer in TIMEOUT (reason dns)"
        );
    }

    #[test]
    fn a_printed_error_leaves_out_unknown_details() {
        let bare = Error::new(ErrorKind::Server, "it failed");
        assert_eq!(bare.to_string(), "it failed");
        assert_eq!(bare.with_attempts(1).to_string(), "it failed (attempts 1)");
        assert_eq!(
            Error::invalid_input("user_ids[3]", "empty", "an id").to_string(),
            "user_ids[3]: empty; expected an id"
        );
    }

    #[test]
    fn only_marked_names_are_spelled_differently() {
        let error = Error::invalid_input(text!("{base_url}"), "base_url", text!("a URL, with {timeout}"))
            .with_platform(None, Some("base_url".to_owned()), 400)
            .with_hint(text!("Check {base_url}"));
        let spelled = error.spelled(str::to_uppercase);
        assert_eq!(
            spelled.printed,
            "BASE_URL: base_url; expected a URL, with TIMEOUT (HTTP 400). Check BASE_URL"
        );
        assert_eq!(spelled.field.as_deref(), Some("BASE_URL"));
        assert_eq!(spelled.hint.as_deref(), Some("Check BASE_URL"));
        assert_eq!(error.msg(), Some("base_url"));
        assert_eq!(error.spelled(str::to_owned).printed, error.to_string());
    }

    #[test]
    fn debug_output_has_the_known_details_only() {
        let shown = format!("{:?}", full());
        for part in [
            "RateLimited",
            "slow down",
            "99991400",
            "429",
            "2026",
            "Answer",
            "1.5s",
            "attempts: 3",
            "Call again later",
            "the cause",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        let shown = format!("{:?}", Error::new(ErrorKind::Server, "it failed"));
        assert!(!shown.contains("None"), "{shown}");
    }

    #[test]
    fn an_error_keeps_the_platforms_words_and_its_cause() {
        let error = full();
        assert_eq!(error.msg(), Some("slow down"));
        assert_eq!(error.source().unwrap().to_string(), "the cause");
        let bare = Error::new(ErrorKind::Server, "it failed");
        assert!(bare.msg().is_none() && bare.source().is_none());
    }

    #[test]
    fn no_text_enters_an_error_unescaped_or_unbounded() {
        let text = || format!("\u{1b}[2J\r\n{}", "x".repeat(900_000));
        let permission = PermissionViolation {
            kind: text(),
            subject: text(),
        };
        let field = FieldViolation {
            field: text(),
            value: text(),
            description: text(),
        };
        let error = Error::new(ErrorKind::Server, text())
            .with_platform(Some(1), Some(text()), 200)
            .with_log_id(Some(text()))
            .with_hint(text())
            .with_violations(vec![permission], vec![field])
            .with_source(text());
        let shown = format!(
            "{error} {error:?} {:?} {:?}",
            error.permission_violations(),
            error.field_violations()
        );
        assert!(shown.len() < 60_000, "{}", shown.len());
        assert!(!shown.contains(char::is_control), "{shown}");
        for text in [error.message(), error.msg().unwrap(), error.hint().unwrap()] {
            assert!(text.starts_with(r"\u{1b}[2J\r\nx"), "{text}");
        }
    }

    #[test]
    fn a_kind_is_printed_by_its_name() {
        for &kind in ErrorKind::ALL {
            assert_eq!(kind.to_string(), kind.as_str());
        }
    }
}
