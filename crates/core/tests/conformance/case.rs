//! Loads cases. `tests/README.md` describes their keys; an unknown key is an error.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use feishu_feed_card_sandbox::{App, Chat, Control, Fault, Switches, User};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    #[serde(rename = "source")]
    pub(crate) _source: String,
    #[serde(default)]
    pub(crate) world: WorldParts,
    #[serde(default)]
    pub(crate) client: ClientOptions,
    #[serde(default)]
    pub(crate) https: bool,
    #[serde(default)]
    pub(crate) faults: Vec<Fault>,
    pub(crate) steps: Vec<Step>,
    #[serde(default)]
    pub(crate) seen: Seen,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WorldParts {
    pub(crate) apps: Option<Vec<App>>,
    pub(crate) users: Option<Vec<User>>,
    pub(crate) chats: Option<Vec<Chat>>,
    pub(crate) switches: Switches,
    pub(crate) seed: Option<u64>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(clippy::option_option, reason = "null and a missing key differ")]
pub(crate) struct ClientOptions {
    pub(crate) app_id: Option<String>,
    pub(crate) app_secret: Option<String>,
    pub(crate) tenant_access_token: Option<String>,
    /// The tokens that the provider returns in turn.
    pub(crate) token_provider: Option<Vec<String>>,
    pub(crate) tenant_key: Option<String>,
    pub(crate) app_ticket: Option<String>,
    pub(crate) base_url: Option<String>,
    pub(crate) allow_http: Option<bool>,
    pub(crate) proxy: Option<Proxy>,
    /// `Some(None)` is `null`: the sandbox's certificate is not trusted.
    #[serde(deserialize_with = "present")]
    pub(crate) ca_certs: Option<Option<PathBuf>>,
    pub(crate) user_agent: Option<String>,
    pub(crate) timeout: Option<f64>,
    pub(crate) connect_timeout: Option<f64>,
    pub(crate) attempt_timeout: Option<f64>,
    pub(crate) late_arrival: Option<f64>,
    pub(crate) max_retries: Option<u32>,
    pub(crate) rate_limit: Option<(u32, u32)>,
    pub(crate) max_users_per_request: Option<usize>,
}

/// A proxy's URL, or `false` for no proxy.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
pub(crate) enum Proxy {
    Url(String),
    Off,
}

impl TryFrom<Value> for Proxy {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::String(url) => Ok(Self::Url(url)),
            Value::Bool(false) => Ok(Self::Off),
            other => Err(format!("proxy is {other}; expected a URL or false")),
        }
    }
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            app_id: Some("cli_example".to_owned()),
            app_secret: Some("example-secret".to_owned()),
            tenant_access_token: None,
            token_provider: None,
            tenant_key: None,
            app_ticket: None,
            base_url: None,
            allow_http: None,
            proxy: None,
            ca_certs: None,
            user_agent: None,
            timeout: None,
            connect_timeout: None,
            attempt_timeout: None,
            late_arrival: None,
            max_retries: None,
            rate_limit: None,
            max_users_per_request: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(try_from = "Value")]
pub(crate) enum Step {
    Call(CallStep),
    NewClient(Expected),
    Control(Control),
    Together(Vec<CallStep>),
    Many(ManyStep),
}

/// A `set_time_sensitive_many`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ManyStep {
    pub(crate) requests: Vec<ManyRequest>,
    pub(crate) concurrency: Option<usize>,
    pub(crate) total_timeout: Option<f64>,
    /// The number of items after which the loop is left.
    pub(crate) take: Option<usize>,
    /// Whether items come from `collect` and not from a loop.
    #[serde(default)]
    pub(crate) collect: bool,
    pub(crate) items: Vec<ItemEnd>,
    /// The expected error after the last item. `None`: there must be no error.
    pub(crate) raises: Option<End>,
    pub(crate) report: Option<Value>,
}

#[derive(Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct ManyRequest {
    pub(crate) args: GroupArgs,
    pub(crate) tag: Value,
}

impl TryFrom<Value> for ManyRequest {
    type Error = String;

    fn try_from(mut request: Value) -> Result<Self, String> {
        let tag = request.as_object_mut().and_then(|fields| fields.remove("tag"));
        let tag = tag.unwrap_or_default();
        read(request).map(|args| Self { args, tag })
    }
}

#[derive(Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct End(pub(crate) Expected);

impl TryFrom<Value> for End {
    type Error = String;

    fn try_from(raises: Value) -> Result<Self, String> {
        Expected::new(None, Some(raises)).map(Self)
    }
}

#[derive(Deserialize)]
#[serde(try_from = "RawItemEnd")]
pub(crate) struct ItemEnd {
    pub(crate) index: usize,
    pub(crate) tag: Option<Value>,
    pub(crate) expected: Expected,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawItemEnd {
    index: usize,
    tag: Option<Value>,
    returns: Option<Value>,
    raises: Option<Value>,
}

impl TryFrom<RawItemEnd> for ItemEnd {
    type Error = String;

