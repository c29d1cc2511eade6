//! A client's options as TypeScript hands them over, turned into the core's builder.

use std::env;
use std::ffi::OsString;
use std::sync::LazyLock;
use std::time::Duration;

use feishu_feed_card::binding::invalid_input;
use feishu_feed_card::{Client, ClientBuilder, Error, RateLimit};
use napi::bindgen_prelude::ClassInstance;
use napi_derive::napi;

use crate::client::Quota;

/// Node's variable for certificates to trust besides its own.
const EXTRA_CA_CERTS: &str = "NODE_EXTRA_CA_CERTS";

/// The variable's value when the package was loaded. Node itself reads it when the process starts, and documents that a
/// later change has no effect.
static EXTRA_CA_CERTS_FILE: LazyLock<Option<OsString>> =
    LazyLock::new(|| env::var_os(EXTRA_CA_CERTS).filter(|path| !path.is_empty()));

/// Keeps what the environment says now.
pub(crate) fn read_environment() {
    LazyLock::force(&EXTRA_CA_CERTS_FILE);
}

/// Types are checked by the facade, values here and in the core.
#[napi(object, object_to_js = false)]
pub(crate) struct Options<'a> {
    pub app_id: Option<String>,
    pub app_secret: Option<String>,
    pub tenant_key: Option<String>,
    pub app_ticket: Option<String>,
    pub tenant_access_token: Option<String>,
    pub base_url: Option<String>,
    pub allow_http: Option<bool>,
    pub proxy: Option<String>,
    /// `proxy: false`.
    pub no_proxy: bool,
    pub ca_certs: Option<String>,
    pub user_agent: Option<String>,
    pub timeout_ms: Option<f64>,
    pub connect_timeout_ms: Option<f64>,
    pub attempt_timeout_ms: Option<f64>,
    pub max_retries: Option<f64>,
    pub rate_limit: Option<Rate>,
    /// `rateLimit: false`.
    pub unlimited: bool,
    pub quota: Option<ClassInstance<'a, Quota>>,
    pub late_arrival_ms: Option<f64>,
    pub max_users_per_request: Option<f64>,
}

/// How many calls to make at most.
#[napi(object, object_to_js = false)]
pub(crate) struct Rate {
    pub per_second: f64,
    pub per_minute: f64,
}

impl Options<'_> {
    pub(crate) fn builder(self) -> Result<ClientBuilder, Error> {
        let mut builder = Client::builder();
        if let Some(path) = &*EXTRA_CA_CERTS_FILE {
            builder = builder.extra_ca_certs(EXTRA_CA_CERTS, path.clone());
        }
        macro_rules! set {
            ($($option:ident),+ $(,)?) => {
                $(if let Some(value) = self.$option { builder = builder.$option(value); })+
            };
        }
        set!(
            app_id,
            app_secret,
            tenant_key,
            app_ticket,
            tenant_access_token,
            base_url,
            allow_http,
            proxy,
            ca_certs,
            user_agent,
        );
        if let Some(ms) = self.timeout_ms {
            builder = builder.timeout(milliseconds("timeoutMs", ms)?);
        }
        if let Some(ms) = self.connect_timeout_ms {
            builder = builder.connect_timeout(milliseconds("connectTimeoutMs", ms)?);
        }
        if let Some(ms) = self.attempt_timeout_ms {
            builder = builder.attempt_timeout(milliseconds("attemptTimeoutMs", ms)?);
        }
        if let Some(ms) = self.late_arrival_ms {
            builder = builder.late_arrival(match ms {
                0.0 => Duration::ZERO,
                ms => milliseconds("lateArrivalMs", ms)?,
            });
        }
        if let Some(number) = self.max_retries {
            builder = builder.max_retries(whole("maxRetries", number)?);
        }
        if let Some(number) = self.max_users_per_request {
            let most = whole("maxUsersPerRequest", number)?;
            builder = builder.max_users_per_request(usize::try_from(most).unwrap_or(usize::MAX));
        }
        if self.no_proxy {
            builder = builder.no_proxy();
        }
        if self.unlimited {
            builder = builder.rate_limit(None);
        }
        if let Some(rate) = self.rate_limit {
            builder = builder.rate_limit(RateLimit::new(
                whole("rateLimit.perSecond", rate.per_second)?,
                whole("rateLimit.perMinute", rate.per_minute)?,
            ));
        }
        if let Some(quota) = self.quota {
            builder = builder.quota(quota.handle.clone());
        }
        Ok(builder)
    }
}

/// A duration given as a number of milliseconds, JavaScript's habit.
pub(crate) fn milliseconds(field: &'static str, ms: f64) -> Result<Duration, Error> {
    match Duration::try_from_secs_f64(ms / 1000.0) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        Err(_) if ms.is_finite() && ms > 0.0 => Ok(Duration::MAX),
        _ => Err(invalid_input(
            field,
            ms,
            "a positive, finite number of milliseconds",
        )),
    }
}

pub(crate) fn whole(field: &'static str, number: f64) -> Result<u32, Error> {
    // A double above 2^53 has no fraction to lose, and is as good as no limit.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be whole and not negative; the cast stops at the largest u32"
    )]
    if number >= 0.0 && number.fract() == 0.0 {
        Ok(number as u32)
    } else {
        Err(invalid_input(field, number, "a whole number, not negative"))
    }
}
