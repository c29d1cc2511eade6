//! Calls of event loops: how their ends come back to the loop that waits for them.
//!
//! The runtime puts an end into the loop's mailbox, and the [`waker`](mod@waker) has the loop open it. The loop's own
//! thread then makes Python's objects. A loop with many calls in flight is woken once for many of them.

use std::collections::HashMap;
use std::io;
use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use feishu_feed_card::binding::with_origin;
use feishu_feed_card::{CallFuture, Error, Outcome};
use futures_util::FutureExt;
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyAttributeError, PyException, PyRuntimeError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};
use tokio::task::AbortHandle;

use crate::engine::{Engine, engine};
use crate::errors::Errors;
use crate::logs::{Listening, Report, copy_context};
use crate::outcome;
use crate::process::{self, PerProcess};
use crate::provider::{Caller, Question};
use crate::waker::{self, Waker, waker};

/// A call of the core on its way, with what surrounds it here.
type PendingCall = Pin<Box<dyn Future<Output = Result<Outcome, Error>> + Send>>;

/// What the runtime leaves for one event loop.
pub(crate) struct Mailbox {
    letters: Mutex<Vec<Letter>>,
    waker: &'static Waker,
    /// Weak, because the loop keeps what keeps this.
    event_loop: Py<PyWeakrefReference>,
    /// Set once, to the [`Calls`] of the loop. Weak for the same reason.
    calls: OnceLock<Py<PyWeakrefReference>>,
}

enum Letter {
    /// A call's end, or `None` where it ended without one.
    End(u64, Option<Result<Outcome, Error>>),
    /// What was waited for is there.
    Ready(u64),
    /// A token provider is to be run for a call.
    Question(u64, Question),
    /// Something was reported of a call.
    Report(u64, Report),
}

impl Mailbox {
    fn put(self: &Arc<Self>, letter: Letter) {
        let mut letters = lock(&self.letters);
        letters.push(letter);
        let is_first = letters.len() == 1;
        drop(letters);
        if is_first {
            self.waker.wake(self.clone());
        }
    }

    pub(crate) fn ask(self: &Arc<Self>, call: u64, question: Question) {
        self.put(Letter::Question(call, question));
    }

    pub(crate) fn report(self: &Arc<Self>, call: u64, report: Report) {
        self.put(Letter::Report(call, report));
    }

    /// Has the loop settle the calls whose ends lie here. Called by the waker.
    pub(crate) fn wake_loop(&self, py: Python<'_>) {
        let event_loop = self.event_loop.bind(py).upgrade();
        let calls = self
            .calls
            .get()
            .and_then(|calls| calls.bind(py).upgrade_as().ok()?);
        let Some((event_loop, calls)) = event_loop.zip(calls) else {
            return self.discard();
        };
        let calls = calls.unbind();
        let is_called = AtomicBool::new(false);
        let woken = Bound::new(py, WakeUp { calls, is_called })
            .and_then(|wake_up| event_loop.call_method1("call_soon_threadsafe", (wake_up,)));
        match woken {
            Ok(_) => {}
            // The loop is closed, and the wake-up was dropped.
            Err(error) if error.is_instance_of::<PyRuntimeError>(py) => {}
            Err(error) => error.write_unraisable(py, Some(&event_loop)),
        }
    }

    /// Drops the letters. A token that was asked for is then asked for by a call of another loop.
    fn discard(&self) {
        let letters = mem::take(&mut *lock(&self.letters));
        drop(letters);
    }
}

/// What a loop is given to call once. A loop that is closed before it does so drops this: nothing else shows that
/// nobody will open the mailbox.
#[pyclass(module = "feishu_feed_card._native", frozen)]
pub(crate) struct WakeUp {
    calls: Py<Calls>,
    is_called: AtomicBool,
}

#[pymethods]
impl WakeUp {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        self.is_called.store(true, Ordering::Relaxed);
        self.calls.get().settle(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.calls)
    }
}

impl Drop for WakeUp {
    fn drop(&mut self) {
        if !*self.is_called.get_mut() {
            self.calls.get().abandon();
        }
    }
}

/// One event loop's calls in flight. The loop keeps it, in an attribute.
#[pyclass(module = "feishu_feed_card._native", frozen, weakref)]
pub(crate) struct Calls {
    process: u64,
    mailbox: Arc<Mailbox>,
    state: Mutex<InFlightCalls>,
}

#[derive(Default)]
struct InFlightCalls {
    /// Never given twice: a late end cannot meet another call.
    last: u64,
    in_flight: HashMap<u64, InFlight>,
}

struct InFlight {
    /// For many calls, no task awaits this future.
    future: Py<PyAny>,
    /// What makes the call, or waits.
    task: Option<AbortHandle>,
    /// What a token provider runs in, where the client has one.
    context: Option<Py<PyAny>>,
    /// Of a call; a wait raises nothing.
    errors: Option<Errors>,
    listening: Option<Arc<Listening>>,
}

/// One call in flight.
#[pyclass(module = "feishu_feed_card._native", frozen)]
pub(crate) struct CallHandle {
    number: u64,
    calls: Py<Calls>,
}

