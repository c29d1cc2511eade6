//! One environment of Node (the main thread, or a worker thread): its calls in flight, and the queue on
//! which their ends come back.
//!
//! Runtime threads push an end and wake the JavaScript thread once for all that are ready; a promise of
//! napi's own costs a handle of the event loop for each call.

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

/// A core's call under way.
pub(crate) type PendingCall = Pin<Box<dyn Future<Output = std::result::Result<Outcome, Error>> + Send>>;

/// A token provider's answer: the token and the milliseconds it is good for.
pub(crate) type Provided = std::result::Result<(String, Option<f64>), String>;

/// Weak: an idle environment ends.
type Wake = ThreadsafeFunction<(), Unknown<'static>, FnArgs<(String,)>, napi::Status, false, true>;

/// What TypeScript is told, of which the facade's `Message` is the other side.
#[derive(Serialize)]
struct Message {
    /// Of the call, of the question, or of the context or client whose event it is.
    id: i64,
    #[serde(flatten)]
    told: Told,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Told {
    /// What a handle of many calls was asked for.
    Many(ManyData),
    /// What a client, or a call, asked to be told of.
    Event(Value),
    /// Nothing more comes from this context.
    Over(bool),
    /// A bug of this package ended the call: what the panic said.
    Panic(String),
    #[serde(untagged, rename_all = "camelCase")]
    Question {
        /// The context of the call that wants a token, or the client.
        token_wanted_by: i64,
        /// The token that the platform refused.
        #[serde(skip_serializing_if = "Option::is_none")]
        refused_token: Option<String>,
    },
    #[serde(untagged)]
    Call(CallResult),
}

/// What both sides hold.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    wake: Mutex<Option<Wake>>,
}

#[derive(Default)]
struct QueueState {
    /// Messages, a JSON array that is not closed yet: the JavaScript thread's own parser is several times as
    /// fast as making each object and each of its fields across the border.
    told: String,
    /// The calls whose end is among them.
    ended: Vec<i64>,
    /// Calls and questions of many calls whose promise is open. Ids are TypeScript's own.
    in_flight: HashMap<i64, AbortHandle>,
    /// Questions to token providers that are not answered yet.
    questions: HashMap<i64, oneshot::Sender<Provided>>,
    last_question: i64,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(self: &Arc<Self>, message: &Message) {
        let json = written(message);
        let (is_first, is_last) = {
            let state = &mut *self.state();
            let is_first = state.told.is_empty();
            state.told.push(if is_first { '[' } else { ',' });
            state.told.push_str(&json);
            if matches!(message.told, Told::Call(_) | Told::Many(_) | Told::Panic(_)) {
                state.ended.push(message.id);
            }
            (is_first, state.ended.len() == state.in_flight.len())
        };
        if !is_first {
            return;
        }
        match runtime() {
            // After what else is ready now: to wake the other thread costs both as much as some calls do.
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
            // Refused only where the environment is ending, and its calls with it.
            wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
        }
    }

