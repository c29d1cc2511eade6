//! The options of a client: their defaults and checks.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;

use crate::call::{Core, Limits};
use crate::client::Client;
use crate::data::error::Error;
use crate::data::input::{check_filled, shown};
use crate::data::secret;
use crate::data::text::{Template, text};
use crate::platform::base_url::BaseUrl;
use crate::platform::request::MAX_USERS;
use crate::stations::closing::Closing;
use crate::stations::order::Order;
use crate::stations::quota::{QuotaHandle, RateLimit};
use crate::stations::token::fetch::{Endpoints, Identity, SelfBuiltApp, Source, StoreApp};
use crate::stations::token::{TokenProvider, Tokens};
use crate::transport::Transport;
use crate::transport::http::{Http, Network};
use crate::transport::proxy::ProxyOption;

/// The platform's host in China. Lark has `https://open.larksuite.com` (docs/platform.md#hosts).
const DEFAULT_BASE_URL: &str = "https://open.feishu.cn";

/// Upper limit of `late_arrival`: opposite calls on a chat, and a slot of the quota, may wait that long.
const MAX_LATE_ARRIVAL: Duration = Duration::from_secs(60 * 60);

/// Builds a [`Client`]. [`build`](Self::build) checks every option.
///
/// ```
/// use std::time::Duration;
///
/// use feishu_feed_card::{Client, Error, RateLimit};
///
/// fn client_for_lark(app_id: &str, app_secret: &str) -> Result<Client, Error> {
///     Client::builder()
///         .app(app_id, app_secret)
///         .base_url("https://open.larksuite.com")
///         .timeout(Duration::from_secs(10))
///         .rate_limit(RateLimit::new(20, 400))
///         .build()
/// }
/// # fn main() -> Result<(), Error> {
/// #     client_for_lark("cli_…", "secret").map(drop)
/// # }
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct ClientBuilder {
    app_id: Option<String>,
    app_secret: Option<SecretString>,
    tenant_key: Option<String>,
    app_ticket: Option<SecretString>,
    tenant_access_token: Option<SecretString>,
    token_provider: Option<Arc<dyn TokenProvider>>,
    base_url: Option<String>,
    allow_http: bool,
    proxy: ProxyOption,
    ca_certs: Option<PathBuf>,
    extra_ca_certs: Option<(&'static str, OsString)>,
    http_client: Option<reqwest::Client>,
    user_agent: Option<String>,
    timeout: Option<Duration>,
    connect_timeout: Option<Duration>,
    attempt_timeout: Option<Duration>,
    max_retries: Option<u32>,
    pacing: Pacing,
    quota: Option<QuotaHandle>,
    late_arrival: Option<Duration>,
    max_users_per_request: Option<usize>,
    transport: Option<Arc<dyn Transport>>,
    environment: Option<EnvironmentOptions>,
}

/// Values of environment variables, for options that are not set.
#[derive(Clone)]
struct EnvironmentOptions {
    app_id: Option<String>,
    app_secret: Option<SecretString>,
    base_url: Option<String>,
}

/// The caller's choice of a rate limit.
#[derive(Clone, Debug, Default)]
enum Pacing {
    /// The platform's limit, or that of a shared quota.
    #[default]
    Unset,
    Limit(RateLimit),
    Off,
}

impl ClientBuilder {
    /// Sets the id and secret of a self-built app or, with a [`tenant_key`](Self::tenant_key), of a store app.
    pub fn app(self, app_id: impl Into<String>, app_secret: impl Into<String>) -> Self {
        self.app_id(app_id).app_secret(app_secret)
    }

    /// Sets the app's id, `cli_…`.
    pub fn app_id(mut self, app_id: impl Into<String>) -> Self {
        self.app_id = Some(app_id.into());
        self
    }

    /// Sets the app's secret.
    pub fn app_secret(mut self, app_secret: impl Into<String>) -> Self {
        self.app_secret = Some(app_secret.into().into());
        self
    }

    /// Makes the app a store app that acts for this tenant.
    pub fn tenant_key(mut self, tenant_key: impl Into<String>) -> Self {
        self.tenant_key = Some(tenant_key.into());
        self
    }

    /// Sets the ticket that the platform last pushed to the store app. Pass later tickets to
    /// [`Client::set_app_ticket`].
    pub fn app_ticket(mut self, app_ticket: impl Into<String>) -> Self {
        self.app_ticket = Some(app_ticket.into().into());
        self
    }

    /// Sets a fixed token. The client cannot renew it, so calls fail when it expires, after two hours at most.
    pub fn tenant_access_token(mut self, token: impl Into<String>) -> Self {
        self.tenant_access_token = Some(token.into().into());
        self
    }

    /// Sets a provider that supplies tokens, in place of an app's id and secret.
    pub fn token_provider(mut self, provider: impl TokenProvider) -> Self {
        self.token_provider = Some(Arc::new(provider));
        self
    }

    /// Uses the environment variables `FEISHU_APP_ID`, `FEISHU_APP_SECRET` and `FEISHU_BASE_URL` for options that are
    /// not set. An empty variable counts as not set.
    pub fn from_env(mut self) -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        self.environment = Some(EnvironmentOptions {
            app_id: variable("FEISHU_APP_ID"),
            app_secret: variable("FEISHU_APP_SECRET").map(Into::into),
            base_url: variable("FEISHU_BASE_URL"),
        });
        self
    }

    /// Sets the URL of the platform, with or without a path prefix: `https://open.larksuite.com` for Lark. Default:
    /// `https://open.feishu.cn`.
    pub fn base_url(mut self, base_url: impl Into<String>) -> Self {
        self.base_url = Some(base_url.into());
        self
    }

    /// Allows `http` to a host other than this machine. http sends the token unencrypted. Default: false.
    pub fn allow_http(mut self, allow: bool) -> Self {
        self.allow_http = allow;
        self
    }

    /// Sets a proxy: `http://user:password@host:port`, with a percent-encoded password. The other schemes are `https`,
    /// `socks5h` (the proxy resolves names; also spelled `socks`), `socks5`, `socks4a` and `socks4`.
    ///
    /// Default: the environment variables `HTTPS_PROXY` (`HTTP_PROXY` for an http `base_url`), `ALL_PROXY` and
    /// `NO_PROXY`, and on macOS and Windows, if none of them is set, the system's settings. A `base_url` on this
    /// machine uses no proxy by default.
    pub fn proxy(mut self, proxy: impl Into<String>) -> Self {
        self.proxy = ProxyOption::Url(proxy.into().into());
        self
    }

    /// Uses no proxy, even if the environment or the system configures one.
    pub fn no_proxy(mut self) -> Self {
        self.proxy = ProxyOption::Off;
        self
    }

    /// Uses the caller's [`reqwest::Client`], for example with its own resolver, client certificates or TLS provider.
    /// It replaces [`proxy`](Self::proxy), [`no_proxy`](Self::no_proxy), [`ca_certs`](Self::ca_certs) and
    /// [`connect_timeout`](Self::connect_timeout), which cannot be set together with it.
    ///
    /// The guarantees of this crate hold only if the `reqwest::Client` has these settings:
    /// - `redirect(Policy::none())`: a redirect would carry the token to another host.
    /// - `retry(retry::never())`: hidden retries would exceed the quota.
    /// - `tcp_user_timeout` below [`late_arrival`](Self::late_arrival) (3 s for the default; Linux and Android): otherwise a
    ///   request that was given up may be delivered after the opposite call.
    /// - `http2_keep_alive_interval` and `http2_keep_alive_timeout` (3 s each): otherwise a silent HTTP/2 connection fails
    ///   every call that uses it.
    /// - `pool_idle_timeout` below that of the load balancer (30 s), and `connect_timeout` (5 s).
    /// - `referer(false)`, no cookie store, no `timeout` and no `read_timeout`.
    /// - `dns_resolver`: the default one panics if the process cannot start a thread.
    ///
    /// An http `base_url` needs [`allow_http`](Self::allow_http), even on this machine, because the proxy and the
    /// resolver of the `reqwest::Client` are not known.
    ///
    /// The same `reqwest::Client` serves all runtimes. A call could therefore wait for a connection that belongs to a
    /// runtime that nobody drives, so use one [`Client`] for each runtime.
    pub fn http_client(mut self, client: reqwest::Client) -> Self {
        self.http_client = Some(client);
        self
    }

    /// Adds the certificates in the file that an environment variable names, such as Node's `NODE_EXTRA_CA_CERTS`. A
    /// file that cannot be read is ignored with a warning.
    #[doc(hidden)]
    pub fn extra_ca_certs(mut self, variable: &'static str, path: OsString) -> Self {
        self.extra_ca_certs = Some((variable, path));
        self
    }

    /// Trusts the certificates in a PEM file, in addition to Mozilla's and the system's.
    pub fn ca_certs(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_certs = Some(path.into());
        self
    }

    /// Appends a text to the client's `User-Agent`.
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = Some(user_agent.into());
        self
    }

    /// Sets the timeout of each call, including all retries and waiting. Default: 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the timeout for making a connection, including the DNS lookup. Default: 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Sets the timeout of one attempt, including the time to connect, and of one request for a token. Default: an
    /// attempt may take the rest of the call's timeout; a request for a token may take twice the client's timeout, but
    /// at most 10 s.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// Sets how often a failed attempt is retried. Default: 3. Three kinds of retry do not count: with another token
    /// after the platform refused one, after a frequency limit that asks for a wait of 1 s or more, and after an HTTP/2
    /// server proved that it had not processed the request. With 0, frequency limits are not retried either.
    pub fn max_retries(mut self, max_retries: u32) -> Self {
        self.max_retries = Some(max_retries);
        self
    }

    /// Sets the limits of calls per second and per minute. `None` turns pacing off. Default: the platform's limits.
    pub fn rate_limit(mut self, limit: impl Into<Option<RateLimit>>) -> Self {
        self.pacing = limit.into().map_or(Pacing::Off, Pacing::Limit);
        self
    }

    /// Shares another client's quota, because the platform counts calls per app and tenant, not per client.
    pub fn quota(mut self, quota: QuotaHandle) -> Self {
        self.quota = Some(quota);
        self
    }

    /// Sets how long a request without an answer may still arrive at the platform after its connection closed. For that
    /// long, its slot of the quota stays taken and opposite calls on its chat wait. Default: 5 s; maximum: 1 hour.
    ///
    /// On Linux and Android the system stops sending unacknowledged data before this time is over. Other systems lack
    /// that setting and go on for longer: about 60 s on Windows and 600 s on macOS, calculated from their
    /// retransmission limits. Set that value there if a late pin must never follow its unpin, even after an outage. A
    /// proxy or a load balancer resends data by itself, so behind one this covers only the connection to it.
    pub fn late_arrival(mut self, late_arrival: Duration) -> Self {
        self.late_arrival = Some(late_arrival);
        self
    }

    /// Sets the maximum number of users of one request. Calls with more users are split. Default: 50.
    pub fn max_users_per_request(mut self, most: usize) -> Self {
        self.max_users_per_request = Some(most);
        self
    }

    /// Replaces the HTTP transport, for tests on simulated time.
    #[doc(hidden)]
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Checks the options and creates the client. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if an option is invalid, is missing, or conflicts with another
    /// one. [`Error::field`] names it.
    pub fn build(mut self) -> Result<Client, Error> {
        let Some(environment) = self.environment.take() else {
            return self.checked();
        };
        let mut variables = Vec::new();
        if self.app_id.is_none() {
            self.app_id = environment.app_id;
            variables.push(("app_id", "FEISHU_APP_ID"));
        }
        if self.app_secret.is_none() {
            self.app_secret = environment.app_secret;
            variables.push(("app_secret", "FEISHU_APP_SECRET"));
        }
        if self.base_url.is_none() {
            self.base_url = environment.base_url;
            variables.push(("base_url", "FEISHU_BASE_URL"));
        }
        self.checked().map_err(|error| {
            let variable = variables.iter().find(|(field, _)| error.field() == Some(field));
            match variable {
                Some((_, name)) => error.with_hint(format!("Check the environment variable {name}")),
                None => error,
            }
        })
    }

    fn checked(self) -> Result<Client, Error> {
        let positive = |field: Template, value: Option<Duration>| match value {
            Some(Duration::ZERO) => Err(Error::invalid_input(field, "0", "a positive duration")),
            other => Ok(other),
        };
        let timeout = positive(text!("{timeout}"), self.timeout)?.unwrap_or(Duration::from_secs(30));
        let connect_timeout =
            positive(text!("{connect_timeout}"), self.connect_timeout)?.unwrap_or(Duration::from_secs(5));
        let limits = Limits {
            timeout,
            attempt_timeout: positive(text!("{attempt_timeout}"), self.attempt_timeout)?,
            max_retries: self.max_retries.unwrap_or(3),
            late_arrival: match self.late_arrival.unwrap_or(Duration::from_secs(5)) {
                late if late > MAX_LATE_ARRIVAL => {
                    return Err(Error::invalid_input(
                        text!("{late_arrival}"),
                        format!("{} s", late.as_secs_f64()),
                        "at most 3600 s",
                    ));
                }
                late => late,
            },
            max_users_per_request: match self.max_users_per_request.unwrap_or(MAX_USERS) {
                0 => {
                    return Err(Error::invalid_input(
                        text!("{max_users_per_request}"),
                        "0",
                        "at least 1",
                    ));
                }
                most => most,
            },
        };
        let quota = quota(self.pacing, self.quota)?;
        let base_url = BaseUrl::parse(
            self.base_url.as_deref().unwrap_or(DEFAULT_BASE_URL),
            self.allow_http,
        )?;
        let identity = identity(Credentials {
            app_id: self.app_id,
            app_secret: self.app_secret,
            tenant_key: self.tenant_key,
            app_ticket: self.app_ticket,
            tenant_access_token: self.tenant_access_token,
            token_provider: self.token_provider,
        })?;
        if self.http_client.is_some() {
            let replaced = [
                (text!("{proxy}"), !matches!(self.proxy, ProxyOption::Environment)),
                (text!("{ca_certs}"), self.ca_certs.is_some()),
                (text!("{connect_timeout}"), self.connect_timeout.is_some()),
            ];
            if let Some((name, _)) = replaced.into_iter().find(|(_, is_given)| *is_given) {
                return Err(Error::invalid_input(
                    name,
                    text!("given together with {http_client}"),
                    "one of them: the HTTP client has its own setting",
                ));
            }
        }
        let network = Network {
            platform: base_url.url().clone(),
            allow_http: self.allow_http,
            proxy: self.proxy,
            ca_certs: self.ca_certs,
            extra_ca_certs: self.extra_ca_certs,
            http_client: self.http_client,
            user_agent: user_agent(self.user_agent.as_deref())?,
            connect_timeout,
            late_arrival: limits.late_arrival,
        };
        let transport = match self.transport {
            Some(transport) => transport,
            None => Arc::new(Http::new(&network)?),
        };
        let endpoints = Endpoints {
            transport: transport.clone(),
            base_url: base_url.clone(),
            timeout,
            attempt_timeout: limits.attempt_timeout,
            max_retries: limits.max_retries,
        };
        let closing = Closing::default();
        let source = Source {
            identity,
            endpoints: Arc::new(endpoints),
        };
        let tokens = Tokens::new(source, closing.clone());
        Ok(Client::new(Core {
            transport,
            tokens,
            quota,
            order: Order::default(),
            closing,
            limits,
            base_url,
        }))
    }
}

