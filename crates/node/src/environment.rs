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
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::data::Message;
use crate::runtime::runtime;

/// A core's call under way.
pub(crate) type Call = Pin<Box<dyn Future<Output = std::result::Result<Outcome, Error>> + Send>>;

/// A token provider's answer: the token and the milliseconds it is good for.
pub(crate) type Provided = std::result::Result<(String, Option<f64>), String>;

/// Weak: an idle environment ends.
type Wake = ThreadsafeFunction<(), Unknown<'static>, FnArgs<(Vec<Message>,)>, napi::Status, false, true>;

/// What a runtime thread left for the JavaScript thread.
enum End {
    Call {
        id: i64,
        result: std::thread::Result<std::result::Result<Outcome, Error>>,
    },
    /// What a handle of many calls was asked for, as JSON.
    Many {
        id: i64,
        told: std::thread::Result<String>,
    },
    TokenWanted {
        id: i64,
        client: i64,
    },
    /// What a client asked to be told of, as JSON.
    Event {
        client: i64,
        json: String,
    },
}

/// What both sides hold.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Mutex<Option<Wake>>,
}

#[derive(Default)]
struct State {
    ends: Vec<End>,
    /// Calls and questions of many calls whose promise is open. Ids are TypeScript's own.
    in_flight: HashMap<i64, AbortHandle>,
    /// Questions to token providers that are not answered yet.
    questions: HashMap<i64, oneshot::Sender<Provided>>,
    last_question: i64,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, end: End) {
        let is_first = {
            let ends = &mut self.state().ends;
            ends.push(end);
            ends.len() == 1
        };
        if is_first && let Some(wake) = &*self.wake() {
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

    /// Asks the client's token provider; an error where the environment ends before the answer.
    pub(crate) fn ask(&self, client: i64) -> (i64, oneshot::Receiver<Provided>) {
        let (tell, told) = oneshot::channel();
        let id = {
            let state = &mut *self.state();
            state.last_question += 1;
            state.questions.retain(|_, question| !question.is_closed());
            state.questions.insert(state.last_question, tell);
            state.last_question
        };
        self.push(End::TokenWanted { id, client });
        (id, told)
    }

    /// Tells a client's `onEvent`.
    pub(crate) fn tell(&self, client: i64, json: String) {
        self.push(End::Event { client, json });
    }

    /// On the JavaScript thread: what came since the last time, without what nobody waits for any more.
    fn drain(&self) -> (Vec<Message>, bool) {
        let (ends, is_idle) = {
            let state = &mut *self.state();
            let mut ends = std::mem::take(&mut state.ends);
            ends.retain(|end| match end {
                End::Call { id, .. } | End::Many { id, .. } => state.in_flight.remove(id).is_some(),
                End::TokenWanted { .. } | End::Event { .. } => true,
            });
            (ends, state.in_flight.is_empty())
        };
        (ends.into_iter().map(Message::from).collect(), is_idle)
    }
}

/// A panic ends the call it happened in, not the process.
async fn end_of(id: i64, call: Call) -> End {
    let result = AssertUnwindSafe(call).catch_unwind().await;
    End::Call { id, result }
}

impl From<End> for Message {
    fn from(end: End) -> Self {
        let message = |id| Self {
            id,
            token_wanted_by: None,
            outcome: None,
            error: None,
            many: None,
            event: None,
            panic: None,
        };
        match end {
            End::TokenWanted { id, client } => Self {
                token_wanted_by: Some(client),
                ..message(id)
            },
            End::Call {
                id,
                result: Ok(Ok(outcome)),
            } => Self {
                outcome: Some(outcome.into()),
                ..message(id)
            },
            End::Call {
                id,
                result: Ok(Err(error)),
            } => Self {
                error: Some((&error).into()),
                outcome: error.outcome().cloned().map(Into::into),
                ..message(id)
            },
            End::Event { client, json } => Self {
                event: Some(json),
                ..message(client)
            },
            End::Many { id, told: Ok(json) } => Self {
                many: Some(json),
                ..message(id)
            },
            End::Call {
                id,
                result: Err(panic),
            }
            | End::Many { id, told: Err(panic) } => Self {
                panic: Some(said(&*panic)),
                ..message(id)
            },
        }
    }
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
    /// `deliver` is called with the ends of calls, and must not throw.
    #[napi(constructor, catch_unwind)]
    pub fn new(deliver: Function<'_, FnArgs<(Vec<Message>,)>, Unknown<'static>>) -> Result<Self> {
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

impl Environment {
    /// Puts a call on the runtime; its end comes back under this id.
    pub(crate) fn start(&self, env: &Env, id: i64, call: Call) -> Result<()> {
        self.put(env, id, end_of(id, call))
    }

    /// Puts what many calls were asked for on the runtime; the answer comes back under this id.
    pub(crate) fn start_many(
        &self,
        env: &Env,
        id: i64,
        asked: impl Future<Output = String> + Send + 'static,
    ) -> Result<()> {
        self.put(env, id, async move {
            let told = AssertUnwindSafe(asked).catch_unwind().await;
            End::Many { id, told }
        })
    }

    fn put(&self, env: &Env, id: i64, end: impl Future<Output = End> + Send + 'static) -> Result<()> {
        let queue = self.queue.clone();
        let task = runtime()?.spawn(async move { queue.push(end.await) });
        let was_idle = {
            let in_flight = &mut self.queue.state().in_flight;
            in_flight.insert(id, task.abort_handle());
            in_flight.len() == 1
        };
        if was_idle {
            self.queue.keep_alive(env, true)?;
        }
        Ok(())
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

    use super::{Call, Message, end_of};

    fn told(call: Call) -> Message {
        end_of(7, call).now_or_never().unwrap().into()
    }

    #[test]
    fn a_panic_comes_back_as_the_end_of_its_call() {
        let message = told(Box::pin(async { panic!("left = {}", 1) }));
        assert_eq!((message.id, message.panic.as_deref()), (7, Some("left = 1")));
        assert!(message.outcome.is_none() && message.error.is_none());

        let message = told(Box::pin(async { panic!("right") }));
        assert_eq!(message.panic.as_deref(), Some("right"));

        let message = told(Box::pin(async { panic_any(5) }));
        assert_eq!(message.panic.as_deref(), Some("panicked"));
    }
}
