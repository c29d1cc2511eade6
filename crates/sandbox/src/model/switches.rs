//! How the platform behaves where no public document settles it. Each default is the likeliest reading.

use serde::{Deserialize, Serialize};

/// The platform's open questions, one field each; what is left out in JSON keeps its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is one open question about the platform, told apart by name in JSON"
)]
pub struct Switches {
    /// The HTTP status of 99991663 (bad, expired or revoked token): 400 in live logs, 200 claimed.
    pub token_error_status: u16,
    /// The code for a wrong app secret: 10014 or 10015, both are documented.
    pub wrong_secret_code: i64,
    /// The `msg` of a successful call: `success`, or `ok` as in older answers
    /// (docs/platform.md#msg-is-prose).
    pub success_msg: String,
    /// What a success looks like in which nobody failed.
    pub success_shape: SuccessShape,
    /// Calls an app may make in a second, for each of the two calls; `null` for no limit.
    pub per_second: Option<u32>,
    /// Calls an app may make in a minute, for each of the two calls; `null` for no limit.
    pub per_minute: Option<u32>,
    /// Whether refused calls take room in the windows too. Unknown; the default lets a client that is
    /// refused come back after the reset it was told.
    pub refused_fill_windows: bool,
    /// The HTTP status of 99991400: 429, or 400 on old calls.
    pub rate_limit_status: u16,
    /// What happens to an id no user of this world has.
    pub unknown_ids: UnknownIds,
    /// Whether an app without the field permission is also not told a failed user's `open_id` or
    /// `union_id`; `false` hides only a `user_id`. Which is unknown: docs/platform.md#field-permission.
    pub field_permission_for_every_id_type: bool,
    /// The most `user_ids` the group call takes; no limit is known (docs/platform.md#users-per-request).
    pub group_max_users: Option<usize>,
    /// The code for too many `user_ids`, or none: 230001, or the gateway's 99992402.
    pub list_length_code: i64,
    /// The code for a chat nobody knows: 232006 on calls next to this one, or 230001
    /// (docs/platform.md#codes).
    pub unknown_chat_code: i64,
    /// The code for a dissolved chat.
    pub dissolved_chat_code: i64,
    /// The code for a chat the bot is not in: 230027 of this call, or 230002 of calls next to it
    /// (docs/platform.md#bot-not-in-chat).
    pub bot_not_in_chat_code: i64,
    /// How long a token lives, in seconds: 7200 on the platform.
    pub token_life_s: u64,
    /// A token with at least this many seconds left is handed out again: 1800 on the platform.
    pub token_reuse_s: u64,
    /// A path in front of `/open-apis`, as a private deployment behind a proxy may have: `/lark`.
    pub path_prefix: String,
    /// How many requests the record keeps, the newest; 0 keeps none.
    pub keep_requests: usize,
    /// How many arrival times of each call are kept for `max_in_window`, the newest.
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
    /// The defaults without any frequency limit, for benchmarks and for tests about something else.
    pub fn unlimited() -> Self {
        Self {
            per_second: None,
            per_minute: None,
            ..Self::default()
        }
    }
}

/// The forms in which "nobody failed" may be said. See docs/platform.md#success-bodies.
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
    /// No `data` at all.
    NoData,
}

/// What happens to an id no user of this world has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UnknownIds {
    /// It is listed among the failed, as one who is not in the chat.
    #[default]
    Listed,
    /// The whole request fails as for an id of another app or tenant: 99992361 under `open_id`, 99992363
    /// under `union_id`, 99992364 under `user_id`.
    CrossApp,
    /// The whole request fails as for an id nobody has: 99992351.
    Invalid,
}
