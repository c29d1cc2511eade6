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

use super::{Abandoned, BoxError, NoThread, Token, TokenProvider, provider};
use crate::answer::{self, Data, Failure, Reading};
use crate::base_url::BaseUrl;
use crate::codes::{APP_TICKET_INVALID, Replay};
use crate::error::{Error, ErrorKind, Station};
use crate::retry::Replays;
use crate::secret::{self, Mask};
use crate::transport::{Outgoing, Sent, Transport, TransportError};

const SELF_BUILT: &str = "/open-apis/auth/v3/tenant_access_token/internal";
const APP_ACCESS_TOKEN: &str = "/open-apis/auth/v3/app_access_token";
const TENANT_ACCESS_TOKEN: &str = "/open-apis/auth/v3/tenant_access_token";
const RESEND: &str = "/open-apis/auth/v3/app_ticket/resend";

/// How long a call waits for the ticket that it asked the platform to push again.
const TICKET_WAIT: Duration = Duration::from_secs(5);

pub(crate) type Fetching = Pin<Box<dyn Future<Output = Result<Token, Error>> + Send>>;

/// Who the client is.
pub(crate) enum Identity {
    SelfBuilt(Arc<SelfBuiltApp>),
    Store(Arc<StoreApp>),
    Given(SecretString),
    Provider(Arc<dyn TokenProvider>),
}

/// An app of one tenant's own.
pub(crate) struct SelfBuiltApp {
    pub(crate) app_id: String,
    pub(crate) app_secret: SecretString,
}

/// An app of the store: it acts for one tenant, and proves itself with a ticket that the platform
/// pushes every hour.
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
    pub(crate) timeout: Duration,
    pub(crate) max_retries: u32,
}

/// Makes tokens.
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
    /// Masks the secrets that this source knows, wherever a text repeats them.
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

    /// What a refused token was made from is not to be trusted either.
    pub(super) fn forget(&self) {
        if let Identity::Store(app) = &self.identity {
            app.remember(None);
        }
    }

    /// Fetches a token. A provider is called at once and not when first polled, so that it can tell whose
    /// call it serves.
    pub(super) fn fetch(&self, until: Instant) -> Fetching {
        let endpoints = self.endpoints.clone();
        let fetching: Fetching = match &self.identity {
            Identity::SelfBuilt(app) => {
                let app = app.clone();
                Box::pin(async move { app.tenant_access_token(&endpoints, until).await })
            }
            Identity::Store(app) => {
                let app = app.clone();
                Box::pin(async move { app.tenant_access_token(&endpoints, until).await })
            }
            Identity::Given(token) => Box::pin(ready(Token::new(token.clone(), Some(super::LONGEST_LIFE)))),
            Identity::Provider(provider) => {
                let providing = provider::ask(&**provider);
                Box::pin(async move {
                    match providing.await {
                        Ok(token) => Token::new(token.value, token.life),
                        Err(error) => Err(provider_failed(error)),
                    }
                })
            }
        };
        Box::pin(async move {
            let fetched = timeout_at(until, fetching).await.unwrap_or_else(|_| {
                let error = Error::new(
                    ErrorKind::DeadlineExceeded,
                    "fetching the token took longer than the timeout",
                );
                Err(error.with_hint("Give the call a longer timeout, or call again"))
            });
            fetched.map_err(|error| error.with_station(Station::Token))
        })
    }
}

fn provider_failed(error: BoxError) -> Error {
    let error = match error.downcast::<NoThread>() {
        Ok(no_thread) => return answer::out_of_resources(no_thread),
        Err(error) => error,
    };
    Error::new(
        ErrorKind::Authentication,
        format!("the token provider failed: {error}"),
    )
    .with_hint("Mend the token provider: the client has no other way to a token")
    .with_source(error)
}

/// Whether a provider was stopped before it had an answer: then another caller may ask again at once.
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
}

impl TokenData {
    /// In seconds (FACTS: token); a number in quotes is taken too, anything else is as if untold.
    fn life(&self) -> Option<Duration> {
        let expire = self.expire.as_ref()?;
        let seconds = expire.as_f64().or_else(|| expire.as_str()?.trim().parse().ok())?;
        Duration::try_from_secs_f64(seconds.clamp(0.0, super::LONGEST_LIFE.as_secs_f64())).ok()
    }
}

