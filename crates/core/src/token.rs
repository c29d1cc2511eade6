//! The `tenant_access_token`: one fetch however many callers wait, renewed before its end by a call
//! that goes on with the old one, replaced when the platform refuses it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument;
use tracing::instrument::WithSubscriber;

use crate::deadline::after;
use crate::error::{Error, ErrorKind, Station};
use crate::secret;

pub(crate) mod fetch;
mod provider;

pub use provider::{Abandoned, BoxError, NoThread, ProvidedToken, Providing, TokenProvider};

/// With less than 30 minutes left the platform hands out a new token, with more the old one again
/// (FACTS: token): a renewal is worth asking for only inside that.
const WIDEST_MARGIN: Duration = Duration::from_secs(25 * 60);

/// How long a token is used whose answer tells no `expire`.
const UNTOLD_LIFE: Duration = Duration::from_secs(60);

/// An `expire` of nothing would mean a fetch for every call.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// The platform's tokens live two hours at most; anything longer is a mistake.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// For how long a refusal for good (a wrong secret) is told to callers without asking again.
const REFUSAL_REMEMBERED: Duration = Duration::from_secs(1);

/// After a renewal that failed, the old token serves on, and the next attempt waits this long.
const NEXT_RENEWAL: Duration = Duration::from_secs(10);

/// A token in use.
pub(crate) struct Token {
    value: SecretString,
    header: HeaderValue,
    renew_at: Instant,
    expires_at: Instant,
    /// Whether the platform has ever taken it: a refusal after that is a revocation.
    accepted: AtomicBool,
}