#[pymethods]
impl CallHandle {
    /// Stops the request, where it has not ended.
    pub(crate) fn cancel(&self) {
        let calls = self.calls.get();
        if calls.process == process::id() {
            let gone = lock(&calls.state).in_flight.remove(&self.number);
            if let Some(InFlight { task: Some(task), .. }) = gone {
                task.abort();
            }
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.traverse(&visit)
    }
}

impl CallHandle {
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.calls)
    }
}

#[pymethods]
impl Calls {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(state) = self.state.try_lock() {
            for call in state.in_flight.values() {
                visit.call(&call.future)?;
                visit.call(&call.context)?;
                if let Some(errors) = &call.errors {
                    errors.traverse(&visit)?;
                }
                if let Some(listening) = &call.listening {
                    listening.traverse(&visit)?;
                }
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        self.abandon();
    }
}

impl Calls {
    /// Settles the futures of the calls that have ended, and handles what was reported of calls. Runs on the loop's
    /// thread. An exception that ends programs, such as a handler's `KeyboardInterrupt`, is raised in the end.
    fn settle(&self, py: Python<'_>) -> PyResult<()> {
        if self.process != process::id() {
            return Ok(());
        }
        let letters = mem::take(&mut *lock(&self.mailbox.letters));
        let mut ends_the_program = None;
        for letter in letters {
            if let Err(error) = self.open(py, letter) {
                if error.is_instance_of::<PyException>(py) {
                    error.write_unraisable(py, None);
                } else {
                    ends_the_program = Some(error);
                }
            }
        }
        ends_the_program.map_or(Ok(()), Err)
    }

    fn open(&self, py: Python<'_>, letter: Letter) -> PyResult<()> {
        match letter {
            Letter::End(number, end) => {
                let call = lock(&self.state).in_flight.remove(&number);
                call.map_or(Ok(()), |call| settle(py, &call, end))
            }
            Letter::Ready(number) => {
                let wait = lock(&self.state).in_flight.remove(&number);
                wait.map_or(Ok(()), |wait| settle_wait(wait.future.bind(py)))
            }
            Letter::Question(number, question) => {
                let context = {
                    let state = lock(&self.state);
                    let call = state.in_flight.get(&number);
                    call.and_then(|call| Some(call.context.as_ref()?.clone_ref(py)))
                };
                question.answer_on_loop(py, context)
            }
            Letter::Report(number, report) => {
                let listening = lock(&self.state)
                    .in_flight
                    .get(&number)
                    .and_then(|call| call.listening.clone());
                listening.map_or(Ok(()), |listening| listening.handle(py, [report], 0))
            }
        }
    }

    /// The calls of this loop, made with its first one.
    fn of<'py>(event_loop: &Bound<'py, PyAny>, waker: &'static Waker) -> PyResult<Bound<'py, Self>> {
        let py = event_loop.py();
        let name = "_feishu_feed_card_calls";
        match event_loop.getattr(name) {
            Ok(calls) => {
                let calls = calls.cast_into::<Self>()?;
                // A forked child may go on with its parent's loop, but not with its parent's calls.
                if calls.get().process == process::id() {
                    return Ok(calls);
                }
            }
            Err(error) if error.is_instance_of::<PyAttributeError>(py) => {}
            Err(error) => return Err(error),
        }
        let mailbox = Arc::new(Mailbox {
            letters: Mutex::default(),
            waker,
            event_loop: PyWeakrefReference::new(event_loop)?.unbind(),
            calls: OnceLock::new(),
        });
        let calls = Self {
            process: process::id(),
            mailbox: mailbox.clone(),
            state: Mutex::default(),
        };
        let calls = Bound::new(py, calls)?;
        let itself = PyWeakrefReference::new(calls.as_any())?.unbind();
        drop(mailbox.calls.set(itself));
        event_loop.setattr(name, &calls)?;
        Ok(calls)
    }

