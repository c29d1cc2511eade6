//! Token providers written in Python. The runtime's thread never calls Python, so it queues a [`ProviderCall`], and a
//! Python thread runs it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::{fmt, io};

use feishu_feed_card::{BoxError, ProvidedToken, Providing, TokenProvider, TokenReason, binding};
use pyo3::PyTraverseError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple, PyWeakrefReference};
use tokio::sync::{Notify, oneshot};

use crate::arguments;
use crate::errors::{Errors, Refusal};
use crate::loops::Mailbox;
use crate::process::PerProcess;

/// The provider's function, and its last exception. Rust refers to both only through a weak reference to this object, so
/// that Python can collect reference cycles through the function or through the frames of a traceback.
#[pyclass(module = "feishu_feed_card._native", frozen, weakref)]
pub(crate) struct Provider {
    callable: Mutex<Option<Py<PyAny>>>,
    /// Whether the function has the parameter `refused_token`.
    takes_refused: bool,
    raised: Mutex<Option<(u64, Py<PyAny>)>>,
    next: AtomicU64,
}

#[pymethods]
impl Provider {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(callable) = self.callable.try_lock() {
            visit.call(&*callable)?;
        }
        if let Ok(raised) = self.raised.try_lock()
            && let Some((_, exception)) = &*raised
        {
            visit.call(exception)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        drop(lock(&self.callable).take());
        drop(lock(&self.raised).take());
    }
}

impl Provider {
    pub(crate) fn new(callable: Bound<'_, PyAny>) -> Result<Self, Refusal> {
        if !callable.is_callable() {
            return Err(arguments::wrong("token_provider", &callable, "a function").into());
        }
        let module = callable.py().import("feishu_feed_card._provider")?;
        let takes_refused: Option<bool> = module.call_method1("takes_refused", (&callable,))?.extract()?;
        let Some(takes_refused) = takes_refused else {
            let expected = "a function with no required parameter other than `refused_token`";
            return Err(arguments::wrong("token_provider", &callable, expected).into());
        };
        Ok(Self {
            callable: Mutex::new(Some(callable.unbind())),
            takes_refused,
            raised: Mutex::default(),
            next: AtomicU64::new(0),
        })
    }

    /// Returns the core's token provider for this one.
    pub(crate) fn bridge(slf: &Bound<'_, Self>, route: Route) -> PyResult<ProviderBridge> {
        let provider = PyWeakrefReference::new(slf.as_any())?;
        Ok(ProviderBridge {
            provider: Arc::new(provider.unbind()),
            route,
        })
    }

    fn remember(&self, exception: Py<PyAny>) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let before = lock(&self.raised).replace((number, exception));
        drop(before);
        number
    }
}

/// Returns the module `feishu_feed_card._provider`. The first client with a provider imports it.
pub(crate) fn helpers(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static HELPERS: PerProcess<Py<PyModule>> = PerProcess::new();
    HELPERS.import(py, "feishu_feed_card._provider")
}

type WeakProvider = Arc<Py<PyWeakrefReference>>;

fn upgrade<'py>(py: Python<'py>, provider: &WeakProvider) -> Option<Bound<'py, Provider>> {
    use pyo3::types::PyWeakrefMethods;
    provider.bind(py).upgrade_as().ok().flatten()
}

/// How a provider call gets to a Python thread.
pub(crate) enum Route {
    /// Through a queue. The next blocking call of the client that checks the queue runs it.
    Queue(Arc<ProviderQueue>),
    /// Through the event loop of the call that needs the token. If that loop is closed, another call that waits for the
    /// token uses its own loop.
    Loop,
}

/// The core's token provider, which queues provider calls.
pub(crate) struct ProviderBridge {
    provider: WeakProvider,
    route: Route,
}

/// The call on an event loop that needs a token. It is the [`Origin`](binding::Origin) of the call's tasks.
pub(crate) struct Caller(Mutex<(Arc<Mailbox>, u64)>);

impl Caller {
    pub(crate) fn new(mailbox: Arc<Mailbox>, call: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new((mailbox, call))))
    }

    /// Redirects to the event loop of `other`, because many calls continue there.
    pub(crate) fn move_to(&self, other: &Self) {
        let target = lock(&other.0).clone();
        *lock(&self.0) = target;
    }
}

