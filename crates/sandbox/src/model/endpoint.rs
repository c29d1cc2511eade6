//! The endpoint of a request.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

const CARDS: &str = "/open-apis/im/v2/feed_cards/";
const AUTH: &str = "/open-apis/auth/v3/";
// The platform's spelling.
const BOT: &str = "bot_time_sentive";

/// One of the two interfaces for feed cards. Each has its own frequency limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Interface {
    /// Group chats: `PATCH …/feed_cards/{feed_card_id}`.
    Group,
    /// The bot's own chat: `PATCH …/feed_cards/bot_time_sentive`.
    Bot,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Group(String),
    Bot,
    /// A self-built app's tenant token.
    TenantToken,
    /// A store app's own token.
    AppToken,
    /// A store app's tenant token.
    StoreTenantToken,
    ResendTicket,
    Unknown,
}

impl Endpoint {
    pub(crate) fn of(method: &Method, path: &str, prefix: &str) -> Self {
        let Some(path) = path.strip_prefix(prefix) else {
            return Self::Unknown;
        };
        if method == Method::PATCH {
            match path.strip_prefix(CARDS) {
                None | Some("") => Self::Unknown,
                Some(id) if id.contains('/') => Self::Unknown,
                // The official Python client percent-encodes the id, the one for Node.js does not.
                Some(id) => match percent_decode_str(id).decode_utf8_lossy() {
                    Cow::Borrowed(BOT) => Self::Bot,
                    id if id == BOT => Self::Bot,
                    id => Self::Group(id.into_owned()),
                },
            }
        } else if method == Method::POST {
            // Some official examples have a slash at the end.
            match path
                .strip_prefix(AUTH)
                .map(|rest| rest.strip_suffix('/').unwrap_or(rest))
            {
                Some("tenant_access_token/internal") => Self::TenantToken,
                Some("app_access_token") => Self::AppToken,
                Some("tenant_access_token") => Self::StoreTenantToken,
                Some("app_ticket/resend") => Self::ResendTicket,
                _ => Self::Unknown,
            }
        } else {
            Self::Unknown
        }
    }

    pub(crate) fn interface(&self) -> Option<Interface> {
        match self {
            Self::Group(_) => Some(Interface::Group),
            Self::Bot => Some(Interface::Bot),
            _ => None,
        }
    }

    pub(crate) fn is_token(&self) -> bool {
        self.interface().is_none() && *self != Self::Unknown
    }

    pub(crate) fn is_tenant_token(&self) -> bool {
        matches!(self, Self::TenantToken | Self::StoreTenantToken)
    }
}
