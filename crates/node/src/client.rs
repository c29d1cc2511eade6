//! A client and its two calls.

use std::cell::{OnceCell, RefCell};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use feishu_feed_card::binding::{self, Closing, Target, invalid_input};
use feishu_feed_card::{Client, Error, QuotaHandle, SetTimeSensitive, UserIdType};
use napi::Env;
use napi::bindgen_prelude::{Either, Object, ObjectFinalize, Result};
use napi_derive::napi;
use tracing::Dispatch;
use tracing::dispatcher::with_default;

use crate::data::ErrorData;
use crate::environment::{Environment, PendingCall, Queue};
use crate::events::{CallContext, events};
use crate::many::{ManyArguments, NativeMany};
use crate::options::{self, Refused, milliseconds, milliseconds_or_zero};
use crate::provider::Asked;
use crate::runtime::runtime;

/// What a client holds outside of V8's heap (a thousand of them: 24 MB). Told to V8, which sees a hundred
/// bytes of it and would not collect dropped clients in time.
const CLIENT_SIZE: i64 = 24 * 1024;

/// A client of the core.
#[napi(custom_finalize)]
pub struct NativeClient {
    client: RefCell<Option<Client>>,
    closing: Closing,
    queue: Arc<Queue>,
    /// Made for the first call that someone listens to.
    events: OnceCell<Dispatch>,
}

impl ObjectFinalize for NativeClient {
    fn finalize(self, env: Env) -> Result<()> {
        env.adjust_external_memory(-CLIENT_SIZE).map(drop)
    }
}

/// A client's.
#[napi]
pub struct Quota {
    pub(crate) handle: QuotaHandle,
}

/// Makes a client, or says which option is wrong, or what the system refuses. With `asks` its tokens come from the facade, which is
/// asked under this id; with `tells` the facade is told its events.
#[napi(catch_unwind)]
pub(crate) fn create_client(
    env: &Env,
    environment: &Environment,
    options: Object<'_>,
    asks: Option<i64>,
    tells: Option<i64>,
) -> Result<Either<NativeClient, ErrorData>> {
    let _within = match runtime() {
        Ok(runtime) => runtime.enter(),
        Err(error) => return Ok(Either::B((&binding::out_of_resources(error, Vec::new())).into())),
    };
    let queue = environment.queue.clone();
    let events = tells.map(|client| events(queue.clone(), Some(client)));
    let make = || {
        let mut builder = options::builder(&options)?;
        if let Some(client) = asks {
            let queue = queue.clone();
            builder = builder.token_provider(Asked { queue, client });
        }
        builder.build().map_err(Refused::Wrong)
    };
    let built = match &events {
        Some(events) => with_default(events, make),
        None => make(),
    };
    match built {
        Ok(client) => {
            env.adjust_external_memory(CLIENT_SIZE)?;
            Ok(Either::A(NativeClient {
                closing: binding::closing(&client),
                client: RefCell::new(Some(client)),
                queue,
                events: events.map(OnceCell::from).unwrap_or_default(),
            }))
        }
        Err(Refused::Wrong(error)) => Ok(Either::B((&error).into())),
        Err(Refused::Bug(error)) => Err(error),
    }
}

/// What the error says for what the facade found to be of a wrong type.
#[napi(catch_unwind)]
pub(crate) fn invalid_message(field: String, value: String, expected: String) -> String {
    invalid_input(field, value, expected).to_string()
}

/// The error of a closed client.
#[napi(catch_unwind)]
pub(crate) fn client_closed() -> ErrorData {
    (&binding::client_closed(Vec::new())).into()
}

/// The error for an unknown key of one of many requests.
#[napi(catch_unwind)]
pub(crate) fn unknown_key(key: String) -> ErrorData {
    (&binding::unknown_key(&key)).into()
}

/// A text as an error shows it.
#[napi(catch_unwind)]
pub(crate) fn shown(text: String) -> String {
    binding::shown(&text)
}

