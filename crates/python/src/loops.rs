//! Calls on event loops, and the way of their results to the loop.
//!
//! The runtime puts results into the loop's mailbox. The [`waker`](mod@waker) then schedules a callback on the loop. The
//! callback runs in the loop's thread and creates the Python objects. One wake-up handles all results in the mailbox.

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
use crate::logs::{CallListener, Report, copy_context};
use crate::outcome;
use crate::process::{self, PerProcess};
use crate::provider::{Caller, ProviderCall};
use crate::waker::{self, Waker, waker};

/// A call of the core, with its log span and its origin.
type PendingCall = Pin<Box<dyn Future<Output = Result<Outcome, Error>> + Send>>;

/// Messages from the runtime for one event loop.
pub(crate) struct Mailbox {
    letters: Mutex<Vec<Letter>>,
    waker: &'static Waker,
    /// Weak, because the loop owns the [`Calls`], and they own this mailbox.
    event_loop: Py<PyWeakrefReference>,
    /// The [`Calls`] of the loop, set once. Weak for the same reason.
    calls: OnceLock<Py<PyWeakrefReference>>,
}

/// A message for an event loop, about the call or wait with the given number.
enum Letter {
    /// The call's result, or `None` if it panicked.
    End(u64, Option<Result<Outcome, Error>>),
    /// The wait is over.
    Ready(u64),
    /// The token provider must be run for the call.
    ProviderCall(u64, ProviderCall),
    /// A log record or event of the call.
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

    pub(crate) fn put_provider_call(self: &Arc<Self>, call: u64, provider_call: ProviderCall) {
        self.put(Letter::ProviderCall(call, provider_call));
    }

    pub(crate) fn report(self: &Arc<Self>, call: u64, report: Report) {
        self.put(Letter::Report(call, report));
    }

    /// Schedules a callback on the loop that opens the mailbox. Called by the waker.
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
            // The loop is closed. It dropped the `WakeUp`, which stops the calls.
            Err(error) if error.is_instance_of::<PyRuntimeError>(py) => {}
            Err(error) => error.write_unraisable(py, Some(&event_loop)),
        }
    }

    /// Drops the letters. For a dropped provider call, a call on another loop runs the provider.
    fn discard(&self) {
        let letters = mem::take(&mut *lock(&self.letters));
        drop(letters);
    }
}

/// The callback for `call_soon_threadsafe`. A loop that is closed before it runs the callback drops it. This is the only
/// sign that the mailbox will not be opened.
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

/// The calls in progress on one event loop, stored in an attribute of the loop.
#[pyclass(module = "feishu_feed_card._native", frozen, weakref)]
pub(crate) struct Calls {
    process: u64,
    mailbox: Arc<Mailbox>,
    state: Mutex<InFlightCalls>,
}

#[derive(Default)]
struct InFlightCalls {
    /// The last number given to a call. Numbers are not reused, so a late result cannot be taken for that of another
    /// call.
    last: u64,
    in_flight: HashMap<u64, InFlight>,
}

struct InFlight {
    /// Not awaited for many calls.
    future: Py<PyAny>,
    /// The runtime's task for the call or wait.
    task: Option<AbortHandle>,
    /// The context for the token provider, if the client has one.
    context: Option<Py<PyAny>>,
    /// The exception classes of a call. `None` for a wait, which raises no error.
    errors: Option<Errors>,
    listener: Option<Arc<CallListener>>,
}

/// A handle that stops one call or wait.
#[pyclass(module = "feishu_feed_card._native", frozen)]
pub(crate) struct CallHandle {
    number: u64,
    calls: Py<Calls>,
}

#[pymethods]
impl CallHandle {
    /// Stops the call if it has not ended.
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
                if let Some(listener) = &call.listener {
                    listener.traverse(&visit)?;
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
    /// Opens all letters: sets the results of futures, runs token providers, handles log records and events. Runs in the
    /// loop's thread. An exception outside `Exception`, such as a handler's `KeyboardInterrupt`, is raised at the end.
    fn settle(&self, py: Python<'_>) -> PyResult<()> {
        if self.process != process::id() {
            return Ok(());
        }
        let letters = mem::take(&mut *lock(&self.mailbox.letters));
        let mut fatal = None;
        for letter in letters {
            if let Err(error) = self.open(py, letter) {
                if error.is_instance_of::<PyException>(py) {
                    error.write_unraisable(py, None);
                } else {
                    fatal = Some(error);
                }
            }
        }
        fatal.map_or(Ok(()), Err)
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
            Letter::ProviderCall(number, provider_call) => {
                let context = {
                    let state = lock(&self.state);
                    let call = state.in_flight.get(&number);
                    call.and_then(|call| Some(call.context.as_ref()?.clone_ref(py)))
                };
                provider_call.run_on_loop(py, context)
            }
            Letter::Report(number, report) => {
                let listener = lock(&self.state)
                    .in_flight
                    .get(&number)
                    .and_then(|call| call.listener.clone());
                listener.map_or(Ok(()), |listener| listener.handle(py, [report], 0))
            }
        }
    }

