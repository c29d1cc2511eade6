//! What the Python and Node bindings need beside the public interface, so that no rule is written in two
//! languages. Not part of the public interface.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use crate::client::{Client, SetTimeSensitive};
use crate::data::error::{Error, Station};
use crate::data::input;
use crate::data::outcome::UserIds;
use crate::data::text::text;
use crate::platform::no_answer;
use crate::stations::closing;
use crate::stations::quota::{QuotaHandle, RateLimit};

pub use crate::data::error::Spelled;
pub use crate::data::input::Target;
pub use crate::data::origin::{Origin, origin, with_origin};
pub use crate::stations::closing::Closing;
pub use crate::stations::token::{Abandoned, NoThread};

pub mod many;
pub mod options;
pub mod reports;

/// [`Client::set_time_sensitive`] or [`Client::set_bot_time_sensitive`], whichever the target needs.
pub fn set_time_sensitive(
    client: &Client,
    target: Target,
    user_ids: Vec<String>,
    time_sensitive: bool,
) -> SetTimeSensitive {
    client.call(target, user_ids, time_sensitive)
}

/// The error for an argument of a wrong type, and for an option that does not exist.
pub fn invalid_input(field: impl Into<String>, value: impl Display, expected: impl Display) -> Error {
    Error::invalid_input(field.into(), value.to_string(), expected.to_string())
}

/// The error for an unknown key of one of many requests.
pub fn unknown_key(key: &str) -> Error {
    Error::invalid_input(
        key,
        "unknown key of a request",
        text!(
            "{feed_card_id}, {user_ids}, {time_sensitive}, {user_id_type}, {timeout}, or {tag} for any value of yours"
        ),
    )
}

/// An error's texts, with the names of options, arguments and methods as `spelling` makes them of Rust's.
pub fn spelled(error: &Error, spelling: fn(&str) -> String) -> Spelled {
    error.spelled(spelling)
}

/// The error of a call that did not come as far as the core's own checks, with the user ids handed in.
pub fn refused(error: Error, user_ids: Vec<String>) -> Error {
    error.with_users(UserIds::not_attempted(input::without_repeats(user_ids)))
}

/// Error of a call for which the system refused a thread or a file descriptor before anything was sent.
pub fn out_of_resources(error: io::Error, user_ids: Vec<String>) -> Error {
    refused(
        no_answer::out_of_resources(error).with_station(Station::Connect),
        user_ids,
    )
}

/// Error of a call made after the client was closed.
pub fn client_closed(user_ids: Vec<String>) -> Error {
    refused(closing::client_closed(), user_ids)
}

/// A handle that closes a client and holds neither its connections nor its secrets.
pub fn closing(client: &Client) -> Closing {
    client.core.closing.clone()
}

/// A value as an error shows it.
pub fn shown(value: &str) -> String {
    input::shown(value)
}

/// A duration from a number of seconds: positive and finite, or an error that names the field.
pub fn seconds(field: &'static str, value: f64) -> Result<Duration, Error> {
    input::seconds(field, value)
}

/// Like [`seconds`], but it may be 0.
pub fn seconds_or_zero(field: &'static str, value: f64) -> Result<Duration, Error> {
    if value == 0.0 {
        return Ok(Duration::ZERO);
    }
    input::seconds(field, value)
        .map_err(|_| invalid_input(field, value.to_string(), "0 or a positive, finite number"))
}

/// Where a client's platform is, for a client's `repr`.
pub fn base_url(client: &Client) -> &str {
    client.core.base_url.as_str()
}

/// A quota of the same limit with nothing used of it: after a fork the old one's locks may be held by a
/// thread that is gone.
pub fn fresh_quota(limit: RateLimit) -> QuotaHandle {
    QuotaHandle::new(limit)
}

/// Reads an answer as a call would. For `cargo fuzz`, which sees only what is public.
#[cfg(fuzzing)]
pub fn fuzz_answer(status: u16, headers: &[(u8, Vec<u8>)], body: Vec<u8>) {
    const NAMES: [&str; 5] = [
        "x-tt-logid",
        "x-request-id",
        "x-ogw-ratelimit-reset",
        "x-ogw-ratelimit-limit",
        "retry-after",
    ];
    let mut response = http::Response::builder().status(100 + status % 900);
    for (name, value) in headers {
        response = response.header(NAMES[usize::from(*name) % NAMES.len()], &value[..]);
    }
    let Ok(response) = response.body(bytes::Bytes::from(body)) else {
        return;
    };
    if let crate::platform::answer::Reading::Failure(failure) =
        crate::platform::answer::read::<crate::platform::answer::CallData>(&response, &|_| {})
    {
        assert!(!failure.error.to_string().is_empty());
    }
}
