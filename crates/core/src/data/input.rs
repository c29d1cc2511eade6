//! The arguments of calls, and the checks that they pass before anything is sent.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::data::error::Error;
use crate::data::text::{Template, Text, text};

/// The kind of the user ids (`user_id_type`).
///
/// ```
/// use feishu_feed_card::{Error, UserIdType};
///
/// fn main() -> Result<(), Error> {
///     let kind: UserIdType = "union_id".parse()?;
///     assert_eq!(kind, UserIdType::UnionId);
///     assert_eq!(UserIdType::default().as_str(), "open_id");
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UserIdType {
    /// `ou_…`: a user within one app. The platform's default.
    #[default]
    OpenId,
    /// `on_…`: a user within all apps of one developer.
    UnionId,
    /// A user within the tenant; not for store apps.
    UserId,
}

impl UserIdType {
    pub(crate) const ALL: [Self; 3] = [Self::OpenId, Self::UnionId, Self::UserId];

    /// The platform's name: `open_id`, `union_id` or `user_id`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenId => "open_id",
            Self::UnionId => "union_id",
            Self::UserId => "user_id",
        }
    }

    /// The query of the call's URL.
    pub(crate) const fn query(self) -> &'static str {
        match self {
            Self::OpenId => "user_id_type=open_id",
            Self::UnionId => "user_id_type=union_id",
            Self::UserId => "user_id_type=user_id",
        }
    }

    const fn prefix(self) -> Option<&'static str> {
        match self {
            Self::OpenId => Some("ou_"),
            Self::UnionId => Some("on_"),
            Self::UserId => None,
        }
    }
}

impl fmt::Display for UserIdType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for UserIdType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| {
                Error::invalid_input(
                    text!("{user_id_type}"),
                    shown(text),
                    "`open_id`, `union_id` or `user_id`",
                )
            })
    }
}

/// Requires a value that is not empty and has no whitespace around it. The line break at the end of a file would be
/// sent, and the platform would refuse the secret as wrong.
pub(crate) fn check_filled(field: Template, value: Option<&str>) -> Result<(), Error> {
    match value {
        Some(value) if value.trim().is_empty() => Err(Error::invalid_input(field, "empty", "a value")),
        Some(value) if value.trim() != value => Err(Error::invalid_input(
            field,
            "begins or ends with whitespace",
            "the value without whitespace around it",
        )),
        _ => Ok(()),
    }
}

/// One call for [`Client::set_time_sensitive_many`](crate::Client::set_time_sensitive_many).
///
/// ```
/// use std::time::Duration;
///
/// use feishu_feed_card::{Request, UserIdType};
///
/// fn pin(chat: &str, union_ids: &[&str]) -> Request<&'static str> {
///     Request::new(chat, union_ids, true)
///         .user_id_type(UserIdType::UnionId)
///         .timeout(Duration::from_secs(10))
///         .tag("incident 7")
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request<T = ()> {
    /// The group chat's id, `oc_…`.
    pub feed_card_id: String,
    /// The users for whom the chat is pinned or unpinned.
    pub user_ids: Vec<String>,
    /// `true` pins the chat, `false` unpins it.
    pub time_sensitive: bool,
    /// The kind of the user ids.
    pub user_id_type: UserIdType,
    /// The timeout of this call. `None`: the client's timeout.
    pub timeout: Option<Duration>,
    /// Any value of the caller's. Not sent; returned with the [`Item`](crate::Item).
    pub tag: T,
}

impl Request {
    /// Pins (`true`) or unpins (`false`) the group chat for these users. Nothing is checked yet.
    pub fn new(
        feed_card_id: impl Into<String>,
        user_ids: impl IntoIterator<Item = impl AsRef<str>>,
        time_sensitive: bool,
    ) -> Self {
        Self {
            feed_card_id: feed_card_id.into(),
            user_ids: user_ids.into_iter().map(|id| id.as_ref().to_owned()).collect(),
            time_sensitive,
            user_id_type: UserIdType::default(),
            timeout: None,
            tag: (),
        }
    }
}

impl<T> Request<T> {
    /// Sets the kind of the user ids. Default: `open_id`.
    #[must_use]
    pub fn user_id_type(mut self, user_id_type: UserIdType) -> Self {
        self.user_id_type = user_id_type;
        self
    }

    /// Sets the timeout of this call. Default: the client's timeout.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the tag: any value of the caller's, such as a row's id. Not sent; returned with the [`Item`](crate::Item).
    #[must_use]
    pub fn tag<U>(self, tag: U) -> Request<U> {
        self.split(tag).0
    }

    /// Replaces the tag. Returns the request and the previous tag.
    pub(crate) fn split<U>(self, tag: U) -> (Request<U>, T) {
        let request = Request {
            feed_card_id: self.feed_card_id,
            user_ids: self.user_ids,
            time_sensitive: self.time_sensitive,
            user_id_type: self.user_id_type,
            timeout: self.timeout,
            tag,
        };
        (request, self.tag)
    }
}

/// The chat that is pinned or unpinned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The group chat with this id. An `Arc`, because a call, its place in line and the map of chats each hold the id.
    Chat(Arc<str>),
    /// The bot's own chat.
    Bot,
}

