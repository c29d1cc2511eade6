//! Fetching a token: from the platform for a self-built or a store app, from a provider, or as given.

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

/// How long one request of a fetch may take without an `attempt_timeout`. All calls wait for it, and it may be repeated
/// freely: one that is lost must not cost them their whole time.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(10);

/// How long a fetch waits for the app ticket that it asked the platform to push again.
const TICKET_WAIT: Duration = Duration::from_secs(5);

pub(crate) type Fetching = Pin<Box<dyn Future<Output = Result<Token, Error>> + Send>>;

/// Who the client is.
pub(crate) enum Identity {
    SelfBuilt(Arc<SelfBuiltApp>),
    Store(Arc<StoreApp>),
    Given(SecretString),
    Provider(Arc<dyn TokenProvider>),
}

/// A self-built app, of one tenant.
pub(crate) struct SelfBuiltApp {
    pub(crate) app_id: String,
    pub(crate) app_secret: SecretString,
}

/// A store app. It acts for one tenant, and authenticates with a ticket that the platform pushes every hour.
pub(crate) struct StoreApp {
    pub(crate) app_id: String,
    pub(crate) app_secret: SecretString,
    pub(crate) tenant_key: String,
    pub(crate) ticket: watch::Sender<Option<SecretString>>,
    pub(crate) app_access_token: Mutex<Option<(SecretString, Instant)>>,
}

/// How the token endpoints are reached.
pub(crate) struct Endpoints {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) base_url: BaseUrl,
    /// For one fetch, if no caller waits longer.
    pub(crate) timeout: Duration,
    /// For each request of a fetch.
    pub(crate) attempt_timeout: Option<Duration>,
    pub(crate) max_retries: u32,
}

/// Where tokens come from.
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

    /// Whether a refused token can be replaced by another.
    pub(crate) fn can_replace(&self) -> bool {
        !matches!(self.identity, Identity::Given(_))
    }

    /// Forgets what a refused token was made from: it may have been revoked too.
    pub(super) fn forget(&self) {
        if let Identity::Store(app) = &self.identity {
            app.remember(None);
        }
    }

    /// Completes the error of a call whose token was refused, and for which the next fetch returned the same token.
    pub(crate) fn same_token_again(&self, refusal: Error) -> Error {
        match self.identity {
            Identity::Provider(_) => refusal
                .with_message(text!(
                    "the {token_provider} returned the token that the platform had refused"
                ))
                .with_station(Station::Token)
                .with_hint(text!(
                    "Return a different token when the {token_provider} gets a {refused_token}"
                )),
            _ => refusal.with_hint(text!(
                "The platform issued the refused token again: check that app and {base_url} belong together and that \
                 the app is enabled"
            )),
        }
    }

    /// Fetches a token, to replace the `refused` one if there is one. A provider is called immediately and not at the
    /// first poll, so that it knows which call it serves.
    pub(super) fn fetch(&self, time: &FetchTime, refused: Option<&Token>) -> Fetching {
        let endpoints = self.endpoints.clone();
        let time = time.clone();
        let fetching: Fetching = match &self.identity {
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
                let providing = provider::ask(
                    &**provider,
                    TokenReason {
                        refused: refused.map(|token| &token.value),
                    },
                );
                let (time, cap) = (time.clone(), endpoints.longest_wait(&time));
                Box::pin(async move {
                    match time.bound(Some(cap), providing).await {
                        Some(Ok(token)) => match secret::why_no_token(&token.value) {
                            Some(fault) => Err(provider_failed(
                                format!("the token it returned cannot be used ({fault})").into(),
                            )),
                            None => Token::new(token.value, token.life),
                        },
                        Some(Err(error)) => Err(provider_failed(error)),
                        None => Err(time_is_over(text!(
                            "the token provider took too long (fetching the token)"
                        ))),
                    }
                })
            }
        };
        Box::pin(async move {
            let fetched = time.bound(None, fetching).await;
            let fetched = fetched.unwrap_or_else(|| Err(time_is_over(DEADLINE_PASSED)));
            fetched.map_err(|error| error.with_station(Station::Token))
        })
    }
}

const DEADLINE_PASSED: Template = text!("the deadline passed (fetching the token)");

fn time_is_over(message: Template) -> Error {
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
        .with_hint("Fix the token provider: the client has no other way to a token")
        .with_cause(outside::quoted(&error))
        .with_source(error)
}