#[napi]
impl NativeClient {
    /// Begins a call; its end comes to the environment's `deliver`, under this id. No `feedCardId` is the bot's
    /// own chat. With `tells`, the id is that of a context as well, whose listeners are told the call's events if it is true.
    #[allow(
        clippy::too_many_arguments,
        reason = "to look up each field of an object across the border takes longer than to read it"
    )]
    #[napi(catch_unwind)]
    pub fn start(
        &self,
        env: &Env,
        id: i64,
        user_ids: Vec<String>,
        time_sensitive: bool,
        feed_card_id: Option<String>,
        user_id_type: Option<String>,
        timeout_ms: Option<f64>,
        tells: Option<bool>,
    ) -> Result<()> {
        let _within = runtime()?.enter();
        let users = user_ids.len();
        let target = feed_card_id.map_or(Target::Bot, |id| Target::Chat(id.into()));
        let mut call: PendingCall =
            match self.call(target, user_ids, time_sensitive, user_id_type, timeout_ms) {
                // Now and not when first polled: a call takes its place in the order when it is made.
                Ok(call) => Box::pin(call.into_future()),
                Err(error) => Box::pin(std::future::ready(Err(error))),
            };
        if let Some(tells) = tells {
            call = Box::pin(self.context(id, tells).around(call));
        }
        self.queue.start(env, id, call, users)
    }

    /// Makes a handle of many calls; nothing is sent until it is asked.
    #[napi(catch_unwind)]
    pub fn many(&self, arguments: ManyArguments) -> Either<NativeMany, ErrorData> {
        let context = arguments
            .context
            .map(|id| self.context(id, arguments.tells_events));
        let made = self
            .open()
            .and_then(|client| NativeMany::new(&client, self.queue.clone(), context, &arguments));
        match made {
            Ok(many) => Either::A(many),
            Err(error) => Either::B((&error).into()),
        }
    }

    /// Hands over a store app's new ticket.
    #[napi(catch_unwind)]
    pub fn set_app_ticket(&self, app_ticket: String) -> Option<ErrorData> {
        let set = self.open().and_then(|client| client.set_app_ticket(app_ticket));
        set.err().map(|error| (&error).into())
    }

    /// The quota, absent without pacing.
    #[napi(getter, catch_unwind)]
    pub fn quota(&self) -> Option<Quota> {
        let client = self.open().ok()?;
        client.quota().map(|handle| Quota { handle })
    }

    /// Refuses new calls, and lets go of connections and secrets once no call uses them any more. Calls are stopped after
    /// the timeout. The environment's `deliver` gets a message with this id when no call is in progress. Returns an
    /// error, and does nothing, if the timeout is wrong.
    #[napi(catch_unwind)]
    pub fn close(&self, env: &Env, id: i64, timeout_ms: Option<f64>) -> Result<Option<ErrorData>> {
        let timeout = timeout_ms
            .map(|ms| milliseconds_or_zero("timeoutMs", ms))
            .transpose();
        let timeout = match timeout {
            Ok(timeout) => timeout,
            Err(error) => return Ok(Some((&error).into())),
        };
        let _within = runtime()?.enter();
        self.client.take();
        self.queue.start_close(env, id, self.closing.close(timeout))?;
        Ok(None)
    }

    fn context(&self, id: i64, tells: bool) -> CallContext {
        let events = self.events.get_or_init(|| events(self.queue.clone(), None));
        CallContext::new(events.clone(), id, tells)
    }

    fn open(&self) -> std::result::Result<Client, Error> {
        let client = self.client.borrow().clone();
        client.ok_or_else(|| binding::client_closed(Vec::new()))
    }

    fn call(
        &self,
        target: Target,
        user_ids: Vec<String>,
        time_sensitive: bool,
        user_id_type: Option<String>,
        timeout_ms: Option<f64>,
    ) -> std::result::Result<SetTimeSensitive, Error> {
        let (client, kind, timeout) = match self
            .open()
            .and_then(|client| Ok((client, kind(user_id_type)?, timeout(timeout_ms)?)))
        {
            Ok(all) => all,
            Err(error) => return Err(binding::refused(error, user_ids)),
        };
        let mut call =
            binding::set_time_sensitive(&client, target, user_ids, time_sensitive).user_id_type(kind);
        if let Some(timeout) = timeout {
            call = call.timeout(timeout);
        }
        Ok(call)
    }
}

/// A call's `userIdType`.
pub(crate) fn kind(user_id_type: Option<String>) -> std::result::Result<UserIdType, Error> {
    user_id_type.map_or_else(|| Ok(UserIdType::default()), |text| UserIdType::from_str(&text))
}

/// A call's `timeoutMs`.
pub(crate) fn timeout(timeout_ms: Option<f64>) -> std::result::Result<Option<Duration>, Error> {
    timeout_ms.map(|ms| milliseconds("timeoutMs", ms)).transpose()
}
