//! The initial state of the platform: apps, users, chats and switches.

use serde::{Deserialize, Serialize};

use super::Switches;

/// The scope that both interfaces require.
pub const CALL_SCOPE: &str = "im:datasync.feed_card.time_sensitive:write";

/// The field permission with which an app gets the ids of failed users.
pub const USER_ID_SCOPE: &str = "contact:user.employee_id:readonly";

/// The initial state of the platform.
///
/// ```
/// use feishu_feed_card_sandbox::World;
///
/// fn main() -> serde_json::Result<()> {
///     let world: World = serde_json::from_str(
///         r#"{"chats": [{"feed_card_id": "oc_war_room", "members": ["ou_amy", "ou_bo"]}]}"#,
///     )?;
///     assert_eq!(world.chats[0].members.len(), 2);
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct World {
    /// The apps.
    pub apps: Vec<App>,
    /// The users. Members of [`chats`](World::chats) become users without being listed here.
    pub users: Vec<User>,
    /// The group chats.
    pub chats: Vec<Chat>,
    /// Behaviour where the platform's documentation is silent or contradicts itself.
    pub switches: Switches,
    /// The seed of tokens, tickets and log ids. Default: random for a [`Sandbox`](crate::Sandbox) or
    /// [`Stage`](crate::Stage), so that a token is valid for one sandbox only, and 0 for a [`Model`](crate::Model).
    pub seed: Option<u64>,
}

impl World {
    /// The app id of [`World::example`].
    pub const EXAMPLE_APP_ID: &str = "cli_example";
    /// The app secret of [`World::example`].
    pub const EXAMPLE_APP_SECRET: &str = "example-secret";
    /// The id of the store app of [`World::example`]; it has the same secret.
    pub const EXAMPLE_STORE_APP_ID: &str = "cli_example_store";
    /// The tenant key under which the example's store app is installed.
    pub const EXAMPLE_TENANT_KEY: &str = "tenant_example";
    /// The id of the example chat, from the platform's documentation.
    pub const EXAMPLE_CHAT: &str = "oc_679eaeb583654bff73fefcc6e6371370";
    /// The open id of a member of the example chat, from the platform's documentation.
    pub const EXAMPLE_USER: &str = "ou_9d2beb613c85a2412862a49a924558c5";
    /// The open id of a user who is not in the example chat, from the platform's documentation.
    pub const EXAMPLE_OUTSIDER: &str = "ou_679eaeb583654bff73fefcc6e6371301";

    /// A world with a self-built app, a store app, and the chat and users of the platform's documentation.
    pub fn example() -> Self {
        Self {
            apps: vec![
                App::new(Self::EXAMPLE_APP_ID, Self::EXAMPLE_APP_SECRET),
                App {
                    kind: AppKind::Store,
                    ..App::new(Self::EXAMPLE_STORE_APP_ID, Self::EXAMPLE_APP_SECRET)
                },
            ],
            users: vec![
                User {
                    user_id: Some("9d2beb61".to_owned()),
                    ..User::new(Self::EXAMPLE_USER)
                },
                User {
                    user_id: Some("679eaeb5".to_owned()),
                    ..User::new(Self::EXAMPLE_OUTSIDER)
                },
            ],
            chats: vec![Chat::new(Self::EXAMPLE_CHAT, [Self::EXAMPLE_USER])],
            switches: Switches::default(),
            seed: None,
        }
    }
}

/// The kind of an app: made by a company for itself, or distributed to many companies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AppKind {
    /// Gets its tenant token with its id and secret.
    #[default]
    SelfBuilt,
    /// Also needs a ticket from the platform and a tenant key. Cannot use `user_id`.
    Store,
}

/// An app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is an independent setting with its own name in JSON"
)]
pub struct App {
    /// The app's id, usually `cli_…`.
    pub app_id: String,
    /// The app's secret.
    pub app_secret: String,
    /// The kind of the app. Default: self-built.
    #[serde(default)]
    pub kind: AppKind,
    /// The key of the tenant in which a store app is installed.
    #[serde(default = "example_tenant_key")]
    pub tenant_key: String,
    /// The app's scopes. Default: [`CALL_SCOPE`]. Without it, calls fail with 99991672.
    #[serde(default = "call_scope")]
    pub scopes: Vec<String>,
    /// Whether the app gets the ids of failed users ([`USER_ID_SCOPE`]). See also
    /// [`Switches::field_permission_for_every_id_type`].
    #[serde(default = "yes")]
    pub user_id_permission: bool,
    /// Whether the app is enabled. If not, calls fail with 99991662.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whether the app is installed in the tenant. If not, calls fail with 99991673.
    #[serde(default = "yes")]
    pub installed: bool,
    /// Whether the app's bot is enabled. If not, calls fail with 230006.
    #[serde(default = "yes")]
    pub bot_enabled: bool,
    /// Whether the caller's IP address is in the app's allow list. If not, calls fail with 99991401.
    #[serde(default = "yes")]
    pub ip_allowed: bool,
    /// How many calls the app may still make this month. After that, calls fail with 99991403. Default: no limit.
    #[serde(default)]
    pub monthly_quota: Option<u64>,
}

impl App {
    /// A self-built app with the required scope.
    pub fn new(app_id: impl Into<String>, app_secret: impl Into<String>) -> Self {
        Self {
            app_id: app_id.into(),
            app_secret: app_secret.into(),
            kind: AppKind::SelfBuilt,
            tenant_key: example_tenant_key(),
            scopes: call_scope(),
            user_id_permission: true,
            enabled: true,
            installed: true,
            bot_enabled: true,
            ip_allowed: true,
            monthly_quota: None,
        }
    }
}

/// A user, with all three kinds of ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The id for one app: `ou_…`.
    pub open_id: String,
    /// The id for all apps of one developer: `on_…`. Default: the open id with this prefix instead.
    #[serde(default)]
    pub union_id: Option<String>,
    /// The id in the tenant. Default: the open id without its prefix.
    #[serde(default)]
    pub user_id: Option<String>,
}

impl User {
    /// A user with the default union id and user id.
    pub fn new(open_id: impl Into<String>) -> Self {
        Self {
            open_id: open_id.into(),
            union_id: None,
            user_id: None,
        }
    }
}

/// A group chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chat {
    /// The chat's id: `oc_…`.
    pub feed_card_id: String,
    /// The open ids of its members.
    #[serde(default)]
    pub members: Vec<String>,
    /// Whether the bot is in the chat. If not, calls fail with [`Switches::bot_not_in_chat_code`].
    #[serde(default = "yes")]
    pub bot_in_chat: bool,
    /// Whether the chat is dissolved. If so, calls fail with [`Switches::dissolved_chat_code`].
    #[serde(default)]
    pub dissolved: bool,
}

impl Chat {
    /// A chat with the bot and these members (open ids).
    pub fn new<I>(feed_card_id: impl Into<String>, members: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        Self {
            feed_card_id: feed_card_id.into(),
            members: members.into_iter().map(Into::into).collect(),
            bot_in_chat: true,
            dissolved: false,
        }
    }
}

fn yes() -> bool {
    true
}

fn example_tenant_key() -> String {
    World::EXAMPLE_TENANT_KEY.to_owned()
}

fn call_scope() -> Vec<String> {
    vec![CALL_SCOPE.to_owned()]
}
