//! Switches for behaviour that the platform's documentation does not settle.

use serde::{Deserialize, Serialize};

/// Behaviour of the platform where its documentation is silent or contradicts itself, and limits of the sandbox.
///
/// Each default is the most likely behaviour. Fields that are missing in JSON have their defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is an independent question about the platform, with its own name in JSON"
)]
pub struct Switches {
    /// The HTTP status of 99991663 (invalid, expired or revoked token). Seen in live logs: 400; claimed: 200
    /// (docs/platform.md#token-codes).
    pub token_error_status: u16,
    /// The code for a wrong app secret. Documented: 10014 and 10015 (docs/platform.md#token-errors).
    pub wrong_secret_code: i64,
    /// The `msg` of a successful call: `success`, or `ok` as in older answers
    /// (docs/platform.md#msg-is-prose).
    pub success_msg: String,
    /// The form of a success without failed users.
    pub success_shape: SuccessShape,
    /// The most calls that an app may make in a second, for each interface. `None`: no limit.
    pub per_second: Option<u32>,
    /// The most calls that an app may make in a minute, for each interface. `None`: no limit.
    pub per_minute: Option<u32>,
    /// Whether refused calls count in the frequency windows. Unknown. With the default, `false`, the next call after
    /// the time in `x-ogw-ratelimit-reset` is accepted.
    pub refused_fill_windows: bool,
    /// The HTTP status of 99991400: 429, or 400 as on older calls (docs/platform.md#frequency-limit).
    pub rate_limit_status: u16,
    /// What happens to an unknown user id.
    pub unknown_ids: UnknownIds,
    /// Whether failed users have no ids of any kind for an app without the field permission. With `false`, only ids of
    /// the kind `user_id` are left out. Which is right is unknown (docs/platform.md#field-permission).
    pub field_permission_for_every_id_type: bool,
    /// The most `user_ids` in a call on a group chat. No limit is known (docs/platform.md#users-per-request).
    pub group_max_users: Option<usize>,
    /// The code for too many `user_ids` or an empty list: 230001, or the gateway's 99992402.
    pub list_length_code: i64,
    /// The code for an unknown chat: 232006 as on related calls, or 230001 (docs/platform.md#codes).
    pub unknown_chat_code: i64,
    /// The code for a dissolved chat.
    pub dissolved_chat_code: i64,
    /// The code for a chat that the bot is not in: 230027, or 230002 as on related calls
    /// (docs/platform.md#bot-not-in-chat).
    pub bot_not_in_chat_code: i64,
    /// The life of a token in seconds. On the platform at most 7,200 (docs/platform.md#token-life).
    pub token_life_s: u64,
    /// A token that is valid for at least this many seconds is returned again. On the platform 1,800
    /// (docs/platform.md#token-life).
    pub token_reuse_s: u64,
    /// A path in front of `/open-apis`, for example `/lark`, as behind the proxy of a private deployment.
    pub path_prefix: String,
    /// How many of the newest requests the record keeps. 0 keeps none.
    pub keep_requests: usize,
    /// The number of arrival times that are kept for [`max_in_window`](crate::Stage::max_in_window), for each interface.
    pub keep_arrivals: usize,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            token_error_status: 400,
            wrong_secret_code: 10014,
            success_msg: "success".to_owned(),
            success_shape: SuccessShape::EmptyList,
            per_second: Some(50),
            per_minute: Some(1000),
            refused_fill_windows: false,
            rate_limit_status: 429,
            unknown_ids: UnknownIds::Listed,
            field_permission_for_every_id_type: true,
            group_max_users: None,
            list_length_code: 230_001,
            unknown_chat_code: 232_006,
            dissolved_chat_code: 232_009,
            bot_not_in_chat_code: 230_027,
            token_life_s: 7200,
            token_reuse_s: 1800,
            path_prefix: String::new(),
            keep_requests: 10_000,
            keep_arrivals: 1_000_000,
        }
    }
}

impl Switches {
    /// The defaults, but without frequency limits.
    pub fn unlimited() -> Self {
        Self {
            per_second: None,
            per_minute: None,
            ..Self::default()
        }
    }
}

/// The form of a success without failed users (docs/platform.md#success-bodies).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SuccessShape {
    /// `"data": {"failed_user_reasons": []}`
    #[default]
    EmptyList,
    /// `"data": {"failed_user_reasons": null}`
    NullList,
    /// `"data": {}`
    EmptyData,
    /// `"data": null`
    NullData,
    /// No `data`.
    NoData,
}

/// What happens to an unknown user id (docs/platform.md#foreign-ids).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UnknownIds {
    /// It is listed as a failed user, like a user who is not in the chat.
    #[default]
    Listed,
    /// The whole request fails, like one with an id of another app or tenant: 99992361 for an `open_id`, 99992363 for
    /// a `union_id`, 99992364 for a `user_id`.
    CrossApp,
    /// The whole request fails, like one with an id that does not exist: 99992351.
    Invalid,
}