impl TokenProvider for ProviderBridge {
    fn tenant_access_token(&self, reason: TokenReason<'_>) -> Providing {
        let (result, received) = oneshot::channel();
        let provider_call = ProviderCall {
            provider: self.provider.clone(),
            refused: reason.refused_token().map(str::to_owned),
            result,
        };
        match &self.route {
            Route::Queue(queue) => queue.push(provider_call),
            Route::Loop => {
                if let Some(caller) = binding::origin().and_then(|origin| origin.downcast::<Caller>().ok()) {
                    let (mailbox, call) = lock(&caller.0).clone();
                    mailbox.put_provider_call(call, provider_call);
                }
            }
        }
        Box::pin(async move {
            let abandoned = |_| Err(binding::Abandoned.into());
            received.await.unwrap_or_else(abandoned)
        })
    }
}

/// Provider calls that wait for a Python thread: a blocking call of the client, or a [`QueueReader`].
#[derive(Default)]
pub(crate) struct ProviderQueue {
    calls: Mutex<VecDeque<ProviderCall>>,
    pushed: Notify,
    changed: Condvar,
}

impl ProviderQueue {
    fn push(&self, call: ProviderCall) {
        lock(&self.calls).push_back(call);
        self.pushed.notify_one();
        self.changed.notify_all();
    }

    /// Starts a Python thread that runs the queued calls until the returned guard is dropped. Many calls need it, because
    /// they continue while their caller handles a result.
    pub(crate) fn start_reader(self: Arc<Self>, py: Python<'_>, errors: &Errors) -> PyResult<ReaderGuard> {
        let is_over = Arc::<AtomicBool>::default();
        let reader = QueueReader {
            queue: self.clone(),
            is_over: is_over.clone(),
        };
        // Created before the thread starts, so that the thread also ends if starting it is interrupted.
        let guard = ReaderGuard { queue: self, is_over };
        helpers(py)?
            .call_method1("start_reader", (reader,))
            .map_err(|error| {
                if error.is_instance_of::<PyRuntimeError>(py) {
                    // `threading` raises a RuntimeError if the system has no thread left.
                    errors.out_of_resources(py, io::Error::other(error.value(py).to_string()), Vec::new())
                } else {
                    error
                }
            })?;
        Ok(guard)
    }

    /// Runs each queued call in a new thread.
    pub(crate) fn run_calls(&self, py: Python<'_>) -> PyResult<()> {
        loop {
            let call = lock(&self.calls).pop_front();
            match call {
                Some(call) => call.run_in_thread(py)?,
                None => return Ok(()),
            }
        }
    }

    pub(crate) async fn pushed(&self) {
        self.pushed.notified().await;
    }
}

/// The reading end of a queue, for a Python thread.
#[pyclass(module = "feishu_feed_card._native", frozen)]
pub(crate) struct QueueReader {
    queue: Arc<ProviderQueue>,
    is_over: Arc<AtomicBool>,
}

#[pymethods]
impl QueueReader {
    /// Waits for the next call. Returns `None` after the guard was dropped.
    ///
    /// Returns the call to Python instead of running it, because before Python 3.14 a thread that needs the GIL while the
    /// interpreter exits is unwound. Its stack must not have a Rust frame then.
    fn next_call<'py>(&self, py: Python<'py>) -> PyResult<Option<CallParts<'py>>> {
        while let Some(call) = py.detach(|| self.next()) {
            if let Some(parts) = call.into_parts(py)? {
                return Ok(Some(parts));
            }
        }
        Ok(None)
    }
}

