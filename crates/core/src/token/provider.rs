//! Tokens that the caller supplies.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt;
use secrecy::SecretString;

/// What a [`TokenProvider`] may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a binding's provider fails with when it was stopped before it had an answer, because the event
/// loop it ran on is gone.
#[derive(Debug)]
pub struct Abandoned;

impl fmt::Display for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it was stopped before it had an answer")
    }
}

impl std::error::Error for Abandoned {}

/// What a binding's provider fails with when the system has no thread to run it on, and why.
#[derive(Debug)]
pub struct NoThread(pub String);

impl fmt::Display for NoThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoThread {}

/// A [`TokenProvider`]'s pending token.
pub type Providing = Pin<Box<dyn Future<Output = Result<ProvidedToken, BoxError>> + Send>>;

/// Supplies `tenant_access_token`s from elsewhere: a vault, another service, a shared cache.
///
/// Asked once however many calls wait, again when the token nears its end, and again when the platform
/// refuses it: then it should hand out a different one. Implemented for async closures:
///
/// ```
/// use std::time::Duration;
/// use feishu_feed_card::{Client, ProvidedToken};
///
/// # fn main() -> Result<(), feishu_feed_card::Error> {
/// let client = Client::builder()
///     .token_provider(|| async { Ok(ProvidedToken::new("t-…").expires_in(Duration::from_secs(3600))) })
///     .build()?;
/// # Ok(()) }
/// ```
pub trait TokenProvider: Send + Sync + 'static {
    /// A token that is good now.
    fn tenant_access_token(&self) -> Providing;
}

impl<F, T> TokenProvider for F
where
    F: Fn() -> T + Send + Sync + 'static,
    T: Future<Output = Result<ProvidedToken, BoxError>> + Send + 'static,
{
    fn tenant_access_token(&self) -> Providing {
        Box::pin(self())
    }
}

/// Asks a provider; one that panics, at once or later, has failed like any other.
pub(super) fn ask(provider: &dyn TokenProvider) -> Providing {
    let asked = catch_unwind(AssertUnwindSafe(|| provider.tenant_access_token()));
    Box::pin(async move {
        match asked {
            Ok(providing) => AssertUnwindSafe(providing)
                .catch_unwind()
                .await
                .unwrap_or_else(panicked),
            Err(panic) => panicked(panic),
        }
    })
}

fn panicked(panic: Box<dyn Any + Send>) -> Result<ProvidedToken, BoxError> {
    // What it said went to the panic hook; here it might carry a secret into an error.
    drop(panic);
    Err("it panicked".into())
}

/// A token and for how long it is good.
pub struct ProvidedToken {
    pub(super) value: SecretString,
    pub(super) life: Option<Duration>,
}

impl ProvidedToken {
    /// A token whose end is not known: the provider is asked again after a minute.
    pub fn new(tenant_access_token: impl Into<String>) -> Self {
        Self {
            value: tenant_access_token.into().into(),
            life: None,
        }
    }

    /// From now.
    #[must_use]
    pub fn expires_in(mut self, life: Duration) -> Self {
        self.life = Some(life);
        self
    }
}

impl fmt::Debug for ProvidedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProvidedToken")
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}