impl Token {
    /// A token that lives from now for `life`; an error where it cannot stand in a header.
    fn new(value: SecretString, life: Option<Duration>) -> Result<Self, Error> {
        let Some(header) = secret::bearer(&value) else {
            return Err(Error::new(
                ErrorKind::Authentication,
                "the token has characters that cannot stand in a header",
            )
            .with_station(Station::Token)
            .with_hint("Check what hands out the tokens"));
        };
        let life = life.unwrap_or(UNTOLD_LIFE).clamp(SHORTEST_LIFE, LONGEST_LIFE);
        let now = Instant::now();
        let renew_at = now + life - (life / 2).min(WIDEST_MARGIN);
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

    /// The platform took it.
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

/// Where tokens come from, and the one in use.
#[derive(Clone)]
pub(crate) struct Tokens(Arc<Shared>);

struct Shared {
    source: fetch::Source,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Token>>,
    /// The fetch that is under way; closed without a value when its runtime went away.
    fetching: Option<watch::Receiver<Option<Fetched>>>,
    /// No renewal before this: the last one failed.
    no_renewal_before: Option<Instant>,
    /// A refusal for good, and until when it is believed.
    refused_until: Option<(Instant, Error)>,
    /// The token the platform refused last, and how many it has refused: a fetch that began before may
    /// bring it again.
    refused: Option<Arc<Token>>,
    refusals: u64,
}

type Fetched = Result<Arc<Token>, Error>;

/// A fetch that others may wait for already.
struct Begun {
    tell: watch::Sender<Option<Fetched>>,
    /// How many tokens the platform had refused by then.
    refusals: u64,
}

impl Tokens {
    pub(crate) fn new(source: fetch::Source) -> Self {
        Self(Arc::new(Shared {
            source,
            state: Mutex::default(),
        }))
    }

    pub(crate) fn source(&self) -> &fetch::Source {
        &self.0.source
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token to use now where there is one, and it is not about to expire.
    pub(crate) fn at_once(&self, now: Instant) -> Option<Arc<Token>> {
        let state = self.state();
        state.usable(now).filter(|token| !state.wants_renewal(token, now))
    }

    /// The token to use now. Waits only where there is none, and a fetch that it begins may go on until
    /// this call's deadline.
    pub(crate) async fn get(&self, deadline: Option<Instant>) -> Fetched {
        // A fetch ends without a result where its runtime was shut down: the second time it is told.
        for _ in 0..2 {
            let (usable, mut fetching, to_start) = {
                let state = &mut *self.state();
                let now = Instant::now();
                let usable = state.usable(now);
                match &usable {
                    Some(token) if !state.wants_renewal(token, now) => return Ok(token.clone()),
                    Some(_) => {}
                    None => state.still_refused(now)?,
                }
                let (fetching, to_start) = state.join_or_begin();
                (usable, fetching, to_start)
            };
            // Without the lock: a provider is the caller's own code.
            if let Some(begun) = to_start {
                self.start(begun, deadline);
            }
            if let Some(token) = usable {
                return Ok(token);
            }
            if let Ok(fetched) = fetching.wait_for(Option::is_some).await
                && let Some(fetched) = &*fetched
            {
                return fetched.clone();
            }
        }
        Err(Error::new(
            ErrorKind::Authentication,
            "the fetch of the token ended without a result",
        )
        .with_station(Station::Token)
        .with_hint("The runtime of the call that fetched it was shut down: call again"))
    }

    /// What was refused for good may go now: a store app has a new ticket.
    pub(crate) fn forget_refusal(&self) {
        self.state().refused_until = None;
    }

    /// The platform refused this token: exactly this one is dropped, and a newer one is kept.
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

    fn start(&self, begun: Begun, deadline: Option<Instant>) {
        let Begun { tell, refusals } = begun;
        let endpoints = &self.0.source.endpoints;
        // As it may outlive the call that began it, the client's timeout counts too.
        let own = after(endpoints.timeout);
        let until = deadline.map_or(own, |deadline| deadline.max(own));
        // Called here and not in the task: a provider may need to know whose call it serves.
        let first = self.0.source.fetch(until);
        let tokens = self.clone();
        // A task of its own: a caller that gives up does not take the others' token away.
        let fetch = async move {
            let mut fetched = first.await.map(Arc::new);
            if tokens.is_refused_since(&fetched, refusals) {
                fetched = tokens.0.source.fetch(until).await.map(Arc::new);
            }
            if fetched.as_ref().is_err_and(fetch::was_abandoned) {
                // Those who wait find the channel closed, and one of them begins anew.
                tokens.state().fetching = None;
                return;
            }
            match &fetched {
                Ok(token) => tracing::debug!(
                    life_s = token.expires_at.duration_since(Instant::now()).as_secs(),
                    "got a tenant_access_token"
                ),
                Err(error) => tracing::warn!(
                    kind = %error.kind(),
                    code = error.platform_code(),
                    status = error.http_status(),
                    log_id = error.log_id(),
                    "no tenant_access_token"
                ),
            }
            tokens.state().keep(&fetched);
            tell.send_replace(Some(fetched));
        };
        let fetch = fetch.instrument(tracing::debug_span!("token_fetch"));
        tokio::spawn(fetch.with_current_subscriber());
    }

    /// Whether a fetch that began when there were that many refusals brought a token refused since.
    fn is_refused_since(&self, fetched: &Fetched, refusals: u64) -> bool {
        let state = self.state();
        let (Ok(token), Some(refused)) = (fetched, &state.refused) else {
            return false;
        };
        state.refusals > refusals && token.is_same_as(refused)
    }
}

impl State {
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

    /// The fetch that is under way, or one that the caller has to start.
    fn join_or_begin(&mut self) -> (watch::Receiver<Option<Fetched>>, Option<Begun>) {
        if let Some(fetching) = &self.fetching
            && fetching.has_changed().is_ok()
        {
            return (fetching.clone(), None);
        }
        let (tell, fetching) = watch::channel(None);
        self.fetching = Some(fetching.clone());
        let refusals = self.refusals;
        (fetching, Some(Begun { tell, refusals }))
    }

    fn wants_renewal(&self, token: &Token, now: Instant) -> bool {
        now >= token.renew_at && self.no_renewal_before.is_none_or(|at| now >= at)
    }

    fn keep(&mut self, fetched: &Fetched) {
        self.fetching = None;
        let now = Instant::now();
        match fetched {
            Ok(token) => {
                self.current = Some(token.clone());
                self.no_renewal_before = None;
                self.refused_until = None;
            }
            Err(error) => {
                self.no_renewal_before = Some(now + NEXT_RENEWAL);
                // A passing trouble of a provider, or a ticket that is not there yet, is not the platform's word.
                if !error.retryable() && error.platform_code().is_some() {
                    self.refused_until = Some((now + REFUSAL_REMEMBERED, error.clone()));
                }
            }
        }
    }
}