/// The credentials that the caller set, unchecked.
struct Credentials {
    app_id: Option<String>,
    app_secret: Option<SecretString>,
    tenant_key: Option<String>,
    app_ticket: Option<SecretString>,
    tenant_access_token: Option<SecretString>,
    token_provider: Option<Arc<dyn TokenProvider>>,
}

/// Requires exactly one source of tokens. Ids, secrets and tokens must not be empty or have whitespace around them.
/// Their form is not checked otherwise, because the platform has changed it before (docs/platform.md#token-form).
fn identity(given: Credentials) -> Result<Identity, Error> {
    let Credentials {
        app_id,
        app_secret,
        tenant_key,
        app_ticket,
        tenant_access_token,
        token_provider,
    } = given;
    check_filled(text!("{app_id}"), app_id.as_deref())?;
    check_filled(
        text!("{app_secret}"),
        app_secret.as_ref().map(SecretString::expose_secret),
    )?;
    check_filled(text!("{tenant_key}"), tenant_key.as_deref())?;
    check_filled(
        text!("{app_ticket}"),
        app_ticket.as_ref().map(SecretString::expose_secret),
    )?;
    let token = tenant_access_token;
    check_filled(
        text!("{tenant_access_token}"),
        token.as_ref().map(SecretString::expose_secret),
    )?;

    let is_app = app_id.is_some() || app_secret.is_some() || tenant_key.is_some() || app_ticket.is_some();
    let ways = [is_app, token.is_some(), token_provider.is_some()];
    if ways.into_iter().filter(|way| *way).count() > 1 {
        return Err(Error::invalid_input(
            text!("{app_id}, {tenant_access_token}, {token_provider}"),
            "more than one given",
            text!("one of {app_id} with {app_secret}, {tenant_access_token}, {token_provider}"),
        ));
    }
    if let Some(token) = token {
        if let Some(fault) = secret::token_fault(&token) {
            return Err(Error::invalid_input(
                text!("{tenant_access_token}"),
                fault,
                "the token alone",
            ));
        }
        if secret::bearer(&token).is_none() {
            return Err(Error::invalid_input(
                text!("{tenant_access_token}"),
                "contains characters that are not allowed in a header",
                "the token alone, without quotes or line breaks",
            ));
        }
        return Ok(Identity::Given(token));
    }
    if let Some(provider) = token_provider {
        return Ok(Identity::Provider(provider));
    }
    let Some(app_id) = app_id else {
        return Err(Error::invalid_input(
            text!("{app_id}"),
            "missing",
            text!(
                "{app_id} with {app_secret} (or FEISHU_APP_ID with FEISHU_APP_SECRET and {from_env}), \
                 a {tenant_access_token}, or a {token_provider}"
            ),
        ));
    };
    let Some(app_secret) = app_secret else {
        return Err(Error::invalid_input(
            text!("{app_secret}"),
            "missing",
            "the app's secret",
        ));
    };
    match (tenant_key, app_ticket) {
        (Some(tenant_key), app_ticket) => Ok(Identity::Store(Arc::new(StoreApp {
            app_id,
            app_secret,
            tenant_key,
            ticket: watch::Sender::new(app_ticket),
            app_access_token: Mutex::default(),
        }))),
        (None, Some(_)) => Err(Error::invalid_input(
            text!("{tenant_key}"),
            "missing",
            text!("the key of the tenant that the store app acts for, because an {app_ticket} is given"),
        )),
        (None, None) => Ok(Identity::SelfBuilt(Arc::new(SelfBuiltApp { app_id, app_secret }))),
    }
}

