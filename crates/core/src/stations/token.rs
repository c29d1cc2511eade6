//! The `tenant_access_token`: one fetch for all callers that wait. A call that finds the token near its end
//! starts a renewal and goes on with the old token. A token that the platform refuses is replaced.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::{self, Handle};
use tokio::select;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument;
use tracing::instrument::WithSubscriber;

use crate::data::error::{Error, ErrorKind, Station};
use crate::data::origin::inherited;
use crate::data::secret;
use crate::platform::codes;
use crate::stations::closing::{Closing, client_closed};
use crate::stations::deadline::after;

pub(crate) mod fetch;
mod fetch_time;
mod provider;

use fetch_time::FetchTime;

pub use provider::{Abandoned, NoThread, ProvidedToken, Providing, TokenProvider, TokenReason};

/// Longest time before the end of a token at which it is renewed. The platform returns a new token in the last 30 minutes
/// of the old one, and the old one again before that (docs/platform.md#token-life).
const MAX_MARGIN: Duration = Duration::from_secs(25 * 60);

/// How long a token without an `expire` is used.
const UNKNOWN_LIFE: Duration = Duration::from_secs(60);

/// Shortest time for which a token is used. Without it, an `expire` of 0 would cause a fetch for every call.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// Longest time for which a token is used. The platform's tokens are valid for two hours at most
/// (docs/platform.md#token-life).
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a permanent refusal, for example of a wrong secret, is returned to callers without a new request.
const REFUSAL_REMEMBERED: Duration = Duration::from_secs(1);

/// How long after a failed renewal the next one may start. Calls use the old token during that time.
const NEXT_RENEWAL: Duration = Duration::from_secs(10);

/// A token in use.
pub(crate) struct Token {
    value: SecretString,
    header: HeaderValue,
    renew_at: Instant,
    expires_at: Instant,
    /// Whether the platform has accepted the token. A refusal after that means that it was revoked.
    accepted: AtomicBool,
}

