//! A client's options, from Python's keywords.

use feishu_feed_card::{ClientBuilder, Error, RateLimit, binding};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyList, PyTuple};

use crate::arguments::{count, flag, path, seconds, secret, text, wrong};
use crate::provider::Provider;
use crate::quota::Quota;

/// What a builder does not keep for a forked process, beside one that it does.
pub(crate) struct Options {
    pub(crate) builder: ClientBuilder,
    pub(crate) pacing: Pacing,
    pub(crate) quota: Option<Py<Quota>>,
    pub(crate) provider: Option<Provider>,
}

/// The option `rate_limit`.
#[derive(Clone, Copy)]
pub(crate) enum Pacing {
    /// Left out.
    Platform,
    Limited(RateLimit),
    Off,
}

const NAMES: [&str; 19] = [
    "app_id",
    "app_secret",
    "tenant_access_token",
    "token_provider",
    "tenant_key",
    "app_ticket",
    "base_url",
    "allow_http",
    "proxy",
    "ca_certs",
    "user_agent",
    "timeout",
    "connect_timeout",
    "attempt_timeout",
    "max_retries",
    "rate_limit",
    "quota",
    "late_arrival",
    "max_users_per_request",
];

impl Options {
    /// Reads the options that were given. `None` leaves one out, but for `rate_limit`, where it means no
    /// pacing.
    pub(crate) fn read(given: &Bound<'_, PyDict>) -> Result<Self, Error> {
        let mut options = Self {
            builder: ClientBuilder::default(),
            pacing: Pacing::Platform,
            quota: None,
            provider: None,
        };
        for (name, value) in given {
            options = options.with(&text("an option's name", &name)?, value)?;
        }
        Ok(options)
    }

    fn with(mut self, name: &str, value: Bound<'_, PyAny>) -> Result<Self, Error> {
        if !NAMES.contains(&name) {
            let expected = format_args!("one of {}", NAMES.join(", "));
            return Err(binding::invalid_input(name, "not an option", expected));
        }
        if value.is_none() && name != "rate_limit" {
            return Ok(self);
        }
        let builder = self.builder;
        let value_ = &value;
        self.builder = match name {
            "app_id" => builder.app_id(text(name, value_)?),
            "app_secret" => builder.app_secret(secret(name, value_)?),
            "tenant_access_token" => builder.tenant_access_token(secret(name, value_)?),
            "tenant_key" => builder.tenant_key(text(name, value_)?),
            "app_ticket" => builder.app_ticket(secret(name, value_)?),
            "base_url" => builder.base_url(text(name, value_)?),
            "allow_http" => builder.allow_http(flag(name, value_)?),
            "proxy" => match value_.cast::<PyBool>() {
                Ok(flag) if !flag.is_true() => builder.no_proxy(),
                Ok(_) => return Err(wrong(name, value_, "a proxy's URL, or False for none")),
                Err(_) => builder.proxy(secret(name, value_)?),
            },
            "ca_certs" => builder.ca_certs(path(name, value_)?),
            "user_agent" => builder.user_agent(text(name, value_)?),
            "timeout" => builder.timeout(seconds("timeout", value_, binding::seconds)?),
            "connect_timeout" => {
                builder.connect_timeout(seconds("connect_timeout", value_, binding::seconds)?)
            }
            "attempt_timeout" => {
                builder.attempt_timeout(seconds("attempt_timeout", value_, binding::seconds)?)
            }
            "late_arrival" => {
                builder.late_arrival(seconds("late_arrival", value_, binding::seconds_or_zero)?)
            }
            "max_retries" => builder.max_retries(count(name, value_)?),
            "max_users_per_request" => builder.max_users_per_request(count(name, value_)?),
            "rate_limit" => {
                self.pacing = pacing(value_)?;
                builder
            }
            "quota" => {
                let quota = value_.cast::<Quota>();
                let quota = quota.map_err(|_| wrong(name, value_, "another client's quota"))?;
                self.quota = Some(quota.clone().unbind());
                builder
            }
            "token_provider" => {
                self.provider = Some(Provider::new(value)?);
                builder
            }
            _ => builder,
        };
        Ok(self)
    }
}

/// `None`, or calls a second and calls a minute.
fn pacing(value: &Bound<'_, PyAny>) -> Result<Pacing, Error> {
    if value.is_none() {
        return Ok(Pacing::Off);
    }
    let numbers = if value.is_instance_of::<PyTuple>() || value.is_instance_of::<PyList>() {
        value.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>().ok()
    } else {
        None
    };
    let Some((per_second, per_minute)) = numbers else {
        let expected = "None, or a tuple of the calls a second and the calls a minute";
        return Err(wrong("rate_limit", value, expected));
    };
    let per_second = count("rate_limit[0]", &per_second)?;
    let per_minute = count("rate_limit[1]", &per_minute)?;
    Ok(Pacing::Limited(RateLimit::new(per_second, per_minute)))
}
