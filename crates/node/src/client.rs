//! A client and its calls.

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
use crate::provider::FacadeProvider;
use crate::runtime::runtime;

/// Memory of a client outside of V8's heap (24 MB for a thousand clients). V8 itself sees only a hundred bytes of it, and
/// would collect dropped clients too late.
const CLIENT_SIZE: i64 = 24 * 1024;

/// A client of the core.
#[napi(custom_finalize)]
pub struct NativeClient {
    client: RefCell<Option<Client>>,
    closing: Closing,
    queue: Arc<Queue>,
    /// Created for the first call with a listener.
    events: OnceCell<Dispatch>,
}

impl ObjectFinalize for NativeClient {
    fn finalize(self, env: Env) -> Result<()> {
        env.adjust_external_memory(-CLIENT_SIZE).map(drop)
    }
}

/// A client's quota, to be shared.
#[napi]
pub struct Quota {
    pub(crate) handle: QuotaHandle,
}

/// Creates a client, or returns an error. `provider` is the id of the facade's callbacks if they include a token provider,
/// and `listener` is the same id if they include a listener for events.
#[napi(catch_unwind)]
pub(crate) fn create_client(
    env: &Env,
    environment: &Environment,
    options: Object<'_>,
    provider: Option<i64>,
    listener: Option<i64>,
) -> Result<Either<NativeClient, ErrorData>> {
    let _within = match runtime() {
        Ok(runtime) => runtime.enter(),
        Err(error) => return Ok(Either::B((&binding::out_of_resources(error, Vec::new())).into())),
    };
    let queue = environment.queue.clone();
    let events = listener.map(|client| events(queue.clone(), Some(client)));
    let make = || {
        let mut builder = options::builder(&options)?;
        if let Some(client) = provider {
            let queue = queue.clone();
            builder = builder.token_provider(FacadeProvider { queue, client });
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

/// Returns the message of the error for a value of a wrong type.
#[napi(catch_unwind)]
pub(crate) fn invalid_message(field: String, value: String, expected: String) -> String {
    invalid_input(field, value, expected).to_string()
}

/// Returns the error for an unknown key of one of many requests.
#[napi(catch_unwind)]
pub(crate) fn unknown_key(key: String) -> ErrorData {
    (&binding::unknown_key(&key)).into()
}

/// Returns a text in the form in which errors show it.
#[napi(catch_unwind)]
pub(crate) fn shown(text: String) -> String {
    binding::shown(&text)
}

#[napi]
impl NativeClient {
    /// Starts a call. The environment's `deliver` gets its result, under this id. Without a `feedCardId`, the call is for
    /// the bot's own chat. `wantsEvents` is absent for a call without a context. Otherwise the id is also that of the
    /// context, and the value says whether the context's listeners get the call's events.
    #[allow(
        clippy::too_many_arguments,
        reason = "reading each field of a JavaScript object takes longer than passing arguments"
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
        wants_events: Option<bool>,
    ) -> Result<()> {
        let _within = runtime()?.enter();
        let users = user_ids.len();
        let target = feed_card_id.map_or(Target::Bot, |id| Target::Chat(id.into()));
        let mut call: PendingCall =
            match self.call(target, user_ids, time_sensitive, user_id_type, timeout_ms) {
                // Create the future now: a call takes its place in the order of calls when it is made
                // (docs/architecture.md#order).
                Ok(call) => Box::pin(call.into_future()),
                Err(error) => Box::pin(std::future::ready(Err(error))),
            };
        if let Some(wants_events) = wants_events {
            call = Box::pin(self.context(id, wants_events).around(call));
        }
        self.queue.start(env, id, call, users)
    }

    /// Prepares many calls. Nothing is sent until the first results are requested.
    #[napi(catch_unwind)]
    pub fn many(&self, arguments: ManyArguments) -> Either<NativeMany, ErrorData> {
        let context = arguments
            .context
            .map(|id| self.context(id, arguments.wants_events));
        let made = self
            .open()
            .and_then(|client| NativeMany::new(&client, self.queue.clone(), context, &arguments));
        match made {
            Ok(many) => Either::A(many),
            Err(error) => Either::B((&error).into()),
        }
    }

    /// Sets a store app's new ticket.
    #[napi(catch_unwind)]
    pub fn set_app_ticket(&self, app_ticket: String) -> Option<ErrorData> {
        let set = self.open().and_then(|client| client.set_app_ticket(app_ticket));
        set.err().map(|error| (&error).into())
    }

    /// The quota, or `null` without a rate limit.
    #[napi(getter, catch_unwind)]
    pub fn quota(&self) -> Option<Quota> {
        let client = self.open().ok()?;
        client.quota().map(|handle| Quota { handle })
    }

    /// Refuses new calls, stops calls in progress after the timeout, and drops connections and secrets when no call uses
    /// them. When no call is in progress, the environment's `deliver` gets a message with this id. If the timeout is
    /// invalid, returns an error and does nothing.
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

    fn context(&self, id: i64, wants_events: bool) -> CallContext {
        let events = self.events.get_or_init(|| events(self.queue.clone(), None));
        CallContext::new(events.clone(), id, wants_events)
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
            Err(error) => return Err(binding::not_attempted(error, user_ids)),
        };
        let mut call =
            binding::set_time_sensitive(&client, target, user_ids, time_sensitive).user_id_type(kind);
        if let Some(timeout) = timeout {
            call = call.timeout(timeout);
        }
        Ok(call)
    }
}

/// Converts a call's `userIdType`.
pub(crate) fn kind(user_id_type: Option<String>) -> std::result::Result<UserIdType, Error> {
    user_id_type.map_or_else(|| Ok(UserIdType::default()), |text| UserIdType::from_str(&text))
}

/// Converts a call's `timeoutMs`.
pub(crate) fn timeout(timeout_ms: Option<f64>) -> std::result::Result<Option<Duration>, Error> {
    timeout_ms.map(|ms| milliseconds("timeoutMs", ms)).transpose()
}