impl QueueReader {
    fn next(&self) -> Option<ProviderCall> {
        let mut calls = lock(&self.queue.calls);
        loop {
            if self.is_over.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(call) = calls.pop_front() {
                return Some(call);
            }
            let changed = self.queue.changed.wait(calls);
            calls = changed.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Ends the thread of a [`QueueReader`] when dropped.
pub(crate) struct ReaderGuard {
    queue: Arc<ProviderQueue>,
    is_over: Arc<AtomicBool>,
}

impl Drop for ReaderGuard {
    fn drop(&mut self) {
        let calls = lock(&self.queue.calls);
        self.is_over.store(true, Ordering::Relaxed);
        drop(calls);
        self.queue.changed.notify_all();
    }
}

/// The function, its arguments, and the receiver of its result.
type CallParts<'py> = (Py<PyAny>, Bound<'py, PyList>, Py<ProviderResult>);

/// A token provider that must be called.
pub(crate) struct ProviderCall {
    provider: WeakProvider,
    /// The token that the platform refused.
    refused: Option<String>,
    result: oneshot::Sender<Result<ProvidedToken, BoxError>>,
}

impl ProviderCall {
    /// Calls the provider in a new thread, because a provider that blocks must not delay a call beyond its deadline.
    fn run_in_thread(self, py: Python<'_>) -> PyResult<()> {
        if let Some(parts) = self.into_parts(py)? {
            helpers(py)?.call_method1("run_in_thread", parts)?;
        }
        Ok(())
    }

    /// Calls the provider on the running event loop, in the call's context if it is known.
    pub(crate) fn run_on_loop(self, py: Python<'_>, context: Option<Py<PyAny>>) -> PyResult<()> {
        if let Some((callable, arguments, result)) = self.into_parts(py)? {
            helpers(py)?.call_method1("run_on_loop", (callable, arguments, result, context))?;
        }
        Ok(())
    }

    fn into_parts(self, py: Python<'_>) -> PyResult<Option<CallParts<'_>>> {
        let Some(provider) = upgrade(py, &self.provider) else {
            return Ok(None);
        };
        let Some(callable) = lock(&provider.get().callable)
            .as_ref()
            .map(|callable| callable.clone_ref(py))
        else {
            return Ok(None);
        };
        let result = ProviderResult {
            provider: self.provider,
            sender: Mutex::new(Some(self.result)),
        };
        let arguments = if provider.get().takes_refused {
            PyList::new(py, [self.refused])?
        } else {
            PyList::empty(py)
        };
        Ok(Some((callable, arguments, Py::new(py, result)?)))
    }
}

/// Receives a provider's return value or exception, once.
#[pyclass(module = "feishu_feed_card._native", frozen)]
pub(crate) struct ProviderResult {
    provider: WeakProvider,
    sender: Mutex<Option<oneshot::Sender<Result<ProvidedToken, BoxError>>>>,
}

#[pymethods]
impl ProviderResult {
    /// Sets the return value: a token, or a tuple of a token and its lifetime in seconds.
    fn set_token(&self, token: &Bound<'_, PyAny>) {
        self.send(provided(token).map_err(Into::into));
    }

    /// Reports that the system has no thread for the provider, with the message of `threading`.
    fn set_no_thread(&self, why: String) {
        self.send(Err(binding::NoThread(why).into()));
    }

    /// Reports that there will be no result, so that another call may run the provider.
    fn abandon(&self) {
        drop(lock(&self.sender).take());
    }

    /// Sets the exception that the provider raised.
    fn set_exception(&self, exception: &Bound<'_, PyAny>) {
        let py = exception.py();
        let number =
            upgrade(py, &self.provider).map(|provider| provider.get().remember(exception.clone().unbind()));
        let name = exception.get_type().name().map(|name| name.to_string());
        let name = name.unwrap_or_else(|_| "an exception".to_owned());
        let text = exception.str().map(|text| text.to_string_lossy().into_owned());
        let message = match text {
            Ok(text) if !text.is_empty() => format!("{name}: {text}"),
            _ => name,
        };
        self.send(Err(Box::new(Raised {
            provider: self.provider.clone(),
            number,
            message,
        })));
    }
}

impl ProviderResult {
    fn send(&self, result: Result<ProvidedToken, BoxError>) {
        let sender = lock(&self.sender).take();
        if let Some(sender) = sender {
            // Fails if the token fetch has timed out.
            let _ = sender.send(result);
        }
    }
}

/// Converts a provider's return value. Errors do not show the value, because it may contain a token.
fn provided(token: &Bound<'_, PyAny>) -> Result<ProvidedToken, String> {
    const EXPECTED: &str = "expected a str, or a tuple of a str and its lifetime in seconds";
    let text = |value: &Bound<'_, PyAny>| {
        let text = value.cast::<PyString>().ok()?;
        text.to_str().ok().map(ProvidedToken::new)
    };
    if let Ok(pair) = token.cast::<PyTuple>()
        && let Ok((value, life)) = pair.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()
    {
        let Some(token) = text(&value) else {
            return Err(format!(
                "it returned a tuple whose first item is not a str; {EXPECTED}"
            ));
        };
        if life.is_none() {
            return Ok(token);
        }
        let life = arguments::seconds("the lifetime of the provided token", &life, binding::seconds);
        return life
            .map(|life| token.expires_in(life))
            .map_err(|error| error.to_string());
    }
    let name = || {
        token
            .get_type()
            .name()
            .map_or_else(|_| "an object".to_owned(), |name| name.to_string())
    };
    text(token).ok_or_else(|| format!("it returned {}; {EXPECTED}", name()))
}

/// A provider's exception, as the cause of an error in the core.
pub(crate) struct Raised {
    provider: WeakProvider,
    number: Option<u64>,
    message: String,
}

impl Raised {
    /// Returns the exception, unless the provider has raised another one since.
    pub(crate) fn exception<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let provider = upgrade(py, &self.provider)?;
        let raised = lock(&provider.get().raised);
        let (number, exception) = raised.as_ref()?;
        (Some(*number) == self.number).then(|| exception.bind(py).clone())
    }
}

impl fmt::Debug for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Raised").field(&self.message).finish()
    }
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Raised {}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
