//! Calls of event loops: how their ends come back to the loop that waits for them.
//!
//! The runtime puts an end into the loop's mailbox and rings once for all that lie in it; the loop's own
//! thread then turns them into objects. Nothing of Python is touched elsewhere, so the runtime never
//! waits for the GIL, and a loop with many calls in flight is woken once for many of them.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use feishu_feed_card::{Error, Outcome};
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyAttributeError, PyNotImplementedError, PyRuntimeError};
use pyo3::gc::PyVisit;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use tokio::task::AbortHandle;

use crate::client::PendingCall;
use crate::engine::{Engine, engine};
use crate::errors;
use crate::outcome;
use crate::process;
use crate::provider::{CALLER, Caller, Question};

/// How soon a listener's thread sees that its loop is closed.
const LISTENS_FOR: Duration = Duration::from_secs(1);

/// What the runtime leaves for one event loop.
pub(crate) struct Mailbox {
    letters: Mutex<Vec<Letter>>,
    bell: UnixStream,
}

enum Letter {
    /// A call's end, or `None` where it ended without one.
    End(u64, Option<Result<Outcome, Error>>),
    /// What was waited for is there.
    Ready(u64),
    /// A token provider is to be run, for a call if one asked.
    Question(Option<u64>, Question),
}

impl Mailbox {
    fn put(&self, letter: Letter) {
        let mut letters = lock(&self.letters);
        letters.push(letter);
        let is_first = letters.len() == 1;
        drop(letters);
        if is_first {
            // Full or closed: then the loop is about to look, or is gone.
            let _ = (&self.bell).write(&[1]);
        }
    }

    pub(crate) fn ask(&self, call: Option<u64>, question: Question) {
        self.put(Letter::Question(call, question));
    }
}

/// One event loop's calls in flight. The loop keeps it, in an attribute.
#[pyclass(module = "feishu_feed_card._native", frozen)]
pub(crate) struct Calls {
    process: u64,
    mailbox: Arc<Mailbox>,
    bell: UnixStream,
    /// A thread hears the bell, not the loop.
    has_listener: AtomicBool,
    state: Mutex<InFlightCalls>,
}

#[derive(Default)]
struct InFlightCalls {
    /// Never given twice: a late end cannot meet another call.
    last: u64,
    in_flight: HashMap<u64, InFlight>,
}

struct InFlight {
    future: Py<PyAny>,
    /// What makes the call, or waits.
    task: Option<AbortHandle>,
    /// What a token provider runs in, where the client has one.
    context: Option<Py<PyAny>>,
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
        visit.call(&self.calls)
    }
}

#[pymethods]
impl Calls {
    /// Waits for the bell, a second at most. For a thread that tells a loop which cannot watch it itself.
    fn hear(&self, py: Python<'_>) -> bool {
        py.detach(|| matches!((&self.bell).read(&mut [0; 16]), Ok(1..)))
    }