fn quota(pacing: Pacing, shared: Option<QuotaHandle>) -> Result<Option<QuotaHandle>, Error> {
    match (pacing, shared) {
        (Pacing::Unset, Some(quota)) => Ok(Some(quota)),
        (_, Some(_)) => Err(Error::invalid_input(
            text!("{rate_limit}"),
            text!("given together with {quota}"),
            "one of them: a shared quota has its own limit",
        )),
        (Pacing::Unset, None) => Ok(Some(QuotaHandle::new(RateLimit::default()))),
        (Pacing::Limit(limit), None) if limit.per_second == 0 || limit.per_minute == 0 => {
            Err(Error::invalid_input(
                text!("{rate_limit}"),
                "0",
                "at least 1 call a second and 1 a minute",
            ))
        }
        (Pacing::Limit(limit), None) => Ok(Some(QuotaHandle::new(limit))),
        (Pacing::Off, None) => Ok(None),
    }
}

fn user_agent(suffix: Option<&str>) -> Result<HeaderValue, Error> {
    let own = concat!("feishu-feed-card/", env!("CARGO_PKG_VERSION"));
    let Some(suffix) = suffix else {
        return Ok(HeaderValue::from_static(own));
    };
    let is_plain = !suffix.trim().is_empty() && suffix.bytes().all(|byte| matches!(byte, 0x20..=0x7e));
    match HeaderValue::try_from(format!("{own} {suffix}")) {
        Ok(value) if is_plain => Ok(value),
        _ => Err(Error::invalid_input(
            text!("{user_agent}"),
            shown(suffix),
            "printable ASCII, such as `my-bot/1.0`",
        )),
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("app_id", &self.app_id)
            .field("base_url", &self.base_url.as_ref().map(|_| "…"))
            .field("timeout", &self.timeout)
            .field("max_retries", &self.max_retries)
            .field("pacing", &self.pacing)
            .finish_non_exhaustive()
    }
}
