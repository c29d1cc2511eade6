//! What a stand-in platform holds when it starts: apps, users, chats and switches.

use serde::{Deserialize, Serialize};

use super::Switches;

/// The scope the calls ask for.
pub const CALL_SCOPE: &str = "im:datasync.feed_card.time_sensitive:write";

/// The field permission that lets an app see a failed user's id.
pub const USER_ID_SCOPE: &str = "contact:user.employee_id:readonly";

/// Everything a stand-in platform knows at its start.
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
    /// The apps that may ask for tokens.
    pub apps: Vec<App>,
    /// The people the platform knows. Members of [`chats`](World::chats) need not be repeated here.
    pub users: Vec<User>,
    /// The group chats.
    pub chats: Vec<Chat>,
    /// How the platform behaves where its documentation leaves it open.
    pub switches: Switches,
    /// What tokens, tickets and log ids are derived from. Left out, a server draws one, so that a token of
    /// one sandbox is worthless in another; a bare [`Model`](crate::Model) takes 0.
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
    /// The platform page's own example group.
    pub const EXAMPLE_CHAT: &str = "oc_679eaeb583654bff73fefcc6e6371370";
    /// The platform page's own example user, a member of the example group.
    pub const EXAMPLE_USER: &str = "ou_9d2beb613c85a2412862a49a924558c5";
    /// The platform page's example of a failed user: known, but not in the example group.
    pub const EXAMPLE_OUTSIDER: &str = "ou_679eaeb583654bff73fefcc6e6371301";

    /// The example group, user and outsider of the platform's own page, a self-built app and a store app.
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

/// Which kind of app: a company's own, or one sold to many companies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AppKind {
    /// Takes its tenant token with id and secret alone.
    #[default]
    SelfBuilt,
    /// Needs the ticket the platform pushes, and a tenant key; can not use `user_id`.
    Store,
}

/// An app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is one independent setting of the app, told apart by name in JSON"
)]
pub struct App {
    /// The app's id, usually `cli_…`.
    pub app_id: String,
    /// The app's secret.
    pub app_secret: String,
    /// Default: self-built.
    #[serde(default)]
    pub kind: AppKind,
    /// The tenant that has a store app installed.
    #[serde(default = "example_tenant_key")]
    pub tenant_key: String,
    /// What the app may do. Default: [`CALL_SCOPE`], without which a call answers 99991672.
    #[serde(default = "call_scope")]
    pub scopes: Vec<String>,
    /// Whether failed users are named ([`USER_ID_SCOPE`]); see also
    /// [`Switches::field_permission_for_every_id_type`].
    #[serde(default = "yes")]
    pub user_id_permission: bool,
    /// `false`: the call answers 99991662.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// `false`: the call answers 99991673.
    #[serde(default = "yes")]
    pub installed: bool,
    /// `false`: the call answers 230006.
    #[serde(default = "yes")]
    pub bot_enabled: bool,
    /// `false`: the call answers 99991401, as for a caller whose address is not on the app's list.
    #[serde(default = "yes")]
    pub ip_allowed: bool,
    /// How many calls the month still allows; the one after answers 99991403.
    #[serde(default)]
    pub monthly_quota: Option<u64>,
}

impl App {
    /// A self-built app with the scope it needs.
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

/// A person, under all three kinds of id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Who this is for one app: `ou_…`.
    pub open_id: String,
    /// Who this is for one developer: `on_…`. Left out, the open id with the other prefix.
    #[serde(default)]
    pub union_id: Option<String>,
    /// Who this is in the tenant. Left out, the open id without its prefix.
    #[serde(default)]
    pub user_id: Option<String>,
}

impl User {
    /// A person whose other two ids follow from the open id.
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
    /// `false`: the call answers 230027.
    #[serde(default = "yes")]
    pub bot_in_chat: bool,
    /// `true`: the call answers [`Switches::dissolved_chat_code`].
    #[serde(default)]
    pub dissolved: bool,
}

impl Chat {
    /// A chat with these members (open ids) and the bot.
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
