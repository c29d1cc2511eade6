//! An environment of Node (the main thread, or a worker thread), with its calls in progress and its queue of messages.
//!
//! The runtime's thread pushes results and wakes the JavaScript thread once for all available messages. napi's own
//! promises would cost a handle of the event loop for each call.

use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use feishu_feed_card::{Error, Outcome};
use futures_util::FutureExt;
use napi::Env;
use napi::bindgen_prelude::{FnArgs, Function, Result, Unknown};
use napi::threadsafe_function::{ThreadsafeCallContext, ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, yield_now};

use crate::data::CallResult;
use crate::many::ManyData;
use crate::options;
use crate::runtime::runtime;

/// A call of the core.
pub(crate) type PendingCall = Pin<Box<dyn Future<Output = std::result::Result<Outcome, Error>> + Send>>;

/// A token provider's result: the token and its lifetime in milliseconds, or an error message.
pub(crate) type Provided = std::result::Result<(String, Option<f64>), String>;

/// Weak, so that it does not keep an idle environment alive.
type Wake = ThreadsafeFunction<(), Unknown<'static>, FnArgs<(String,)>, napi::Status, false, true>;

/// A message for TypeScript. The facade's `Message` has the same fields.
#[derive(Serialize)]
struct Message {
    /// The id of the call or provider call. For an event, the id of its context or client.
    id: i64,
    #[serde(flatten)]
    payload: Payload,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Payload {
    /// Results or the report of many calls.
    Many(ManyData),
    /// An event for the listeners of a client or call.
    Event(Value),
    /// No more messages will come for this context.
    Over(bool),
    /// The message of a panic that ended the call, which is a bug of this package.
    Panic(String),
    #[serde(untagged, rename_all = "camelCase")]
    ProviderCall {
        /// The context of the call that needs a token, or the client.
        token_wanted_by: i64,
        /// The token that the platform refused.
        #[serde(skip_serializing_if = "Option::is_none")]
        refused_token: Option<String>,
    },
    #[serde(untagged)]
    Call(CallResult),
}

/// The messages and calls of an environment. Shared by the JavaScript thread and the runtime.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    wake: Mutex<Option<Wake>>,
}

#[derive(Default)]
struct QueueState {
    /// Messages as a JSON array without its closing bracket. Parsing JSON in JavaScript is several times as fast as creating
    /// objects field by field from Rust.
    messages: String,
    /// Ids of the operations that end with one of the messages.
    ended: Vec<i64>,
    /// Operations in progress, by the id that TypeScript chose: calls, closes, and requests of `Many` for results.
    in_flight: HashMap<i64, AbortHandle>,
    /// Token provider calls in progress.
    provider_calls: HashMap<i64, oneshot::Sender<Provided>>,
    last_provider_call: i64,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(self: &Arc<Self>, message: &Message) {
        let json = to_json(message);
        let (is_first, is_last) = {
            let state = &mut *self.state();
            let is_first = state.messages.is_empty();
            state.messages.push(if is_first { '[' } else { ',' });
            state.messages.push_str(&json);
            if matches!(
                message.payload,
                Payload::Call(_) | Payload::Many(_) | Payload::Panic(_)
            ) {
                state.ended.push(message.id);
            }
            (is_first, state.ended.len() == state.in_flight.len())
        };
        if !is_first {
            return;
        }
        match runtime() {
            // Wait for other results that are ready now: waking the JavaScript thread costs as much as a few calls.
            Ok(runtime) if !is_last => {
                let queue = self.clone();
                runtime.spawn(async move {
                    yield_now().await;
                    queue.wake_up();
                });
            }
            _ => self.wake_up(),
        }
    }

    fn wake_up(&self) {
        if let Some(wake) = &*self.wake() {
            // Fails only if the environment is ending.
            wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
        }
    }