    fn try_from(end: RawItemEnd) -> Result<Self, String> {
        let expected = Expected::new(end.returns, end.raises)?;
        Ok(Self {
            index: end.index,
            tag: end.tag,
            expected,
        })
    }
}

#[derive(Deserialize)]
#[serde(try_from = "RawCallStep")]
pub(crate) struct CallStep {
    pub(crate) call: Call,
    pub(crate) expected: Expected,
}

pub(crate) enum Call {
    Group(GroupArgs),
    Bot(BotArgs),
    AppTicket(TicketArgs),
    Close(CloseArgs),
}

/// How a call must end.
pub(crate) enum Expected {
    Returns(Value),
    Raises(Value),
}

const RETURNED: [&str; 6] = [
    "ok",
    "failed_user_reasons",
    "log_id",
    "log_ids",
    "requests",
    "users",
];

const RAISED: [&str; 15] = [
    "kind",
    "platform_code",
    "http_status",
    "retryable",
    "attempts",
    "station",
    "reason",
    "field",
    "message_contains",
    "hint_contains",
    "log_id",
    "users",
    "retry_after",
    "field_violations",
    "permission_violations",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCallStep {
    call: String,
    args: Value,
    /// `Some(Null)` is the result of `set_app_ticket` and `close`; `None` is a missing key.
    #[serde(default, deserialize_with = "present")]
    returns: Option<Value>,
    raises: Option<Value>,
}

fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl TryFrom<Value> for Step {
    type Error = String;

    fn try_from(step: Value) -> Result<Self, String> {
        if step.get("call").is_some() {
            return read(step).map(Self::Call);
        }
        let (name, content) = match step {
            Value::Object(only) if only.len() == 1 => only.into_iter().next().unwrap_or_default(),
            other => return Err(format!("expected one kind of step: {other}")),
        };
        match &*name {
            "control" => read(content).map(Self::Control),
            "together" => read(content).map(Self::Together),
            "many" => read(content).map(Self::Many),
            "new_client" => match content.get("raises") {
                Some(raises) if content.as_object().is_some_and(|new| new.len() == 1) => {
                    Expected::new(None, Some(raises.clone())).map(Self::NewClient)
                }
                _ => Err(format!("new_client must have nothing but raises: {content}")),
            },
            _ => Err(format!("unknown step: {name}")),
        }
    }
}

impl TryFrom<RawCallStep> for CallStep {
    type Error = String;

    fn try_from(step: RawCallStep) -> Result<Self, String> {
        let call = match &*step.call {
            "set_time_sensitive" => Call::Group(read(step.args)?),
            "set_bot_time_sensitive" => Call::Bot(read(step.args)?),
            "set_app_ticket" => Call::AppTicket(read(step.args)?),
            "close" => Call::Close(read(step.args)?),
            other => return Err(format!("unknown call: {other}")),
        };
        let expected = Expected::new(step.returns, step.raises)?;
        Ok(Self { call, expected })
    }
}

impl Expected {
    fn new(returns: Option<Value>, raises: Option<Value>) -> Result<Self, String> {
        let only_known = |what: &str, value: &Value, known: &[&str]| {
            let object = value.as_object().into_iter().flatten();
            match object.map(|(key, _)| key).find(|key| !known.contains(&&***key)) {
                Some(unknown) => Err(format!("unknown key {unknown} in {what}")),
                None => Ok(()),
            }
        };
        match (returns, raises) {
            (Some(returns), None) => {
                only_known("returns", &returns, &RETURNED)?;
                Ok(Self::Returns(returns))
            }
            (None, Some(raises)) => {
                only_known("raises", &raises, &RAISED)?;
                Ok(Self::Raises(raises))
            }
            _ => Err("a step must have either returns or raises".to_owned()),
        }
    }
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupArgs {
    pub(crate) feed_card_id: String,
    pub(crate) user_ids: Vec<String>,
    pub(crate) time_sensitive: bool,
    pub(crate) user_id_type: Option<String>,
    pub(crate) timeout: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BotArgs {
    pub(crate) user_ids: Vec<String>,
    pub(crate) time_sensitive: bool,
    pub(crate) user_id_type: Option<String>,
    pub(crate) timeout: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TicketArgs {
    pub(crate) app_ticket: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CloseArgs {
    pub(crate) timeout: Option<f64>,
}

/// What the sandbox must have received.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Seen {
    pub(crate) requests: Option<Value>,
    pub(crate) calls: Option<Value>,
    pub(crate) token_fetches: Option<Value>,
    pub(crate) refused_tokens: Option<Value>,
    pub(crate) pinned: Option<serde_json::Map<String, Value>>,
    pub(crate) bot_pinned: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BrokenCase {
    pub(crate) case: Value,
    pub(crate) must_mention: String,
}

/// The folder `tests/` of the clone, relative to this package, in which cargo runs its tests.
const FOLDER: &str = "../../tests";

/// Reads a file of the folder `tests/`.
pub(crate) fn read_file<T: DeserializeOwned>(name: &str) -> T {
    let path = Path::new(FOLDER).join(name);
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Loads all cases. Panics if two of them have the same name.
pub(crate) fn all() -> Vec<Case> {
    let folder = Path::new(FOLDER).join("cases");
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<String> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let cases: Vec<Case> = names
        .iter()
        .flat_map(|name| read_file::<Vec<Case>>(&format!("cases/{name}")))
        .collect();
    let mut seen = HashSet::new();
    for case in &cases {
        assert!(seen.insert(&case.name), "two cases have the name {:?}", case.name);
    }
    cases
}