    /// Stops the calls of a loop that is closed.
    fn abandon(&self) {
        let in_flight = mem::take(&mut lock(&self.state).in_flight);
        // In a fork's child the tasks are the parent's.
        if self.process == process::id() {
            for task in in_flight.values().filter_map(|call| call.task.as_ref()) {
                task.abort();
            }
            self.mailbox.discard();
        } else {
            for call in in_flight.into_values() {
                mem::forget(call.task);
            }
        }
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// The running event loop, and what its calls need of the system.
pub(crate) struct Here<'py> {
    pub(crate) engine: &'static Engine,
    event_loop: Bound<'py, PyAny>,
    calls: Bound<'py, Calls>,
}

/// The inner error is the system's: no thread or no descriptor is left.
pub(crate) fn here(py: Python<'_>) -> PyResult<io::Result<Here<'_>>> {
    let event_loop = running_loop(py)?;
    waker::check_not_over()?;
    let (engine, waker) = match engine().and_then(|engine| Ok((engine, waker()?))) {
        Ok(found) => found,
        Err(error) => return Ok(Err(error)),
    };
    let calls = Calls::of(&event_loop, waker)?;
    Ok(Ok(Here {
        engine,
        event_loop,
        calls,
    }))
}

impl<'py> Here<'py> {
    /// Starts a call: a future that its end settles, and what stops the call.
    pub(crate) fn start(
        &self,
        making: CallFuture,
        context: Option<Py<PyAny>>,
        errors: Errors,
        on_event: Option<Py<PyAny>>,
    ) -> PyResult<(Bound<'py, PyAny>, CallHandle)> {
        let py = self.event_loop.py();
        let has_context = context.is_some();
        let (future, call, mailbox) = self.begin(context, Some(errors))?;
        let number = call.number;
        let listening = Listening::of_loop(py, mailbox.clone(), number, on_event)
            // The call was not made: its future must not stay.
            .inspect_err(|_| call.cancel())?
            .map(Arc::new);
        let making: PendingCall = match &listening {
            Some(listening) => Box::pin(listening.around(making)),
            None => Box::pin(making),
        };
        let task = self.engine.spawn(async move {
            let making: PendingCall = if has_context {
                let caller = Caller::new(mailbox.clone(), number);
                Box::pin(with_origin(Some(caller), making))
            } else {
                making
            };
            // A panic is no result either, and nobody may wait for ever.
            let end = AssertUnwindSafe(making).catch_unwind().await.ok();
            mailbox.put(Letter::End(number, end));
        });
        // Its end may lie in the mailbox already, but only this thread opens that.
        if let Some(call) = lock(&call.calls.get().state).in_flight.get_mut(&number) {
            call.task = Some(task);
            call.listening = listening;
        }
        Ok((future, call))
    }

    /// Starts a wait: a future that the end of `waiting` settles, and what ends the wait.
    pub(crate) fn wait(
        &self,
        waiting: impl Future<Output = ()> + Send + 'static,
    ) -> PyResult<(Bound<'py, PyAny>, CallHandle)> {
        let (future, call, mailbox) = self.begin(None, None)?;
        let number = call.number;
        let task = self.engine.spawn(async move {
            waiting.await;
            mailbox.put(Letter::Ready(number));
        });
        if let Some(wait) = lock(&call.calls.get().state).in_flight.get_mut(&number) {
            wait.task = Some(task);
        }
        Ok((future, call))
    }

    /// The origin of a task that makes many calls: token providers that it asks run on this loop, in a copy of the
    /// current context, which the handle keeps.
    pub(crate) fn origin_of_many(&self) -> PyResult<(Arc<Caller>, CallHandle)> {
        let context = copy_context(self.event_loop.py())?;
        let (_future, handle, mailbox) = self.begin(Some(context), None)?;
        Ok((Caller::new(mailbox, handle.number), handle))
    }

    /// Whether it is a call of this loop.
    pub(crate) fn has(&self, call: &CallHandle) -> bool {
        self.calls.is(&call.calls)
    }

    fn begin(
        &self,
        context: Option<Py<PyAny>>,
        errors: Option<Errors>,
    ) -> PyResult<(Bound<'py, PyAny>, CallHandle, Arc<Mailbox>)> {
        let name = "create_future";
        let future = self.event_loop.call_method0(name)?;
        let this = self.calls.get();
        let mailbox = this.mailbox.clone();
        let call = InFlight {
            future: future.clone().unbind(),
            task: None,
            context,
            errors,
            listening: None,
        };
        let mut state = lock(&this.state);
        state.last += 1;
        let number = state.last;
        state.in_flight.insert(number, call);
        drop(state);
        let calls = self.calls.clone().unbind();
        Ok((future, CallHandle { number, calls }, mailbox))
    }
}

/// The event loop that runs this thread's coroutines.
#[pyfunction]
pub(crate) fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static ASYNCIO: PerProcess<Py<PyModule>> = PerProcess::new();
    let running_loop = ASYNCIO.import(py, "asyncio")?.call_method0("get_running_loop");
    running_loop.map_err(|_| {
        PyRuntimeError::new_err(
            "no running event loop: an AsyncClient needs asyncio's or uvloop's; under trio, and without a loop, make \
             the calls with a Client, in threads",
        )
    })
}

fn settle(py: Python<'_>, call: &InFlight, end: Option<Result<Outcome, Error>>) -> PyResult<()> {
    let future = call.future.bind(py);
    if future.call_method0("done")?.is_truthy()? {
        return Ok(());
    }
    let value = match end.zip(call.errors.as_ref()) {
        Some((end, errors)) => outcome::returned(py, errors, end),
        None => Err(PyRuntimeError::new_err(
            "a bug in feishu_feed_card: the call ended without a result",
        )),
    };
    match value {
        Ok(outcome) => future.call_method1("set_result", (outcome,)),
        Err(error) => future.call_method1("set_exception", (error,)),
    }
    .map(drop)
}

fn settle_wait(future: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = future.py();
    if future.call_method0("done")?.is_truthy()? {
        return Ok(());
    }
    future.call_method1("set_result", (py.None(),)).map(drop)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