    fn wake(&self) -> MutexGuard<'_, Option<Wake>> {
        self.wake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the environment's event loop waits for what is in flight.
    #[expect(
        deprecated,
        reason = "cloning, which napi recommends instead, cannot let the event loop go while the handle lives"
    )]
    fn keep_alive(&self, env: &Env, keep: bool) -> Result<()> {
        match &mut *self.wake() {
            Some(wake) if keep => wake.refer(env),
            Some(wake) => wake.unref(env),
            None => Ok(()),
        }
    }

    /// Asks a client's token provider, in the context of the call; an error where the environment ends before the
    /// answer.
    pub(crate) fn ask(
        self: &Arc<Self>,
        token_wanted_by: i64,
        refused_token: Option<String>,
    ) -> (i64, oneshot::Receiver<Provided>) {
        let (tell, answer) = oneshot::channel();
        let id = {
            let state = &mut *self.state();
            state.last_question += 1;
            state.questions.retain(|_, question| !question.is_closed());
            state.questions.insert(state.last_question, tell);
            state.last_question
        };
        let told = Told::Question {
            token_wanted_by,
            refused_token,
        };
        self.push(&Message { id, told });
        (id, answer)
    }

    /// Puts a close on the runtime; its end comes back under this id.
    pub(crate) fn start_close(
        self: &Arc<Self>,
        env: &Env,
        id: i64,
        closing: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        self.put(env, id, async move {
            closing.await;
            Told::Call(CallResult::default())
        })
    }

    /// Tells the listeners of a context, or of a client.
    pub(crate) fn tell(self: &Arc<Self>, id: i64, event: Value) {
        let told = Told::Event(event);
        self.push(&Message { id, told });
    }

    /// The facade may forget the context.
    pub(crate) fn over(self: &Arc<Self>, context: i64) {
        let told = Told::Over(true);
        self.push(&Message { id: context, told });
    }

    #[cfg(test)]
    pub(crate) fn told(&self) -> String {
        self.state().told.clone()
    }

    /// Puts a call with this many users on the runtime; its end comes back under this id.
    pub(crate) fn start(self: &Arc<Self>, env: &Env, id: i64, call: PendingCall, users: usize) -> Result<()> {
        self.put(
            env,
            id,
            async move { Told::Call(CallResult::new(call.await, users)) },
        )
    }

    /// Puts what many calls were asked for on the runtime; the answer comes back under this id.
    pub(crate) fn start_many(
        self: &Arc<Self>,
        env: &Env,
        id: i64,
        asked: impl Future<Output = ManyData> + Send + 'static,
    ) -> Result<()> {
        self.put(env, id, async move { Told::Many(asked.await) })
    }

    fn put(
        self: &Arc<Self>,
        env: &Env,
        id: i64,
        told: impl Future<Output = Told> + Send + 'static,
    ) -> Result<()> {
        let queue = self.clone();
        let task = runtime()?.spawn(async move {
            let told = end_of(told).await;
            queue.push(&Message { id, told });
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

    /// On the JavaScript thread: what came since the last time, a JSON array, and whether nothing is in flight
    /// any more.
    fn drain(&self) -> (String, bool) {
        let QueueState {
            told,
            ended,
            in_flight,
            ..
        } = &mut *self.state();
        for id in ended.drain(..) {
            in_flight.remove(&id);
        }
        (std::mem::take(told) + "]", in_flight.is_empty())
    }
}

/// Only maps with keys that are no text, and writers that fail, cannot be written.
fn written(message: &Message) -> String {
    serde_json::to_string(message).unwrap_or_default()
}

/// A panic ends the call it happened in, not the process.
async fn end_of(told: impl Future<Output = Told>) -> Told {
    let told = AssertUnwindSafe(told).catch_unwind().await;
    told.unwrap_or_else(|panic| Told::Panic(said(&*panic)))
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("panicked").to_owned()
}

/// One for each environment of Node, made when the facade is loaded there.
#[napi]
pub struct Environment {
    pub(crate) queue: Arc<Queue>,
}

#[napi]
impl Environment {
    /// `deliver` is called with messages, a JSON array, and must not throw.
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

    /// Drops a call in flight: its promise is the caller's business from here.
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

    /// A token provider's answer: a token, or why there is none.
    #[napi(catch_unwind)]
    pub fn answer_token(
        &self,
        id: i64,
        token: Option<String>,
        expires_in_ms: Option<f64>,
        failure: Option<String>,
    ) {
        let question = self.queue.state().questions.remove(&id);
        if let Some(question) = question {
            let answer = token
                .map(|token| (token, expires_in_ms))
                .ok_or_else(|| failure.unwrap_or_default());
            // Nobody waits any more where the fetch ran into its timeout.
            question.send(answer).ok();
        }
    }
}

impl Drop for Environment {
    /// The environment ends, perhaps in the middle (`process.exit`, a worker terminated).
    fn drop(&mut self) {
        let (in_flight, questions) = {
            let state = &mut *self.queue.state();
            (
                std::mem::take(&mut state.in_flight),
                std::mem::take(&mut state.questions),
            )
        };
        for call in in_flight.into_values() {
            call.abort();
        }
        drop(questions);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use futures_util::FutureExt;

    use super::{Message, Told, end_of, written};

    fn told(call: impl Future<Output = Told>) -> String {
        let told = end_of(call).now_or_never().unwrap();
        written(&Message { id: 7, told })
    }

    #[test]
    fn a_panic_comes_back_as_the_end_of_its_call() {
        let message = told(async { panic!("left = {}", 1) });
        assert_eq!(message, r#"{"id":7,"panic":"left = 1"}"#);
        let message = told(async { panic!("right") });
        assert_eq!(message, r#"{"id":7,"panic":"right"}"#);
        let message = told(async { panic_any(5) });
        assert_eq!(message, r#"{"id":7,"panic":"panicked"}"#);
    }

    #[test]
    fn a_question_names_the_refused_token_if_there_is_one() {
        let written = |refused_token| {
            let told = Told::Question {
                token_wanted_by: 3,
                refused_token,
            };
            written(&Message { id: 7, told })
        };
        assert_eq!(written(None), r#"{"id":7,"tokenWantedBy":3}"#);
        let message = written(Some("t-1".to_owned()));
        assert_eq!(message, r#"{"id":7,"tokenWantedBy":3,"refusedToken":"t-1"}"#);
    }
}