    fn wake(&self) -> MutexGuard<'_, Option<Wake>> {
        self.wake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets whether the event loop stays alive for the operations in progress.
    #[expect(
        deprecated,
        reason = "cloning, which napi recommends, keeps the event loop alive as long as the handle exists"
    )]
    fn keep_alive(&self, env: &Env, keep: bool) -> Result<()> {
        match &mut *self.wake() {
            Some(wake) if keep => wake.refer(env),
            Some(wake) => wake.unref(env),
            None => Ok(()),
        }
    }

    /// Calls a client's token provider in the context of the call. The receiver fails if the environment ends before the
    /// provider returns.
    pub(crate) fn call_provider(
        self: &Arc<Self>,
        token_wanted_by: i64,
        refused_token: Option<String>,
    ) -> (i64, oneshot::Receiver<Provided>) {
        let (sender, result) = oneshot::channel();
        let id = {
            let state = &mut *self.state();
            state.last_provider_call += 1;
            state.provider_calls.retain(|_, call| !call.is_closed());
            state.provider_calls.insert(state.last_provider_call, sender);
            state.last_provider_call
        };
        let payload = Payload::ProviderCall {
            token_wanted_by,
            refused_token,
        };
        self.push(&Message { id, payload });
        (id, result)
    }

    /// Runs a close on the runtime. Its message has this id.
    pub(crate) fn start_close(
        self: &Arc<Self>,
        env: &Env,
        id: i64,
        closing: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        self.put(env, id, async move {
            closing.await;
            Payload::Call(CallResult::default())
        })
    }

    /// Sends an event to the listeners of a context or client.
    pub(crate) fn send_event(self: &Arc<Self>, id: i64, event: Value) {
        let payload = Payload::Event(event);
        self.push(&Message { id, payload });
    }

    /// Reports that the facade no longer needs the context.
    pub(crate) fn over(self: &Arc<Self>, context: i64) {
        let payload = Payload::Over(true);
        self.push(&Message { id: context, payload });
    }

    #[cfg(test)]
    pub(crate) fn messages(&self) -> String {
        self.state().messages.clone()
    }

    /// Runs a call on the runtime. Its message has this id. `users` is the number of the call's user ids.
    pub(crate) fn start(self: &Arc<Self>, env: &Env, id: i64, call: PendingCall, users: usize) -> Result<()> {
        self.put(env, id, async move {
            Payload::Call(CallResult::new(call.await, users))
        })
    }

    /// Runs an operation of many calls on the runtime. Its message has this id.
    pub(crate) fn start_many(
        self: &Arc<Self>,
        env: &Env,
        id: i64,
        operation: impl Future<Output = ManyData> + Send + 'static,
    ) -> Result<()> {
        self.put(env, id, async move { Payload::Many(operation.await) })
    }

    fn put(
        self: &Arc<Self>,
        env: &Env,
        id: i64,
        payload: impl Future<Output = Payload> + Send + 'static,
    ) -> Result<()> {
        let queue = self.clone();
        let task = runtime()?.spawn(async move {
            let payload = end_of(payload).await;
            queue.push(&Message { id, payload });
        });
        let was_idle = {
            let in_flight = &mut self.state().in_flight;
            in_flight.insert(id, task.abort_handle());
            in_flight.len() == 1
        };
        if was_idle {
            self.keep_alive(env, true)?;
        }
        Ok(())
    }

    /// Takes the messages as a JSON array, and returns whether no operation is in progress. Called on the JavaScript thread.
    fn drain(&self) -> (String, bool) {
        let QueueState {
            messages,
            ended,
            in_flight,
            ..
        } = &mut *self.state();
        for id in ended.drain(..) {
            in_flight.remove(&id);
        }
        (std::mem::take(messages) + "]", in_flight.is_empty())
    }
}

/// Cannot fail: only maps with keys that are not strings, and failing writers, cause errors.
fn to_json(message: &Message) -> String {
    serde_json::to_string(message).unwrap_or_default()
}

/// Converts a panic to a message, so that it ends only its own call.
async fn end_of(payload: impl Future<Output = Payload>) -> Payload {
    let payload = AssertUnwindSafe(payload).catch_unwind().await;
    payload.unwrap_or_else(|panic| Payload::Panic(message_of(&*panic)))
}

