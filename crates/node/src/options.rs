//! Conversion of a client's options from TypeScript to the core's builder.

use std::env;
use std::ffi::OsString;
use std::sync::LazyLock;
use std::time::Duration;

use feishu_feed_card::binding::invalid_input;
use feishu_feed_card::binding::options::{ClientOption, Kind, OPTIONS};
use feishu_feed_card::{Client, ClientBuilder, Error, RateLimit};
use napi::bindgen_prelude::{ClassInstance, Either, JsObjectValue, Object};
use napi_derive::napi;

use crate::client::Quota;
use crate::names::in_javascript;

/// Node's variable for further certificates to trust.
const EXTRA_CA_CERTS: &str = "NODE_EXTRA_CA_CERTS";

/// The variable's value when the package was loaded. Node itself reads it when the process starts, and documents that a
/// later change has no effect.
static EXTRA_CA_CERTS_FILE: LazyLock<Option<OsString>> =
    LazyLock::new(|| env::var_os(EXTRA_CA_CERTS).filter(|path| !path.is_empty()));

/// Reads the variable now.
pub(crate) fn read_environment() {
    LazyLock::force(&EXTRA_CA_CERTS_FILE);
}

/// An option of a client, from which the facade knows the type to check.
#[napi(object, object_from_js = false)]
pub(crate) struct OptionData {
    pub name: String,
    #[napi(
        ts_type = "'text' | 'secret' | 'flag' | 'path' | 'milliseconds' | 'count' | 'proxy' | 'rateLimit' | 'quota' | 'tokenProvider'"
    )]
    pub kind: &'static str,
}

/// Returns all options except `onEvent`, which only the facade has.
#[napi(catch_unwind)]
pub(crate) fn client_options() -> Vec<OptionData> {
    let option = |option: ClientOption| OptionData {
        name: in_javascript(option.name),
        kind: match option.kind {
            Kind::Text(_) => "text",
            Kind::Secret(_) => "secret",
            Kind::Flag(_) => "flag",
            Kind::Path(_) => "path",
            Kind::Duration(_) | Kind::DurationOrZero(_) => "milliseconds",
            Kind::Count(_) => "count",
            Kind::Proxy => "proxy",
            Kind::RateLimit => "rateLimit",
            Kind::Quota => "quota",
            Kind::TokenProvider => "tokenProvider",
        },
    };
    OPTIONS.map(option).into()
}

/// The option `rateLimit`.
#[napi(object, object_to_js = false)]
pub(crate) struct Rate {
    pub per_second: f64,
    pub per_minute: f64,
}

/// Why a client was not created.
pub(crate) enum Refused {
    Wrong(Error),
    /// A value of a wrong type. This is a bug of the facade, which checks types.
    Bug(napi::Error),
}

/// Returns a builder with the options that the facade has checked.
pub(crate) fn builder(options: &Object<'_>) -> Result<ClientBuilder, Refused> {
    let mut builder = Client::builder();
    if let Some(path) = &*EXTRA_CA_CERTS_FILE {
        builder = builder.extra_ca_certs(EXTRA_CA_CERTS, path.clone());
    }
    for ClientOption { name, kind } in OPTIONS {
        let name = &in_javascript(name);
        if options.has_named_property(name)? {
            builder = with(builder, kind, name, options)?;
        }
    }
    Ok(builder)
}

fn with(
    builder: ClientBuilder,
    kind: Kind,
    name: &str,
    options: &Object<'_>,
) -> Result<ClientBuilder, Refused> {
    Ok(match kind {
        Kind::Text(set) | Kind::Secret(set) => set(builder, options.get_named_property(name)?),
        Kind::Flag(set) => set(builder, options.get_named_property(name)?),
        Kind::Path(set) => set(builder, options.get_named_property::<String>(name)?.into()),
        Kind::Duration(set) => set(builder, milliseconds(name, options.get_named_property(name)?)?),
        Kind::DurationOrZero(set) => set(
            builder,
            milliseconds_or_zero(name, options.get_named_property(name)?)?,
        ),
        Kind::Count(set) => set(builder, whole(name, options.get_named_property(name)?)?),
        Kind::Proxy => match options.get_named_property::<Either<String, bool>>(name)? {
            Either::A(url) => builder.proxy(url),
            Either::B(_) => builder.no_proxy(),
        },
        Kind::RateLimit => match options.get_named_property::<Either<bool, Rate>>(name)? {
            Either::A(_) => builder.rate_limit(None),
            Either::B(rate) => builder.rate_limit(RateLimit::new(
                whole("rateLimit.perSecond", rate.per_second)?,
                whole("rateLimit.perMinute", rate.per_minute)?,
            )),
        },
        Kind::Quota => {
            let quota: ClassInstance<'_, Quota> = options.get_named_property(name)?;
            builder.quota(quota.handle.clone())
        }
        // The facade keeps the provider and calls it.
        Kind::TokenProvider => builder,
    })
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Wrong(error)
    }
}

impl From<napi::Error> for Refused {
    fn from(error: napi::Error) -> Self {
        Self::Bug(error)
    }
}

/// Converts a number of milliseconds, which must not be 0.
pub(crate) fn milliseconds(field: &str, ms: f64) -> Result<Duration, Error> {
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

/// Converts a number of milliseconds, which may be 0.
pub(crate) fn milliseconds_or_zero(field: &str, ms: f64) -> Result<Duration, Error> {
    if ms == 0.0 {
        return Ok(Duration::ZERO);
    }
    milliseconds(field, ms)
}

pub(crate) fn whole(field: &str, number: f64) -> Result<u32, Error> {
    // Larger numbers become the largest u32, which is practically no limit.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the number is whole and not negative, and the cast saturates"
    )]
    if number >= 0.0 && number.fract() == 0.0 {
        Ok(number as u32)
    } else {
        Err(invalid_input(field, number, "a whole number, not negative"))
    }
}
