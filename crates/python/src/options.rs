//! Conversion of a client's keyword arguments to options.

use feishu_feed_card::binding::options::{ClientOption, Kind, OPTIONS};
use feishu_feed_card::{ClientBuilder, Error, RateLimit, binding};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyList, PyTuple};

use crate::arguments::{count, flag, path, seconds, secret, text, wrong};
use crate::errors::Refusal;
use crate::provider::Provider;
use crate::quota::Quota;

/// A client's options. A forked child builds its client from `builder`, and handles the other three separately.
pub(crate) struct Options {
    pub(crate) builder: ClientBuilder,
    pub(crate) pacing: Pacing,
    pub(crate) quota: Option<Py<Quota>>,
    pub(crate) provider: Option<Provider>,
}

/// The option `rate_limit`.
#[derive(Clone, Copy)]
pub(crate) enum Pacing {
    /// The option was not given: the platform's limits apply.
    Platform,
    Limited(RateLimit),
    Off,
}

/// Returns the names of all options, for a test of Python's signatures.
pub(crate) fn names() -> [&'static str; OPTIONS.len()] {
    OPTIONS.map(|option| option.name)
}

impl Options {
    /// Reads the given options. `None` means the default, except for `rate_limit`, where it means no limits.
    pub(crate) fn read(given: &Bound<'_, PyDict>) -> Result<Self, Refusal> {
        let mut options = Self {
            builder: ClientBuilder::default(),
            pacing: Pacing::Platform,
            quota: None,
            provider: None,
        };
        for (name, value) in given {
            let name = text("an option's name", &name)?;
            let Some(option) = ClientOption::named(&name) else {
                let expected = format!("one of {}", names().join(", "));
                return Err(binding::invalid_input(name, "not an option", expected).into());
            };
            if !value.is_none() || matches!(option.kind, Kind::RateLimit) {
                options = options.with(option, &value)?;
            }
        }
        Ok(options)
    }

    fn with(
        mut self,
        ClientOption { name, kind }: ClientOption,
        value: &Bound<'_, PyAny>,
    ) -> Result<Self, Refusal> {
        let builder = self.builder;
        self.builder = match kind {
            Kind::Text(set) => set(builder, text(name, value)?),
            Kind::Secret(set) => set(builder, secret(name, value)?),
            Kind::Flag(set) => set(builder, flag(name, value)?),
            Kind::Path(set) => set(builder, path(name, value)?),
            Kind::Duration(set) => set(builder, seconds(name, value, binding::seconds)?),
            Kind::DurationOrZero(set) => set(builder, seconds(name, value, binding::seconds_or_zero)?),
            Kind::Count(set) => set(builder, count(name, value)?),
            Kind::Proxy => match value.cast::<PyBool>() {
                Ok(flag) if !flag.is_true() => builder.no_proxy(),
                Ok(_) => return Err(wrong(name, value, "a proxy's URL, or False for no proxy").into()),
                Err(_) => builder.proxy(secret(name, value)?),
            },
            Kind::RateLimit => {
                self.pacing = pacing(value)?;
                builder
            }
            Kind::Quota => {
                let quota = value.cast::<Quota>();
                let quota = quota.map_err(|_| wrong(name, value, "another client's quota"))?;
                self.quota = Some(quota.clone().unbind());
                builder
            }
            Kind::TokenProvider => {
                self.provider = Some(Provider::new(value.clone())?);
                builder
            }
        };
        Ok(self)
    }
}

/// Converts `None`, or a tuple of the calls per second and per minute.
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
        let expected = "None, or a tuple of the calls per second and the calls per minute";
        return Err(wrong("rate_limit", value, expected));
    };
    let per_second = count("rate_limit[0]", &per_second)?;
    let per_minute = count("rate_limit[1]", &per_minute)?;
    Ok(Pacing::Limited(RateLimit::new(per_second, per_minute)))
}