/// Returns the message of a panic.
fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("panicked").to_owned()
}

/// An environment of Node. The facade creates it when it is loaded.
#[napi]
pub struct Environment {
    pub(crate) queue: Arc<Queue>,
}

#[napi]
impl Environment {
    /// `deliver` is called with a JSON array of messages. It must not throw.
    #[napi(constructor, catch_unwind)]
    pub fn new(deliver: Function<'_, FnArgs<(String,)>, Unknown<'static>>) -> Result<Self> {
        options::read_environment();
        let queue = Arc::new(Queue::default());
        let drained = queue.clone();
        let wake = deliver
            .build_threadsafe_function()
            .callee_handled::<false>()
            .weak::<true>()
            .build_callback(move |context: ThreadsafeCallContext<()>| {
                let (messages, is_idle) = drained.drain();
                if is_idle {
                    drained.keep_alive(&context.env, false)?;
                }
                Ok(FnArgs::from((messages,)))
            })?;
        *queue.wake() = Some(wake);
        Ok(Self { queue })
    }

    /// Stops a call in progress. No message with its result will come.
    #[napi(catch_unwind)]
    pub fn abort(&self, env: &Env, id: i64) -> Result<()> {
        let (call, is_idle) = {
            let state = &mut *self.queue.state();
            (state.in_flight.remove(&id), state.in_flight.is_empty())
        };
        if let Some(call) = call {
            call.abort();
            if is_idle {
                self.queue.keep_alive(env, false)?;
            }
        }
        Ok(())
    }

    /// Sets the result of a token provider: a token, or an error message.
    #[napi(catch_unwind)]
    pub fn provide_token(
        &self,
        id: i64,
        token: Option<String>,
        expires_in_ms: Option<f64>,
        failure: Option<String>,
    ) {
        let call = self.queue.state().provider_calls.remove(&id);
        if let Some(call) = call {
            let result = token
                .map(|token| (token, expires_in_ms))
                .ok_or_else(|| failure.unwrap_or_default());
            // Fails if the token fetch has timed out.
            call.send(result).ok();
        }
    }
}

impl Drop for Environment {
    /// Stops all calls. Also runs when the environment ends early (`process.exit`, a terminated worker).
    fn drop(&mut self) {
        let (in_flight, provider_calls) = {
            let state = &mut *self.queue.state();
            (
                std::mem::take(&mut state.in_flight),
                std::mem::take(&mut state.provider_calls),
            )
        };
        for call in in_flight.into_values() {
            call.abort();
        }
        drop(provider_calls);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use futures_util::FutureExt;

    use super::{Message, Payload, end_of, to_json};

    fn message_for(call: impl Future<Output = Payload>) -> String {
        let payload = end_of(call).now_or_never().unwrap();
        to_json(&Message { id: 7, payload })
    }

    #[test]
    fn a_panic_is_the_result_of_its_call() {
        let message = message_for(async { panic!("left = {}", 1) });
        assert_eq!(message, r#"{"id":7,"panic":"left = 1"}"#);
        let message = message_for(async { panic!("right") });
        assert_eq!(message, r#"{"id":7,"panic":"right"}"#);
        let message = message_for(async { panic_any(5) });
        assert_eq!(message, r#"{"id":7,"panic":"panicked"}"#);
    }

    #[test]
    fn a_provider_call_names_the_refused_token_if_there_is_one() {
        let json = |refused_token| {
            let payload = Payload::ProviderCall {
                token_wanted_by: 3,
                refused_token,
            };
            to_json(&Message { id: 7, payload })
        };
        assert_eq!(json(None), r#"{"id":7,"tokenWantedBy":3}"#);
        let message = json(Some("t-1".to_owned()));
        assert_eq!(message, r#"{"id":7,"tokenWantedBy":3,"refusedToken":"t-1"}"#);
    }
}
