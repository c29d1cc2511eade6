//! The HTTP request of a call.

use http::{HeaderValue, Method};
use serde::Serialize;

use super::base_url::BaseUrl;
use crate::data::error::Error;
use crate::data::input::Call;
use crate::data::text::text;
use crate::transport::Outgoing;

/// Default maximum of users in one request. The platform documents this limit only for the bot's own chat.
/// Whether group chats allow more is not known (docs/platform.md#users-per-request).
pub(crate) const MAX_USERS: usize = 50;

#[derive(Serialize)]
struct Body<'a> {
    time_sensitive: bool,
    user_ids: &'a [String],
}

/// Builds the request of a call for these users.
pub(crate) fn set_time_sensitive(
    base_url: &BaseUrl,
    call: &Call,
    user_ids: &[String],
    authorization: HeaderValue,
) -> Result<Outgoing, Error> {
    let body = Body {
        time_sensitive: call.time_sensitive,
        user_ids,
    };
    // Checked input does not cause this error.
    let body = serde_json::to_vec(&body)
        .map_err(|error| Error::invalid_input(text!("{user_ids}"), "not JSON", "ids").with_source(error))?;
    Ok(Outgoing {
        method: Method::PATCH,
        url: base_url.call(&call.target, call.user_id_type),
        authorization: Some(authorization),
        body: body.into(),
    })
}