impl Token {
    /// Creates a token that is valid for `life` from now. Returns an error if a header cannot contain it.
    fn new(value: SecretString, life: Option<Duration>) -> Result<Self, Error> {
        let Some(header) = secret::bearer(&value) else {
            return Err(Error::new(
                ErrorKind::Authentication,
                "the token contains characters that are not allowed in a header",
            )
            .with_station(Station::Token)
            .with_hint("Check the source of the token"));
        };
        let life = life.unwrap_or(UNKNOWN_LIFE).clamp(SHORTEST_LIFE, LONGEST_LIFE);
        let now = Instant::now();
        let renew_at = now + life - (life / 2).min(MAX_MARGIN);
        Ok(Self {
            value,
            header,
            renew_at,
            expires_at: now + life,
            accepted: AtomicBool::new(false),
        })
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    pub(crate) fn mask(&self, text: &mut String) {
        secret::mask(text, &self.value);
    }

    /// Records that the platform has accepted the token.
    pub(crate) fn accept(&self) {
        if !self.accepted.load(Ordering::Relaxed) {
            self.accepted.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn was_accepted(&self) -> bool {
        self.accepted.load(Ordering::Relaxed)
    }

    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.value.expose_secret() == other.value.expose_secret()
    }
}

/// The source of tokens and the token in use. Clones share their state.
#[derive(Clone)]
pub(crate) struct Tokens(Arc<SharedTokens>);

struct SharedTokens {
    source: fetch::Source,
    closing: Closing,
    state: Mutex<TokenState>,
}

#[derive(Default)]
struct TokenState {
    current: Option<Arc<Token>>,
    fetch: Option<RunningFetch>,
    /// When the next renewal may start, after one has failed.
    no_renewal_before: Option<Instant>,
    /// A permanent refusal of the app, and until when it is returned to callers.
    refused_until: Option<(Instant, Error)>,
    /// The token that the platform refused last. A fetch that began before the refusal may return this token again.
    refused: Option<Arc<Token>>,
    /// The number of tokens that the platform has refused.
    refusals: u64,
}

type Fetched = Result<Arc<Token>, Error>;

/// A fetch that callers may wait for.
#[derive(Clone)]
struct RunningFetch {
    /// The result of the fetch. Closed without a value if the fetch was dropped with its runtime, its provider was stopped,
    /// or the client was closed.
    result: watch::Receiver<Option<Fetched>>,
    time: FetchTime,
    /// The runtime of the fetch. Callers on another runtime do not join, because this one may be idle.
    runtime: runtime::Id,
}

/// A fetch that its caller has to start.
struct NewFetch {
    result: watch::Sender<Option<Fetched>>,
    time: FetchTime,
    /// The refused token that it is to replace.
    refused: Option<Arc<Token>>,
    /// The number of tokens that the platform had refused when the fetch began.
    refusals: u64,
}

impl Tokens {
    pub(crate) fn new(source: fetch::Source, closing: Closing) -> Self {
        Self(Arc::new(SharedTokens {
            source,
            closing,
            state: Mutex::default(),
        }))
    }

    pub(crate) fn source(&self) -> &fetch::Source {
        &self.0.source
    }

    fn state(&self) -> MutexGuard<'_, TokenState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the token to use now. Waits for a fetch only if there is no usable token.
    ///
    /// The caller must end the wait at its deadline. A fetch may go on until the latest deadline of its callers, so that
    /// no caller fails because of another one's deadline.
    pub(crate) async fn get(&self, deadline: Option<Instant>) -> Fetched {
        if let Some(token) = self.state().fresh(Instant::now()) {
            return Ok(token);
        }
        // Boxed, because most calls do not wait, and need no room for it.
        Box::pin(self.get_or_fetch(deadline)).await
    }

    async fn get_or_fetch(&self, deadline: Option<Instant>) -> Fetched {
        for is_last in [false, true] {
            if self.0.closing.is_stopped() {
                return Err(client_closed().with_station(Station::Token));
            }
            let (usable, mut running, new) = {
                let state = &mut *self.state();
                let now = Instant::now();
                if let Some(token) = state.fresh(now) {
                    return Ok(token);
                }
                let usable = state.usable(now);
                if usable.is_none() {
                    state.still_refused(now)?;
                }
                let default_end = after(self.0.source.endpoints.timeout);
                let (running, new) = state.join_or_begin(default_end);
                // A renewal has the client's timeout, because no call waits for it yet.
                if usable.is_none() {
                    running.time.extend(deadline.unwrap_or(default_end));
                }
                (usable, running, new)
            };
            let has_joined = new.is_none();
            // After releasing the lock, because a provider is the caller's code.
            if let Some(new) = new {
                self.start(new);
            }
            if let Some(token) = usable {
                return Ok(token);
            }
            let fetched = running.result.wait_for(Option::is_some).await;
            match fetched.ok().and_then(|fetched| fetched.clone()) {
                // The time of the joined fetch is over, but this caller joined it later and still has time for another.
                Some(Err(error))
                    if has_joined
                        && !is_last
                        && error.kind() == ErrorKind::DeadlineExceeded
                        && deadline.is_none_or(|deadline| Instant::now() < deadline) => {}
                Some(fetched) => return fetched,
                None => {}
            }
        }
        Err(Error::new(
            ErrorKind::Authentication,
            "the token fetch ended without a result",
        )
        .with_station(Station::Token)
        .with_hint("Call again: the runtime that fetched the token was shut down"))
    }

    /// Forgets a permanent refusal, because a store app may get a token with its new ticket.
    pub(crate) fn forget_refusal(&self) {
        self.state().refused_until = None;
    }

    /// Drops a token that the platform refused. Keeps a newer token.
    pub(crate) fn refuse(&self, token: &Arc<Token>) {
        let state = &mut *self.state();
        if state
            .current
            .as_ref()
            .is_some_and(|current| current.is_same_as(token))
        {
            state.current = None;
            state.refused = Some(token.clone());
            state.refusals += 1;
            self.0.source.forget();
        }
    }

    fn start(&self, new: NewFetch) {
        let NewFetch {
            result,
            time,
            refused,
            refusals,
        } = new;
        // Called here and not in the task, because a provider may need the origin of the call (see `data/origin.rs`).
        let first = self.0.source.fetch(&time, refused.as_deref());
        let tokens = self.clone();
        // In a separate task, so that the fetch goes on if its caller is cancelled.
        let fetch = async move {
            let mut fetched = first.await.map(Arc::new);
            if tokens.is_refused_since(&fetched, refusals) {
                let second = {
                    let refused = fetched.as_deref().ok();
                    tokens.0.source.fetch(&time, refused)
                };
                fetched = second.await.map(Arc::new);
            }
            if fetched.as_ref().is_err_and(fetch::was_abandoned) {
                // The channel closes, and one of the waiting callers starts another fetch.
                tokens.state().fetch = None;
                return;
            }
            match &fetched {
                Ok(token) => tracing::debug!(
                    life_s = token.expires_at.duration_since(Instant::now()).as_secs(),
                    "fetched a tenant_access_token"
                ),
                Err(error) => tracing::warn!(
                    kind = %error.kind(),
                    code = error.platform_code(),
                    status = error.http_status(),
                    log_id = error.log_id(),
                    "failed to fetch a tenant_access_token"
                ),
            }
            tokens.state().keep(&fetched);
            result.send_replace(Some(fetched));
        };
        let fetch = fetch.instrument(tracing::debug_span!("token_fetch"));
        let closing = self.0.closing.clone();
        let fetch = async move {
            select! {
                () = closing.stopped() => {}
                () = fetch => {}
            }
        };
        tokio::spawn(inherited(fetch).with_current_subscriber());
    }

    /// Whether a fetch that began after `refusals` refusals returned a token that was refused since.
    fn is_refused_since(&self, fetched: &Fetched, refusals: u64) -> bool {
        let state = self.state();
        let (Ok(token), Some(refused)) = (fetched, &state.refused) else {
            return false;
        };
        state.refusals > refusals && token.is_same_as(refused)
    }
}

impl TokenState {
    /// The token, if it needs no renewal.
    fn fresh(&self, now: Instant) -> Option<Arc<Token>> {
        self.usable(now).filter(|token| !self.wants_renewal(token, now))
    }

    fn usable(&self, now: Instant) -> Option<Arc<Token>> {
        self.current
            .as_ref()
            .filter(|token| now < token.expires_at)
            .cloned()
    }

    fn still_refused(&self, now: Instant) -> Result<(), Error> {
        match &self.refused_until {
            Some((until, error)) if now < *until => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Returns the running fetch, or a new one that the caller has to start. A new one may take until `until`.
    fn join_or_begin(&mut self, until: Instant) -> (RunningFetch, Option<NewFetch>) {
        let runtime = Handle::current().id();
        if let Some(running) = &self.fetch
            && running.runtime == runtime
            && running.result.has_changed().is_ok()
        {
            return (running.clone(), None);
        }
        let (sender, result) = watch::channel(None);
        let time = FetchTime::new(until);
        let running = RunningFetch {
            result,
            time: time.clone(),
            runtime,
        };
        self.fetch = Some(running.clone());
        let new = NewFetch {
            result: sender,
            time,
            // If there is a current token, this fetch is a renewal or follows its expiry, not a refusal.
            refused: self.refused.clone().filter(|_| self.current.is_none()),
            refusals: self.refusals,
        };
        (running, Some(new))
    }

    fn wants_renewal(&self, token: &Token, now: Instant) -> bool {
        now >= token.renew_at && self.no_renewal_before.is_none_or(|at| now >= at)
    }

    fn keep(&mut self, fetched: &Fetched) {
        self.fetch = None;
        let now = Instant::now();
        match fetched {
            Ok(token) => {
                self.current = Some(token.clone());
                self.no_renewal_before = None;
                self.refused_until = None;
            }
            Err(error) => {
                self.no_renewal_before = Some(now + NEXT_RENEWAL);
                // Remember only refusals by the platform: not a provider's failure, a gateway's code, or a missing app
                // ticket.
                if !error.retryable() && error.platform_code().is_some_and(codes::is_platform_code) {
                    self.refused_until = Some((now + REFUSAL_REMEMBERED, error.clone()));
                }
            }
        }
    }
}
