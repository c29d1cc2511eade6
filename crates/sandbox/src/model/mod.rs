//! The platform as a pure state machine, which maps a request and a time to an answer.

mod answer;
mod call;
mod endpoint;
mod switches;
mod token;
mod window;
mod world;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};

pub(crate) use self::answer::{Answer, OVER_LIMIT, Refusal, raw};
pub(crate) use self::endpoint::Endpoint;
pub use self::endpoint::Interface;
pub use self::switches::{SuccessShape, Switches, UnknownIds};
use self::token::Tokens;
use self::window::Windows;
pub use self::world::{App, AppKind, CALL_SCOPE, Chat, USER_ID_SCOPE, User, World};

/// The simulated platform without sockets, a clock or randomness. Two models of the same [`World`] return the same
/// answers to the same requests at the same times.
///
/// ```
/// use std::time::Duration;
///
/// use feishu_feed_card_sandbox::{Model, World};
///
/// fn main() -> Result<(), http::Error> {
///     let mut model = Model::new(World::example());
///     let request = http::Request::post("/open-apis/auth/v3/tenant_access_token/internal")
///         .body(r#"{"app_id":"cli_example","app_secret":"example-secret"}"#.into())?;
///     let response = model.handle(request, Duration::ZERO);
///     assert!(response.body().starts_with(br#"{"code":0"#));
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Model {
    seed: u64,
    switches: Switches,
    apps: BTreeMap<String, AppState>,
    tenant_tokens: Tokens,
    app_tokens: Tokens,
    users: Vec<Person>,
    by_open_id: HashMap<String, usize>,
    by_union_id: HashMap<String, usize>,
    by_user_id: HashMap<String, usize>,
    chats: BTreeMap<String, ChatState>,
    log_ids: u64,
}

#[derive(Debug)]
struct AppState {
    app: App,
    ticket: String,
    ticket_count: u64,
    group_windows: Windows,
    bot_windows: Windows,
    calls: u64,
    /// The users for whom the chat of this app's bot is pinned.
    pinned: HashSet<usize>,
}

#[derive(Debug)]
#[allow(
    clippy::struct_field_names,
    reason = "the platform's names for the three kinds of id"
)]
struct Person {
    open_id: String,
    union_id: String,
    user_id: String,
}

#[derive(Debug)]
struct ChatState {
    bot_in_chat: bool,
    dissolved: bool,
    members: HashSet<usize>,
    pinned: HashSet<usize>,
}

impl Model {
    /// Creates a platform with this world.
    pub fn new(world: World) -> Self {
        let mut model = Self {
            seed: world.seed.unwrap_or_default(),
            switches: world.switches,
            apps: BTreeMap::new(),
            tenant_tokens: Tokens::new("t-"),
            app_tokens: Tokens::new("a-"),
            users: Vec::new(),
            by_open_id: HashMap::new(),
            by_union_id: HashMap::new(),
            by_user_id: HashMap::new(),
            chats: BTreeMap::new(),
            log_ids: 0,
        };
        for app in world.apps {
            model.put_app(app);
        }
        for user in world.users {
            model.put_user(user);
        }
        for chat in world.chats {
            model.put_chat(chat);
        }
        model
    }