/// Whether a provider was stopped before it returned: then another caller may ask again immediately.
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

    /// No error or outcome shows any of its texts.
    fn admit_texts(&mut self, _: Mask<'_>) {}
}

impl TokenData {
    /// In seconds (docs/platform.md#self-built-app). Accepts a number in quotes too; anything else counts as
    /// absent.
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
                // A wrong tenant_key looks the same; with a new app_access_token it is refused again.
                Err(error) if error.kind() == ErrorKind::Authentication => self.remember(None),
                exchanged => return exchanged,
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

    /// Uses the current ticket. If there is none, or the platform refuses it, asks for another and waits for it.
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
                answered => return answered.map_err(|failure| failure.error),
            },
            None => Error::new(ErrorKind::Authentication, text!("there is no {app_ticket} yet")).with_hint(
                text!("Pass the {app_ticket} that your event endpoint receives to {set_app_ticket}; one was asked for"),
            ),
        };
        self.ask_for_ticket(endpoints, time).await?;
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
        let renew_at = Instant::now() + life - (life / 2).min(super::WIDEST_MARGIN);
        self.remember(Some((token.clone(), renew_at)));
        Ok(token)
    }

    async fn ask_for_ticket(&self, endpoints: &Endpoints, time: &FetchTime) -> Result<(), Error> {
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
    /// A failure that no retry can fix.
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
        let mut replays = Retries::new(self.max_retries, false);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let cap = match self.attempt_timeout {
                Some(most) => after(most),
                None => after(self.timeout.saturating_mul(2).min(LONGEST_ATTEMPT)),
            };
            let attempt = self.post_once(path, body.clone());
            let failure = match time.bound(Some(cap), attempt).await {
                Some(Ok(response)) => match answer::read_secret(&response, mask) {
                    Reading::Success { data, .. } => return Ok(data),
                    Reading::Failure(failure) => failure,
                },
                Some(Err(error)) => no_answer::no_answer(error, true),
                None if time.is_over() => return Err(time_is_over(DEADLINE_PASSED).into()),
                None => self.attempt_timed_out(),
            };
            let wait = replays.next(worth(&failure), failure.wait);
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

    /// When to give up a provider that does not return. A caller that joins within the client's timeout has all of its own time until then. Without this limit,
    /// callers that keep joining would keep a hanging provider alive.
    fn longest_wait(&self, time: &FetchTime) -> Instant {
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
            ..time_is_over(message).into()
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

/// The token endpoints report their own errors with HTTP 200. Another status without a code of the platform
/// comes from a gateway in between, and is retried (docs/platform.md#token-errors).
fn worth(failure: &Failure) -> RetryRule {
    let is_noise = !failure.is_answer
        && failure
            .error
            .http_status()
            .is_some_and(|status| !(200..300).contains(&status));
    match failure.retry {
        RetryRule::No if is_noise => RetryRule::Backoff,
        // No quota paces these requests, so every wait costs a retry.
        RetryRule::Pause => RetryRule::Backoff,
        retry => retry,
    }
}

/// A request body that contains a secret. Zeroed when the last attempt drops it.
fn secret_json(fields: &[(&str, &str)]) -> Result<Bytes, Error> {
    // JSON escapes one byte as six at most. A buffer that grows would leave a copy of the secret behind.
    let most = fields
        .iter()
        .map(|(name, value)| name.len() + 6 * value.len() + 6)
        .sum::<usize>()
        + 2;
    let mut bytes = Zeroizing::new(Vec::with_capacity(most));
    let fields: BTreeMap<_, _> = fields.iter().copied().collect();
    serde_json::to_writer(&mut *bytes, &fields)
        .map_err(|error| Error::new(ErrorKind::InvalidInput, error.to_string()))?;
    debug_assert!(bytes.len() <= most, "a buffer that grew");
    Ok(Bytes::from_owner(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secrets_body_never_outgrows_its_buffer() {
        // A control character takes the most bytes in JSON.
        let longest = "\u{1}".repeat(100);
        for value in ["", "s", r#""\"#, "提", &longest] {
            let body = secret_json(&[("app_id", value), ("app_secret", value)]).unwrap();
            let read: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(read, serde_json::json!({"app_id": value, "app_secret": value}));
        }
    }
}