    /// Settles the futures of the calls that have ended. The loop calls this when the bell has rung.
    fn settle(&self, py: Python<'_>) {
        if self.process != process::id() {
            return;
        }
        if !self.has_listener.load(Ordering::Relaxed) {
            // One byte lies there at most, as only the first letter rings.
            let _ = (&self.bell).read(&mut [0; 16]);
        }
        let letters = mem::take(&mut *lock(&self.mailbox.letters));
        for letter in letters {
            let done = match letter {
                Letter::End(number, end) => {
                    let call = lock(&self.state).in_flight.remove(&number);
                    call.map_or(Ok(()), |call| settle(call.future.bind(py), end))
                }
                Letter::Ready(number) => {
                    let wait = lock(&self.state).in_flight.remove(&number);
                    wait.map_or(Ok(()), |wait| settle_wait(wait.future.bind(py)))
                }
                Letter::Question(number, question) => {
                    let context = number.and_then(|number| {
                        let state = lock(&self.state);
                        let context = state.in_flight.get(&number)?.context.as_ref()?;
                        Some(context.clone_ref(py))
                    });
                    question.answer_on_loop(py, context)
                }
            };
            if let Err(error) = done {
                error.write_unraisable(py, None);
            }
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(state) = self.state.try_lock() {
            for call in state.in_flight.values() {
                visit.call(&call.future)?;
                visit.call(&call.context)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        self.abandon();
    }
}

impl Calls {
    /// The calls of this loop; the first one makes the loop watch its bell, for which the system may have no descriptor.
    fn of<'py>(event_loop: &Bound<'py, PyAny>) -> PyResult<io::Result<Bound<'py, Self>>> {
        let py = event_loop.py();
        let name = intern!(py, "_feishu_feed_card_calls");
        match event_loop.getattr(name) {
            Ok(calls) => {
                let calls = calls.cast_into::<Self>()?;
                // A forked child may go on with its parent's loop, but not with its parent's descriptors.
                if calls.get().process == process::id() {
                    return Ok(Ok(calls));
                }
            }
            Err(error) if error.is_instance_of::<PyAttributeError>(py) => {}
            Err(error) => return Err(error),
        }
        let calls = match Self::new() {
            Ok(calls) => Bound::new(py, calls)?,
            Err(error) => return Ok(Err(error)),
        };
        let settle = calls.getattr(intern!(py, "settle"))?;
        let bell = calls.get().bell.as_raw_fd();
        match event_loop.call_method1(intern!(py, "add_reader"), (bell, settle)) {
            Ok(_) => {}
            // As Windows' own loop does.
            Err(error) if error.is_instance_of::<PyNotImplementedError>(py) => {
                calls.get().listen()?;
                py.import("feishu_feed_card._listener")?
                    .call_method1("start", (event_loop, &calls))?;
            }
            Err(error) => return Err(error),
        }
        event_loop.setattr(name, &calls)?;
        Ok(Ok(calls))
    }

    fn new() -> io::Result<Self> {
        let (ringing, bell) = UnixStream::pair()?;
        ringing.set_nonblocking(true)?;
        bell.set_nonblocking(true)?;
        Ok(Self {
            process: process::id(),
            mailbox: Arc::new(Mailbox {
                letters: Mutex::default(),
                bell: ringing,
            }),
            bell,
            has_listener: AtomicBool::new(false),
            state: Mutex::default(),
        })
    }

    fn listen(&self) -> io::Result<()> {
        self.has_listener.store(true, Ordering::Relaxed);
        self.bell.set_nonblocking(false)?;
        self.bell.set_read_timeout(Some(LISTENS_FOR))
    }

    fn abandon(&self) {
        let in_flight = mem::take(&mut lock(&self.state).in_flight);
        // In a fork's child the tasks are the parent's.
        if self.process == process::id() {
            for task in in_flight.values().filter_map(|call| call.task.as_ref()) {
                task.abort();
            }
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
    let engine = match engine() {
        Ok(engine) => engine,
        Err(error) => return Ok(Err(error)),
    };
    let calls = Calls::of(&event_loop)?;
    Ok(calls.map(|calls| Here {
        engine,
        event_loop,
        calls,
    }))
}

impl<'py> Here<'py> {
    /// Starts a call: a future that its end settles, and what stops the call.
    pub(crate) fn start(
        &self,
        making: PendingCall,
        context: Option<Py<PyAny>>,
    ) -> PyResult<(Bound<'py, PyAny>, CallHandle)> {
        let has_context = context.is_some();
        let (future, call, mailbox) = self.begin(context)?;
        let number = call.number;
        let end = EndOfCall {
            mailbox: mailbox.clone(),
            number,
            result: None,
        };
        let task = if has_context {
            let caller = Caller {
                mailbox,
                call: number,
            };
            self.engine.spawn(end.of(CALLER.scope(caller, making)))
        } else {
            self.engine.spawn(end.of(making))
        };
        // Its end may lie in the mailbox already, but only this thread opens that.
        if let Some(call) = lock(&call.calls.get().state).in_flight.get_mut(&number) {
            call.task = Some(task);
        }
        Ok((future, call))
    }

    /// Starts a wait: a future that the end of `waiting` settles, and what ends the wait.
    pub(crate) fn wait(
        &self,
        waiting: impl Future<Output = ()> + Send + 'static,
    ) -> PyResult<(Bound<'py, PyAny>, CallHandle)> {
        let (future, call, mailbox) = self.begin(None)?;
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

    /// Where the runtime leaves questions to token providers for this loop.
    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.calls.get().mailbox
    }

    fn begin(&self, context: Option<Py<PyAny>>) -> PyResult<(Bound<'py, PyAny>, CallHandle, Arc<Mailbox>)> {
        let name = intern!(self.event_loop.py(), "create_future");
        let future = self.event_loop.call_method0(name)?;
        let this = self.calls.get();
        let mailbox = this.mailbox.clone();
        let call = InFlight {
            future: future.clone().unbind(),
            task: None,
            context,
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
    static RUNNING_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let running_loop = RUNNING_LOOP.import(py, "asyncio", "get_running_loop")?.call0();
    running_loop.map_err(|_| {
        PyRuntimeError::new_err(
            "no running event loop: an AsyncClient needs asyncio's or uvloop's; under trio, and without a loop, make \
             the calls with a Client, in threads",
        )
    })
}

/// Puts a call's end into the mailbox when dropped, also where the call panicked: nobody waits for ever.
struct EndOfCall {
    mailbox: Arc<Mailbox>,
    number: u64,
    result: Option<Result<Outcome, Error>>,
}

impl EndOfCall {
    async fn of(mut self, call: impl Future<Output = Result<Outcome, Error>>) {
        self.result = Some(call.await);
    }
}

impl Drop for EndOfCall {
    fn drop(&mut self) {
        self.mailbox.put(Letter::End(self.number, self.result.take()));
    }
}

fn settle(future: &Bound<'_, PyAny>, end: Option<Result<Outcome, Error>>) -> PyResult<()> {
    let py = future.py();
    if future.call_method0(intern!(py, "done"))?.is_truthy()? {
        return Ok(());
    }
    let value = match end {
        Some(Ok(outcome)) => outcome::to_python(py, &outcome),
        Some(Err(error)) => Err(errors::raised(py, &error)),
        None => Err(PyRuntimeError::new_err(
            "a bug in feishu_feed_card: the call ended without a result",
        )),
    };
    match value {
        Ok(outcome) => future.call_method1(intern!(py, "set_result"), (outcome,)),
        Err(error) => future.call_method1(intern!(py, "set_exception"), (error,)),
    }
    .map(drop)
}

fn settle_wait(future: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = future.py();
    if future.call_method0(intern!(py, "done"))?.is_truthy()? {
        return Ok(());
    }
    future
        .call_method1(intern!(py, "set_result"), (py.None(),))
        .map(drop)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
