//! Fetching a token: from the platform for a self-built app or a store app, or from a provider, or a fixed token.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use zeroize::Zeroizing;

use super::{Abandoned, FetchTime, NoThread, Token, TokenProvider, TokenReason, provider};
use crate::data::error::{BoxError, Error, ErrorKind, Station};
use crate::data::outside;
use crate::data::secret::{self, Mask};
use crate::data::text::{Template, text};
use crate::platform::answer::{self, Data, Failure, NOT_THE_PLATFORM, Reading};
use crate::platform::base_url::BaseUrl;
use crate::platform::codes::{APP_TICKET_INVALID, RetryRule};
use crate::platform::no_answer;
use crate::stations::deadline::after;
use crate::stations::retry::Retries;
use crate::transport::{Outgoing, Sent, Transport, TransportError};

const SELF_BUILT: &str = "/open-apis/auth/v3/tenant_access_token/internal";
const APP_ACCESS_TOKEN: &str = "/open-apis/auth/v3/app_access_token";
const TENANT_ACCESS_TOKEN: &str = "/open-apis/auth/v3/tenant_access_token";
const RESEND: &str = "/open-apis/auth/v3/app_ticket/resend";

/// The longest time for one request of a fetch, without an `attempt_timeout`. All calls wait for the token and the
/// request is safe to retry, so a lost request must not use up their whole time.
const MAX_ATTEMPT: Duration = Duration::from_secs(10);

/// How long a fetch waits for an app ticket that it has requested.
const TICKET_WAIT: Duration = Duration::from_secs(5);

pub(crate) type Fetching = Pin<Box<dyn Future<Output = Result<Token, Error>> + Send>>;

/// The client's credentials.
pub(crate) enum Identity {
    SelfBuilt(Arc<SelfBuiltApp>),
    Store(Arc<StoreApp>),
    Given(SecretString),
    Provider(Arc<dyn TokenProvider>),
}

/// A self-built app, which belongs to one tenant.
pub(crate) struct SelfBuiltApp {
    pub(crate) app_id: String,
    pub(crate) app_secret: SecretString,
}

/// A store app for one tenant. It authenticates with a ticket that the platform pushes every hour.
pub(crate) struct StoreApp {
    pub(crate) app_id: String,
    pub(crate) app_secret: SecretString,
    pub(crate) tenant_key: String,
    pub(crate) ticket: watch::Sender<Option<SecretString>>,
    /// The app's token, and when to renew it.
    pub(crate) app_access_token: Mutex<Option<(SecretString, Instant)>>,
}

/// Access to the token endpoints.
pub(crate) struct Endpoints {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) base_url: BaseUrl,
    /// The time for one fetch, if no caller waits longer.
    pub(crate) timeout: Duration,
    /// The time for each request of a fetch.
    pub(crate) attempt_timeout: Option<Duration>,
    pub(crate) max_retries: u32,
}

/// The source of tokens.
pub(crate) struct Source {
    pub(crate) identity: Identity,
    pub(crate) endpoints: Arc<Endpoints>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.identity {
            Identity::SelfBuilt(_) => "SelfBuilt",
            Identity::Store(_) => "Store",
            Identity::Given(_) => "Given",
            Identity::Provider(_) => "Provider",
        };
        f.debug_tuple("Source").field(&kind).finish()
    }
}

impl Source {
    /// Masks the secrets that this source knows.
    pub(crate) fn mask(&self, text: &mut String) {
        match &self.identity {
            Identity::SelfBuilt(app) => secret::mask(text, &app.app_secret),
            Identity::Store(app) => app.mask(text),
            Identity::Given(token) => secret::mask(text, token),
            Identity::Provider(_) => {}
        }
    }

    /// Whether a refused token can be replaced.
    pub(crate) fn can_replace(&self) -> bool {
        !matches!(self.identity, Identity::Given(_))
    }

    /// Forgets the app token from which a store app got its refused token, because it may have been revoked, too.
    pub(super) fn forget(&self) {
        if let Identity::Store(app) = &self.identity {
            app.remember(None);
        }
    }

    /// Completes the error of a call whose token was refused, if the next fetch returned the same token.
    pub(crate) fn same_token_again(&self, refusal: Error) -> Error {
        match self.identity {
            Identity::Provider(_) => refusal
                .with_message(text!(
                    "the {token_provider} returned the token that the platform had refused"
                ))
                .with_station(Station::Token)
                .with_hint(text!(
                    "Return a different token when the {token_provider} receives a {refused_token}"
                )),
            _ => refusal.with_hint(text!(
                "Check that the app is enabled and that {base_url} is right for it: the platform issued the refused token \
                 again"
            )),
        }
    }