impl SelfBuiltApp {
    async fn tenant_access_token(&self, endpoints: &Endpoints, until: Instant) -> Result<Token, Error> {
        let body = [
            ("app_id", &*self.app_id),
            ("app_secret", self.app_secret.expose_secret()),
        ];
        let mask = |text: &mut String| secret::mask(text, &self.app_secret);
        let data = endpoints.post(SELF_BUILT, &body, until, &mask).await;
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
    .with_hint("Something else than the platform answered: check base_url and the proxy")
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

    async fn tenant_access_token(&self, endpoints: &Endpoints, until: Instant) -> Result<Token, Error> {
        let remembered = self
            .app_access_token()
            .filter(|(_, renew_at)| Instant::now() < *renew_at);
        if let Some((token, _)) = remembered {
            match self.exchange(endpoints, &token, until).await {
                // Not told apart from a wrong tenant_key: a new app_access_token will tell.
                Err(error) if error.kind() == ErrorKind::Authentication => self.remember(None),
                exchanged => return exchanged,
            }
        }
        let token = self.fetch_app_access_token(endpoints, until).await?;
        self.exchange(endpoints, &token, until).await
    }

    async fn exchange(
        &self,
        endpoints: &Endpoints,
        token: &SecretString,
        until: Instant,
    ) -> Result<Token, Error> {
        let body = [
            ("app_access_token", token.expose_secret()),
            ("tenant_key", &*self.tenant_key),
        ];
        let mask = |text: &mut String| {
            secret::mask(text, token);
            self.mask(text);
        };
        let data = endpoints.post(TENANT_ACCESS_TOKEN, &body, until, &mask).await;
        tenant_token(data.map_err(|failure| failure.error)?)
    }

    /// With the ticket at hand; where there is none, or the platform refuses it, with the one that it
    /// pushes when asked.
    async fn fetch_app_access_token(
        &self,
        endpoints: &Endpoints,
        until: Instant,
    ) -> Result<SecretString, Error> {
        let mut tickets = self.ticket.subscribe();
        let ticket = tickets.borrow_and_update().clone();
        let refusal = match ticket {
            Some(ticket) => match self.app_access_token_with(endpoints, &ticket, until).await {
                Err(failure) if failure.error.platform_code() == Some(APP_TICKET_INVALID) => failure.error,
                answered => return answered.map_err(|failure| failure.error),
            },
            None => Error::new(ErrorKind::Authentication, "there is no app_ticket yet").with_hint(
                "Pass the app_ticket that your event endpoint receives to set_app_ticket; one was asked for",
            ),
        };
        self.ask_for_ticket(endpoints, until).await?;
        let deadline = Instant::now() + TICKET_WAIT;
        match timeout_at(deadline, tickets.changed()).await {
            Ok(Ok(())) => {}
            _ => return Err(refusal),
        }
        let ticket = tickets.borrow_and_update().clone();
        let Some(ticket) = ticket else { return Err(refusal) };
        self.app_access_token_with(endpoints, &ticket, until)
            .await
            .map_err(|failure| failure.error)
    }

    async fn app_access_token_with(
        &self,
        endpoints: &Endpoints,
        ticket: &SecretString,
        until: Instant,
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
        let data = endpoints.post(APP_ACCESS_TOKEN, &body, until, &mask).await?;
        let life = data.life();
        let token = data.app_access_token.filter(|token| !token.is_empty());
        let Some(token) = token else {
            return Err(no_token("app_access_token").into());
        };
        let token = SecretString::from(token);
        let life = life.unwrap_or(super::UNTOLD_LIFE);
        let renew_at = Instant::now() + life - (life / 2).min(super::WIDEST_MARGIN);
        self.remember(Some((token.clone(), renew_at)));
        Ok(token)
    }

    async fn ask_for_ticket(&self, endpoints: &Endpoints, until: Instant) -> Result<(), Error> {
        let body = [
            ("app_id", &*self.app_id),
            ("app_secret", self.app_secret.expose_secret()),
        ];
        let mask = |text: &mut String| self.mask(text);
        let data = endpoints.post(RESEND, &body, until, &mask).await;
        data.map(drop).map_err(|failure| failure.error)
    }
}

impl From<Error> for Failure {
    /// A failure that no replay mends.
    fn from(error: Error) -> Self {
        Self {
            error,
            replay: Replay::No,
            wait: None,
            limit: None,
            from_platform: true,
        }
    }
}

impl Endpoints {
    async fn post(
        &self,
        path: &str,
        body: &[(&str, &str)],
        until: Instant,
        mask: Mask<'_>,
    ) -> Result<TokenData, Failure> {
        let body = secret_json(body).map_err(Failure::from)?;
        let mut replays = Replays::new(self.max_retries, false);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let failure = match self.post_once(path, body.clone()).await {
                Ok(response) => match answer::read_secret(&response, mask) {
                    Reading::Success { data, .. } => return Ok(data),
                    Reading::Failure(failure) => failure,
                },
                Err(error) => answer::no_answer(error, true),
            };
            let wait = replays.next(worth(&failure), failure.wait);
            match wait {
                Some(wait) if Instant::now() + wait < until => sleep(wait).await,
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

/// These endpoints answer their own errors with 200: another status without a code of theirs is noise
/// from in between (FACTS: token).
fn worth(failure: &Failure) -> Replay {
    let is_noise = failure.error.platform_code().is_none()
        && failure
            .error
            .http_status()
            .is_some_and(|status| !(200..300).contains(&status));
    match failure.replay {
        Replay::No if is_noise => Replay::Backoff,
        // No quota paces these: every wait counts.
        Replay::Pause => Replay::Backoff,
        replay => replay,
    }
}

/// A body with a secret in it, zeroed when the last attempt is done with it.
fn secret_json(fields: &[(&str, &str)]) -> Result<Bytes, Error> {
    // Escapes make a byte six at most; a buffer that grew would leave a copy behind.
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
        // Nothing is longer in JSON than a control character.
        let longest = "\u{1}".repeat(100);
        for value in ["", "s", r#""\"#, "提", &longest] {
            let body = secret_json(&[("app_id", value), ("app_secret", value)]).unwrap();
            let read: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(read, serde_json::json!({"app_id": value, "app_secret": value}));
        }
    }
}