    /// Answers a request that arrives at the time `now`, counted from the start of this platform. `now` must not be
    /// earlier than in the call before.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a service takes ownership of its requests"
    )]
    pub fn handle(&mut self, request: Request<Bytes>, now: Duration) -> Response<Bytes> {
        let endpoint = self.endpoint(&request);
        self.answer(&endpoint, &request, now).response
    }

    pub(crate) fn endpoint(&self, request: &Request<Bytes>) -> Endpoint {
        Endpoint::of(request.method(), request.uri().path(), &self.switches.path_prefix)
    }

    pub(crate) fn answer(&mut self, endpoint: &Endpoint, request: &Request<Bytes>, now: Duration) -> Answer {
        let log_id = self.next_log_id();
        if endpoint.is_token() {
            let result = self.token_call(endpoint, request.body(), now, &log_id);
            return match result {
                Ok(response) => Answer {
                    response,
                    code: 0,
                    token: None,
                },
                Err(refusal) => Answer {
                    code: refusal.code,
                    response: refusal.into_token_answer(&log_id),
                    token: None,
                },
            };
        }
        let mut token = None;
        match self.call(endpoint, request, now, &log_id, &mut token) {
            Ok(response) => Answer {
                response,
                code: 0,
                token,
            },
            Err(refusal) => Answer {
                code: refusal.code,
                response: refusal.into_gateway_answer(&log_id),
                token,
            },
        }
    }

    pub(crate) fn next_log_id(&mut self) -> String {
        self.log_ids += 1;
        opaque(&(self.seed, self.log_ids))
    }

    /// The ids of the chats that are pinned for this user, sorted. For bots' own chats see
    /// [`bot_pinned`](Model::bot_pinned).
    pub fn pinned(&self, open_id: &str) -> Vec<String> {
        let Some(user) = self.by_open_id.get(open_id) else {
            return Vec::new();
        };
        let pinned = self.chats.iter().filter(|(_, chat)| chat.pinned.contains(user));
        pinned.map(|(id, _)| id.clone()).collect()
    }

    /// The open ids of the users for whom this chat is pinned, sorted.
    pub fn pinned_users(&self, feed_card_id: &str) -> Vec<String> {
        self.chats
            .get(feed_card_id)
            .map_or_else(Vec::new, |chat| self.open_ids(&chat.pinned))
    }

    /// The ids of the apps whose bot's chat is pinned for this user, sorted.
    pub fn bot_pinned(&self, open_id: &str) -> Vec<String> {
        let Some(user) = self.by_open_id.get(open_id) else {
            return Vec::new();
        };
        let pinned = self.apps.iter().filter(|(_, state)| state.pinned.contains(user));
        pinned.map(|(id, _)| id.clone()).collect()
    }

    /// The open ids of the users for whom the chat of this app's bot is pinned, sorted.
    pub fn bot_pinned_users(&self, app_id: &str) -> Vec<String> {
        self.apps
            .get(app_id)
            .map_or_else(Vec::new, |state| self.open_ids(&state.pinned))
    }

    /// Revokes all tokens. Calls with them fail with 99991663.
    pub fn revoke_tokens(&mut self) {
        self.tenant_tokens.revoke();
        self.app_tokens.revoke();
    }

    /// The current ticket of this app, or `None` for an unknown app.
    pub fn app_ticket(&self, app_id: &str) -> Option<String> {
        self.apps.get(app_id).map(|state| state.ticket.clone())
    }

    /// Replaces this app's ticket and returns the new one. The old ticket becomes invalid. Returns `None` for an
    /// unknown app.
    pub fn rotate_app_ticket(&mut self, app_id: &str) -> Option<String> {
        let state = self.apps.get_mut(app_id)?;
        state.rotate_ticket(self.seed);
        Some(state.ticket.clone())
    }

    /// The current switches: the behaviour where the platform's documentation is silent or contradicts itself.
    pub fn switches(&self) -> &Switches {
        &self.switches
    }

    /// Replaces all [`switches`](Model::switches), from the next request on.
    pub fn set_switches(&mut self, switches: Switches) {
        self.switches = switches;
    }

    /// Adds an app, or changes the app with this id, which keeps its tokens, frequency windows and pins.
    pub fn put_app(&mut self, app: App) {
        if let Some(state) = self.apps.get_mut(&app.app_id) {
            state.app = app;
            return;
        }
        let mut state = AppState {
            ticket: String::new(),
            ticket_count: 0,
            group_windows: Windows::default(),
            bot_windows: Windows::default(),
            calls: 0,
            pinned: HashSet::new(),
            app,
        };
        state.rotate_ticket(self.seed);
        self.apps.insert(state.app.app_id.clone(), state);
    }

    /// Adds a user, or changes the other ids of the user with this open id.
    pub fn put_user(&mut self, user: User) {
        let suffix = user.open_id.strip_prefix("ou_").unwrap_or(&user.open_id);
        let person = Person {
            union_id: user.union_id.unwrap_or_else(|| format!("on_{suffix}")),
            user_id: user.user_id.unwrap_or_else(|| suffix.to_owned()),
            open_id: user.open_id,
        };
        let index = match self.by_open_id.get(&person.open_id) {
            Some(&index) => {
                self.by_union_id.remove(&self.users[index].union_id);
                self.by_user_id.remove(&self.users[index].user_id);
                index
            }
            None => self.users.len(),
        };
        self.by_open_id.insert(person.open_id.clone(), index);
        self.by_union_id.insert(person.union_id.clone(), index);
        self.by_user_id.insert(person.user_id.clone(), index);
        if index == self.users.len() {
            self.users.push(person);
        } else {
            self.users[index] = person;
        }
    }

    /// Adds a chat, or changes the chat with this id. Unknown members become users. Users who are no longer members
    /// lose the pin.
    pub fn put_chat(&mut self, chat: Chat) {
        let mut members = HashSet::with_capacity(chat.members.len());
        for open_id in chat.members {
            if !self.by_open_id.contains_key(&open_id) {
                self.put_user(User::new(open_id.clone()));
            }
            members.insert(self.by_open_id[&open_id]);
        }
        let before = self.chats.remove(&chat.feed_card_id);
        let mut pinned = before.map(|chat| chat.pinned).unwrap_or_default();
        pinned.retain(|user| members.contains(user));
        self.chats.insert(
            chat.feed_card_id,
            ChatState {
                bot_in_chat: chat.bot_in_chat,
                dissolved: chat.dissolved,
                members,
                pinned,
            },
        );
    }

    pub(crate) fn chat_ids(&self) -> impl Iterator<Item = &String> {
        self.chats.keys()
    }

    pub(crate) fn app_ids(&self) -> impl Iterator<Item = &String> {
        self.apps.keys()
    }

    fn open_ids(&self, users: &HashSet<usize>) -> Vec<String> {
        let mut ids: Vec<_> = users
            .iter()
            .map(|&user| self.users[user].open_id.clone())
            .collect();
        ids.sort_unstable();
        ids
    }
}

/// 32 hexadecimal digits, a hash of `source`.
fn opaque(source: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    source.hash(&mut hasher);
    let first = hasher.finish();
    first.hash(&mut hasher);
    format!("{first:016x}{:016x}", hasher.finish())
}