    /// Fetches a token, which replaces `refused` if that is given. Calls a provider immediately, not when the future is
    /// first polled, so that it finds the origin of the call (see `data/origin.rs`).
    pub(super) fn fetch(&self, time: &FetchTime, refused: Option<&Token>) -> Fetching {
        let endpoints = self.endpoints.clone();
        let time = time.clone();
        let fetch: Fetching = match &self.identity {
            Identity::SelfBuilt(app) => {
                let (app, time) = (app.clone(), time.clone());
                Box::pin(async move { app.tenant_access_token(&endpoints, &time).await })
            }
            Identity::Store(app) => {
                let (app, time) = (app.clone(), time.clone());
                Box::pin(async move { app.tenant_access_token(&endpoints, &time).await })
            }
            Identity::Given(token) => Box::pin(ready(Token::new(token.clone(), Some(super::LONGEST_LIFE)))),
            Identity::Provider(provider) => {
                let providing = provider::call(
                    &**provider,
                    TokenReason {
                        refused: refused.map(|token| &token.value),
                    },
                );
                let (time, cap) = (time.clone(), endpoints.provider_limit(&time));
                Box::pin(async move {
                    match time.bound(Some(cap), providing).await {
                        Some(Ok(token)) => match secret::token_fault(&token.value) {
                            Some(fault) => Err(provider_failed(
                                format!("the returned token cannot be used: it {fault}").into(),
                            )),
                            None => Token::new(token.value, token.life),
                        },
                        Some(Err(error)) => Err(provider_failed(error)),
                        None => Err(timed_out(text!(
                            "the token provider took too long (fetching the token)"
                        ))),
                    }
                })
            }
        };
        Box::pin(async move {
            let fetched = time.bound(None, fetch).await;
            let fetched = fetched.unwrap_or_else(|| Err(timed_out(DEADLINE_PASSED)));
            fetched.map_err(|error| error.with_station(Station::Token))
        })
    }
}

const DEADLINE_PASSED: Template = text!("the deadline passed (fetching the token)");

fn timed_out(message: Template) -> Error {
    Error::new(ErrorKind::DeadlineExceeded, message)
        .with_station(Station::Token)
        .with_hint("Give the call a longer timeout, or call again")
}

fn provider_failed(error: BoxError) -> Error {
    let error = match error.downcast::<NoThread>() {
        Ok(no_thread) => return no_answer::out_of_resources(no_thread),
        Err(error) => error,
    };
    Error::new(ErrorKind::Authentication, "the token provider failed")
        .with_hint("Fix the token provider: the client has no other source of tokens")
        .with_cause(outside::quoted(&error))
        .with_source(error)
}

/// Whether the error is that of a provider that was stopped before it returned. Another caller may then call the provider
/// again immediately.
pub(super) fn was_abandoned(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    source.is_some_and(<dyn std::error::Error>::is::<Abandoned>)
}

#[derive(Deserialize)]
struct TokenData {
    code: i64,
    #[serde(default)]
    tenant_access_token: Option<String>,
    #[serde(default)]
    app_access_token: Option<String>,
    #[serde(default)]
    expire: Option<Value>,
}

impl Data for TokenData {
    fn code(&self) -> i64 {
        self.code
    }

    /// Does nothing, because no error or outcome shows these texts.
    fn admit_texts(&mut self, _: Mask<'_>) {}
}

impl TokenData {
    /// The life in `expire`, in seconds (docs/platform.md#self-built-app). Also accepts a number in quotes. Any other value
    /// counts as missing.
    fn life(&self) -> Option<Duration> {
        let expire = self.expire.as_ref()?;
        let seconds = expire.as_f64().or_else(|| expire.as_str()?.trim().parse().ok())?;
        Duration::try_from_secs_f64(seconds.clamp(0.0, super::LONGEST_LIFE.as_secs_f64())).ok()
    }
}

impl SelfBuiltApp {
    async fn tenant_access_token(&self, endpoints: &Endpoints, time: &FetchTime) -> Result<Token, Error> {
        let body = [
            ("app_id", &*self.app_id),
            ("app_secret", self.app_secret.expose_secret()),
        ];
        let mask = |text: &mut String| secret::mask(text, &self.app_secret);
        let data = endpoints.post(SELF_BUILT, &body, time, &mask).await;
        tenant_token(data.map_err(|failure| failure.error)?)
    }
}

fn tenant_token(data: TokenData) -> Result<Token, Error> {
    let life = data.life();
    let token = data.tenant_access_token.filter(|token| !token.is_empty());
    let Some(token) = token else {
        return Err(no_token("tenant_access_token"));
    };
    Token::new(token.into(), life)
}

fn no_token(name: &str) -> Error {
    Error::new(
        ErrorKind::UnexpectedResponse,
        format!("the answer has code 0 but no {name}"),
    )
    .with_hint(NOT_THE_PLATFORM)
}

impl StoreApp {
    fn mask(&self, text: &mut String) {
        secret::mask(text, &self.app_secret);
        if let Some(ticket) = &*self.ticket.borrow() {
            secret::mask(text, ticket);
        }
        if let Some((token, _)) = self.app_access_token() {
            secret::mask(text, &token);
        }
    }