/// The arguments of one call, unchecked.
#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    pub(crate) target: Target,
    pub(crate) user_ids: Vec<String>,
    pub(crate) time_sensitive: bool,
    pub(crate) user_id_type: UserIdType,
    pub(crate) timeout: Option<Duration>,
}

impl From<Request> for Arguments {
    fn from(request: Request) -> Self {
        Self {
            target: Target::Chat(request.feed_card_id.into()),
            user_ids: request.user_ids,
            time_sensitive: request.time_sensitive,
            user_id_type: request.user_id_type,
            timeout: request.timeout,
        }
    }
}

/// A call whose arguments have passed every check.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) target: Target,
    pub(crate) user_ids: Vec<String>,
    pub(crate) time_sensitive: bool,
    pub(crate) user_id_type: UserIdType,
}

/// The path segment of the call for the bot's own chat, in the platform's spelling (docs/platform.md#bot-call). It
/// takes the place of a chat's id, so an id of this text would pin the bot's chat instead.
const BOT_SEGMENT: &str = "bot_time_sentive";

impl Target {
    /// The segment of the URL's path.
    pub(crate) fn segment(&self) -> &str {
        match self {
            Self::Chat(feed_card_id) => feed_card_id,
            Self::Bot => BOT_SEGMENT,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let Self::Chat(feed_card_id) = self else {
            return Ok(());
        };
        let well_formed = feed_card_id.strip_prefix("oc_").is_some_and(|rest| {
            (1..=125).contains(&rest.len())
                && rest
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        });
        if well_formed {
            return Ok(());
        }
        let expected = if &**feed_card_id == BOT_SEGMENT {
            text!("a group chat's id; for the bot's own chat use {set_bot_time_sensitive}")
        } else {
            text!("a group chat's id: `oc_` followed by 1 to 125 letters, digits, `_` or `-`")
        };
        Err(Error::invalid_input(
            text!("{feed_card_id}"),
            shown(feed_card_id),
            expected,
        ))
    }
}

/// Checks the user ids.
pub(crate) fn check_user_ids(user_ids: &[String], kind: UserIdType, is_store_app: bool) -> Result<(), Error> {
    if is_store_app && kind == UserIdType::UserId {
        return Err(Error::invalid_input(
            text!("{user_id_type}"),
            "`user_id`",
            "`open_id` or `union_id`: a store app cannot use `user_id`",
        ));
    }
    if user_ids.is_empty() {
        return Err(Error::invalid_input(
            text!("{user_ids}"),
            "empty",
            "at least one user id",
        ));
    }
    for (index, id) in user_ids.iter().enumerate() {
        if let Err(expected) = check_user_id(id, kind) {
            return Err(Error::invalid_input(
                text!("{user_ids}[{}]", index),
                shown(id),
                expected,
            ));
        }
    }
    Ok(())
}

/// Drops repeated ids, keeping the order of the first ones.
pub(crate) fn without_repeats(mut user_ids: Vec<String>) -> Vec<String> {
    if user_ids.len() > 1 {
        let mut seen = HashSet::with_capacity(user_ids.len());
        let first: Vec<bool> = user_ids.iter().map(|id| seen.insert(id.as_str())).collect();
        if seen.len() < first.len() {
            let mut first = first.into_iter();
            user_ids.retain(|_| first.next().unwrap_or(true));
        }
    }
    user_ids
}

fn check_user_id(id: &str, kind: UserIdType) -> Result<(), Text> {
    if let Some(prefix) = kind.prefix()
        && id.len() > prefix.len()
        && !id.starts_with(prefix)
    {
        return Err(text!(
            "an id that starts with `{}`, because {user_id_type} is `{}`",
            prefix,
            kind
        ));
    }
    let least = kind.prefix().map_or(1, |prefix| prefix.len() + 1);
    let most = 128;
    // Nearly all ids pass this check. They would also pass the checks below, at ten times the cost.
    if (least..=most).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    let characters = id.chars().take(most + 1).count();
    if id.trim().is_empty() || id.len() < least {
        return Err(text!("a user's {}", kind));
    }
    if characters > most {
        return Err(text!("at most {} characters", most));
    }
    if id.trim().len() != id.len() || id.chars().any(char::is_control) {
        return Err("an id without control characters and without whitespace around it".into());
    }
    Ok(())
}

/// Formats a value for an error: quoted, escaped, and cut after 40 characters.
pub(crate) fn shown(value: &str) -> String {
    const MOST: usize = 40;
    match value.char_indices().nth(MOST) {
        None => format!("{value:?}"),
        Some((end, _)) => format!("{:?}… ({} characters)", &value[..end], value.chars().count()),
    }
}

/// Converts a number of seconds, for languages without a type for durations.
pub(crate) fn seconds(field: &'static str, value: f64) -> Result<Duration, Error> {
    match Duration::try_from_secs_f64(value) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        // A time beyond the range of `Duration` means no limit.
        Err(_) if value.is_finite() && value > 0.0 => Ok(Duration::MAX),
        _ => Err(Error::invalid_input(
            field,
            value.to_string(),
            "a positive, finite number",
        )),
    }
}