    /// Returns the calls of this loop. Creates them on the first call.
    fn of<'py>(event_loop: &Bound<'py, PyAny>, waker: &'static Waker) -> PyResult<Bound<'py, Self>> {
        let py = event_loop.py();
        let name = "_feishu_feed_card_calls";
        match event_loop.getattr(name) {
            Ok(calls) => {
                let calls = calls.cast_into::<Self>()?;
                // A forked child may continue to use its parent's loop, but not its parent's calls.
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

    /// Stops all calls, because the loop was closed.
    fn abandon(&self) {
        let in_flight = mem::take(&mut lock(&self.state).in_flight);
        // In a forked child the tasks belong to the parent.
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

/// The running event loop, with its calls and the engine.
pub(crate) struct CurrentLoop<'py> {
    pub(crate) engine: &'static Engine,
    event_loop: Bound<'py, PyAny>,
    calls: Bound<'py, Calls>,
}

/// Returns the running event loop. The inner error means that the system had no thread or file descriptor left.
pub(crate) fn current_loop(py: Python<'_>) -> PyResult<io::Result<CurrentLoop<'_>>> {
    let event_loop = running_loop(py)?;
    waker::check_not_over()?;
    let (engine, waker) = match engine().and_then(|engine| Ok((engine, waker()?))) {
        Ok(found) => found,
        Err(error) => return Ok(Err(error)),
    };
    let calls = Calls::of(&event_loop, waker)?;
    Ok(Ok(CurrentLoop {
        engine,
        event_loop,
        calls,
    }))
}

impl<'py> CurrentLoop<'py> {
    /// Starts a call. Returns a future for its result, and a handle that stops it.
    pub(crate) fn start(
        &self,
        pending: CallFuture,
        context: Option<Py<PyAny>>,
        errors: Errors,
        on_event: Option<Py<PyAny>>,
    ) -> PyResult<(Bound<'py, PyAny>, CallHandle)> {
        let py = self.event_loop.py();
        let has_context = context.is_some();
        let (future, call, mailbox) = self.begin(context, Some(errors))?;
        let number = call.number;
        let listener = CallListener::of_loop(py, mailbox.clone(), number, on_event)
            // The call is not made, so remove its future.
            .inspect_err(|_| call.cancel())?
            .map(Arc::new);
        let pending: PendingCall = match &listener {
            Some(listener) => Box::pin(listener.around(pending)),
            None => Box::pin(pending),
        };
        let task = self.engine.spawn(async move {
            let pending: PendingCall = if has_context {
                let caller = Caller::new(mailbox.clone(), number);
                Box::pin(with_origin(Some(caller), pending))
            } else {
                pending
            };
            // Report a panic, too: otherwise the caller would wait forever.
            let end = AssertUnwindSafe(pending).catch_unwind().await.ok();
            mailbox.put(Letter::End(number, end));
        });
        // The result may already be in the mailbox, but only this thread opens the mailbox.
        if let Some(call) = lock(&call.calls.get().state).in_flight.get_mut(&number) {
            call.task = Some(task);
            call.listener = listener;
        }
        Ok((future, call))
    }

    /// Waits for `waiting` on the runtime. Returns a future for its end, and a handle that ends the wait.
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

    /// Returns the origin for a task that makes many calls. Token providers of the task run on this loop, in a copy of
    /// the current context. The handle owns that context.
    pub(crate) fn origin_of_many(&self) -> PyResult<(Arc<Caller>, CallHandle)> {
        let context = copy_context(self.event_loop.py())?;
        let (_future, handle, mailbox) = self.begin(Some(context), None)?;
        Ok((Caller::new(mailbox, handle.number), handle))
    }

    /// Whether the call belongs to this loop.
    pub(crate) fn has(&self, call: &CallHandle) -> bool {
        self.calls.is(&call.calls)
    }

    fn begin(
        &self,
        context: Option<Py<PyAny>>,
        errors: Option<Errors>,
    ) -> PyResult<(Bound<'py, PyAny>, CallHandle, Arc<Mailbox>)> {
        let future = self.event_loop.call_method0("create_future")?;
        let this = self.calls.get();
        let mailbox = this.mailbox.clone();
        let call = InFlight {
            future: future.clone().unbind(),
            task: None,
            context,
            errors,
            listener: None,
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

/// Returns the running event loop of this thread.
#[pyfunction]
pub(crate) fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static ASYNCIO: PerProcess<Py<PyModule>> = PerProcess::new();
    let running_loop = ASYNCIO.import(py, "asyncio")?.call_method0("get_running_loop");
    running_loop.map_err(|_| {
        PyRuntimeError::new_err(
            "no running event loop; an AsyncClient needs one of asyncio or uvloop. With trio or without an event loop, \
             use a Client in threads",
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