    fn app_access_token(&self) -> Option<(SecretString, Instant)> {
        self.app_access_token
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn remember(&self, token: Option<(SecretString, Instant)>) {
        *self
            .app_access_token
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = token;
    }

    async fn tenant_access_token(&self, endpoints: &Endpoints, time: &FetchTime) -> Result<Token, Error> {
        let remembered = self
            .app_access_token()
            .filter(|(_, renew_at)| Instant::now() < *renew_at);
        if let Some((token, _)) = remembered {
            match self.exchange(endpoints, &token, time).await {
                // A wrong tenant_key has the same kind of error. With a new app_access_token it fails again below.
                Err(error) if error.kind() == ErrorKind::Authentication => self.remember(None),
                result => return result,
            }
        }
        let token = self.fetch_app_access_token(endpoints, time).await?;
        self.exchange(endpoints, &token, time).await
    }

    async fn exchange(
        &self,
        endpoints: &Endpoints,
        token: &SecretString,
        time: &FetchTime,
    ) -> Result<Token, Error> {
        let body = [
            ("app_access_token", token.expose_secret()),
            ("tenant_key", &*self.tenant_key),
        ];
        let mask = |text: &mut String| {
            secret::mask(text, token);
            self.mask(text);
        };
        let data = endpoints.post(TENANT_ACCESS_TOKEN, &body, time, &mask).await;
        tenant_token(data.map_err(|failure| failure.error)?)
    }

    /// Fetches an app token with the current ticket. If there is no ticket or the platform refuses it, requests another
    /// one and waits for it.
    async fn fetch_app_access_token(
        &self,
        endpoints: &Endpoints,
        time: &FetchTime,
    ) -> Result<SecretString, Error> {
        let mut tickets = self.ticket.subscribe();
        let ticket = tickets.borrow_and_update().clone();
        let refusal = match ticket {
            Some(ticket) => match self.app_access_token_with(endpoints, &ticket, time).await {
                Err(failure) if failure.error.platform_code() == Some(APP_TICKET_INVALID) => failure.error,
                result => return result.map_err(|failure| failure.error),
            },
            None => Error::new(ErrorKind::Authentication, text!("there is no {app_ticket} yet")).with_hint(
                text!("Pass the {app_ticket} that your event endpoint receives to {set_app_ticket}; the client has requested one"),
            ),
        };
        self.request_ticket(endpoints, time).await?;
        let deadline = Instant::now() + TICKET_WAIT;
        match timeout_at(deadline, tickets.changed()).await {
            Ok(Ok(())) => {}
            _ => return Err(refusal),
        }
        let ticket = tickets.borrow_and_update().clone();
        let Some(ticket) = ticket else { return Err(refusal) };
        self.app_access_token_with(endpoints, &ticket, time)
            .await
            .map_err(|failure| failure.error)
    }

    async fn app_access_token_with(
        &self,
        endpoints: &Endpoints,
        ticket: &SecretString,
        time: &FetchTime,
    ) -> Result<SecretString, Failure> {
        let body = [
            ("app_id", &*self.app_id),
            ("app_secret", self.app_secret.expose_secret()),
            ("app_ticket", ticket.expose_secret()),
        ];
        let mask = |text: &mut String| {
            secret::mask(text, ticket);
            self.mask(text);
        };
        let data = endpoints.post(APP_ACCESS_TOKEN, &body, time, &mask).await?;
        let life = data.life();
        let token = data.app_access_token.filter(|token| !token.is_empty());
        let Some(token) = token else {
            return Err(no_token("app_access_token").into());
        };
        let token = SecretString::from(token);
        let life = life.unwrap_or(super::UNKNOWN_LIFE);
        let renew_at = Instant::now() + life - (life / 2).min(super::MAX_MARGIN);
        self.remember(Some((token.clone(), renew_at)));
        Ok(token)
    }

    async fn request_ticket(&self, endpoints: &Endpoints, time: &FetchTime) -> Result<(), Error> {
        let body = [
            ("app_id", &*self.app_id),
            ("app_secret", self.app_secret.expose_secret()),
        ];
        let mask = |text: &mut String| self.mask(text);
        let data = endpoints.post(RESEND, &body, time, &mask).await;
        data.map(drop).map_err(|failure| failure.error)
    }
}

impl From<Error> for Failure {
    /// Converts an error into a failure without a retry.
    fn from(error: Error) -> Self {
        Self {
            error,
            retry: RetryRule::No,
            wait: None,
            limit: None,
            is_answer: true,
        }
    }
}

impl Endpoints {
    async fn post(
        &self,
        path: &str,
        body: &[(&str, &str)],
        time: &FetchTime,
        mask: Mask<'_>,
    ) -> Result<TokenData, Failure> {
        let body = secret_json(body).map_err(Failure::from)?;
        let mut retries = Retries::new(self.max_retries, false);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let cap = match self.attempt_timeout {
                Some(timeout) => after(timeout),
                None => after(self.timeout.saturating_mul(2).min(MAX_ATTEMPT)),
            };
            let attempt = self.post_once(path, body.clone());
            let failure = match time.bound(Some(cap), attempt).await {
                Some(Ok(response)) => match answer::read_secret(&response, mask) {
                    Reading::Success { data, .. } => return Ok(data),
                    Reading::Failure(failure) => failure,
                },
                Some(Err(error)) => no_answer::no_answer(error, true),
                None if time.is_over() => return Err(timed_out(DEADLINE_PASSED).into()),
                None => self.attempt_timed_out(),
            };
            let wait = retries.next(retry_rule(&failure), failure.wait);
            match wait {
                Some(wait) if Instant::now() + wait < time.until() => sleep(wait).await,
                _ => {
                    let retry_after = wait.or(failure.wait);
                    return Err(Failure {
                        error: failure
                            .error
                            .with_attempts(attempts)
                            .with_retry_after(retry_after),
                        ..failure
                    });
                }
            }
        }
    }

