//! Tokens supplied by the caller.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use secrecy::{ExposeSecret, SecretString};

use crate::data::error::BoxError;

/// The error of a binding's provider that was stopped before it returned, because its event loop has ended.
#[derive(Debug)]
pub struct Abandoned;

impl fmt::Display for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it was stopped before it returned")
    }
}

impl std::error::Error for Abandoned {}

/// The error of a binding's provider for which the system could not start a thread, with the reason.
#[derive(Debug)]
pub struct NoThread(pub String);

impl fmt::Display for NoThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoThread {}

/// A pending token of a [`TokenProvider`].
pub type Providing = Pin<Box<dyn Future<Output = Result<ProvidedToken, BoxError>> + Send>>;

/// Supplies `tenant_access_token`s, for example from a vault, another service or a shared cache.
///
/// The client calls its provider once for all calls that wait for a token, again shortly before the token expires, and
/// again when the platform refuses the token. After a refusal the provider must return a different token: see
/// [`TokenReason::refused_token`]. `attempt_timeout` does not apply to a provider.
///
/// The trait is implemented for `Arc`s of providers, and for closures without arguments that return a future:
///
/// ```
/// use std::time::Duration;
///
/// use feishu_feed_card::{Client, Error, ProvidedToken};
///
/// fn client() -> Result<Client, Error> {
///     Client::builder()
///         .token_provider(|| async { Ok(ProvidedToken::new("t-…").expires_in(Duration::from_secs(3600))) })
///         .build()
/// }
/// ```
///
/// A provider that stores tokens implements the trait itself, to learn which token the platform has refused:
///
/// ```
/// use feishu_feed_card::{ProvidedToken, Providing, TokenProvider, TokenReason};
///
/// struct FromFile {
///     path: &'static str,
/// }
///
/// impl TokenProvider for FromFile {
///     fn tenant_access_token(&self, reason: TokenReason<'_>) -> Providing {
///         if reason.refused_token().is_some() {
///             eprintln!("{}: the platform refused this token", self.path);
///         }
///         let path = self.path;
///         Box::pin(async move { Ok(ProvidedToken::new(std::fs::read_to_string(path)?.trim())) })
///     }
/// }
/// ```
pub trait TokenProvider: Send + Sync + 'static {
    /// Returns a token that is valid now.
    fn tenant_access_token(&self, reason: TokenReason<'_>) -> Providing;
}

/// Why a provider is called. See [`TokenProvider`] for an example.
#[derive(Clone, Copy)]
pub struct TokenReason<'a> {
    pub(super) refused: Option<&'a SecretString>,
}

impl TokenReason<'_> {
    /// The token that the platform has refused, which the provider must replace. `None` for the first token and for a
    /// renewal.
    pub fn refused_token(&self) -> Option<&str> {
        self.refused.map(ExposeSecret::expose_secret)
    }
}

impl fmt::Debug for TokenReason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenReason")
            .field("is_refusal", &self.refused.is_some())
            .finish_non_exhaustive()
    }
}

impl<P: TokenProvider + ?Sized> TokenProvider for Arc<P> {
    fn tenant_access_token(&self, reason: TokenReason<'_>) -> Providing {
        (**self).tenant_access_token(reason)
    }
}

impl<F, T> TokenProvider for F
where
    F: Fn() -> T + Send + Sync + 'static,
    T: Future<Output = Result<ProvidedToken, BoxError>> + Send + 'static,
{
    fn tenant_access_token(&self, _: TokenReason<'_>) -> Providing {
        Box::pin(self())
    }
}

/// Calls a provider. Converts a panic, in the call or in its future, into an error.
pub(super) fn call(provider: &dyn TokenProvider, reason: TokenReason<'_>) -> Providing {
    let called = catch_unwind(AssertUnwindSafe(|| provider.tenant_access_token(reason)));
    Box::pin(async move {
        match called {
            Ok(providing) => AssertUnwindSafe(providing)
                .catch_unwind()
                .await
                .unwrap_or_else(panicked),
            Err(panic) => panicked(panic),
        }
    })
}

fn panicked(panic: Box<dyn Any + Send>) -> Result<ProvidedToken, BoxError> {
    // The panic hook has received the message. It is not in the error, because it may contain a secret.
    drop(panic);
    Err("it panicked".into())
}

/// A token of a [`TokenProvider`], and how long it is valid.
pub struct ProvidedToken {
    pub(super) value: SecretString,
    pub(super) life: Option<Duration>,
}

impl ProvidedToken {
    /// Creates a token with an unknown expiry. The provider is called again after a minute.
    pub fn new(tenant_access_token: impl Into<String>) -> Self {
        Self {
            value: tenant_access_token.into().into(),
            life: None,
        }
    }

    /// Sets how long the token is valid from now.
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