    /// When to give up a provider that does not return. Without this limit, callers that keep joining would keep a hanging
    /// provider alive. A caller with the client's timeout that joins within that timeout still has its whole time.
    fn provider_limit(&self, time: &FetchTime) -> Instant {
        time.until().max(after(self.timeout.saturating_mul(2)))
    }

    fn attempt_timed_out(&self) -> Failure {
        let message = if self.attempt_timeout.is_some() {
            text!("the {attempt_timeout} passed (fetching the token)")
        } else {
            text!("the token endpoint took too long (fetching the token)")
        };
        Failure {
            retry: RetryRule::Backoff,
            is_answer: false,
            ..timed_out(message).into()
        }
    }

    async fn post_once(&self, path: &str, body: Bytes) -> Result<Response<Bytes>, TransportError> {
        let request = Outgoing {
            method: Method::POST,
            url: self.base_url.join(path),
            authorization: None,
            body,
        };
        self.transport.send(request, Sent::default()).await
    }
}

/// The retry rule for a failure of a token request. The token endpoints report their errors with HTTP 200. A response with
/// another status and without a code of the platform comes from a gateway, and is retried
/// (docs/platform.md#token-errors).
fn retry_rule(failure: &Failure) -> RetryRule {
    let is_from_gateway = !failure.is_answer
        && failure
            .error
            .http_status()
            .is_some_and(|status| !(200..300).contains(&status));
    match failure.retry {
        RetryRule::No if is_from_gateway => RetryRule::Backoff,
        // These requests do not use the quota, so a pause counts as a retry.
        RetryRule::Pause => RetryRule::Backoff,
        retry => retry,
    }
}

/// Creates a request body that contains secrets. It is zeroed when the last attempt drops it.
fn secret_json(fields: &[(&str, &str)]) -> Result<Bytes, Error> {
    // Reserve the largest size, because a buffer that grows would leave a copy of the secret behind. JSON escapes one
    // byte as six bytes at most.
    let max_size = fields
        .iter()
        .map(|(name, value)| name.len() + 6 * value.len() + 6)
        .sum::<usize>()
        + 2;
    let mut bytes = Zeroizing::new(Vec::with_capacity(max_size));
    let fields: BTreeMap<_, _> = fields.iter().copied().collect();
    serde_json::to_writer(&mut *bytes, &fields)
        .map_err(|error| Error::new(ErrorKind::InvalidInput, error.to_string()))?;
    debug_assert!(bytes.len() <= max_size, "the buffer must not grow");
    Ok(Bytes::from_owner(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_of_a_secret_body_does_not_grow() {
        // JSON escapes a control character with the most bytes.
        let longest = "\u{1}".repeat(100);
        for value in ["", "s", r#""\"#, "提", &longest] {
            let body = secret_json(&[("app_id", value), ("app_secret", value)]).unwrap();
            let read: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(read, serde_json::json!({"app_id": value, "app_secret": value}));
        }
    }
}
