//! The native part of Python's `Client` and `AsyncClient`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use feishu_feed_card::binding::many::{ManyOptions, concurrency as concurrency_of};
use feishu_feed_card::binding::{Closing, Target};
use feishu_feed_card::{CallFuture, Client as Core, ClientBuilder, RateLimit, UserIdType, binding};
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator};

use crate::arguments;
use crate::engine::{Engine, engine};
use crate::errors::{Errors, Refusal};
use crate::logs::{self, CallListener, copy_context};
use crate::loops::{self, CallHandle};
use crate::many::Many;
use crate::options::{Options, Pacing};
use crate::outcome;
use crate::process::PerProcess;
use crate::provider::{Provider, ProviderQueue, Route};
use crate::quota::Quota;
use crate::waits::{wait, wait_with_listener};

#[pyclass(module = "feishu_feed_card._native", frozen)]
pub(crate) struct Client {
    errors: Errors,
    options: ClientBuilder,
    quota: Option<Py<Quota>>,
    provider: Option<Py<Provider>>,
    is_async: bool,
    closed: AtomicBool,
    live: PerProcess<Live>,
}

/// The parts of a client that belong to one process.
struct Live {
    core: Mutex<Option<Core>>,
    closing: Closing,
    queue: Arc<ProviderQueue>,
}

#[pymethods]
impl Client {
    #[new]
    fn new(
        py: Python<'_>,
        errors: Errors,
        options: &Bound<'_, PyDict>,
        from_env: bool,
        is_async: bool,
    ) -> PyResult<Self> {
        logs::refresh(py)?;
        let Options {
            mut builder,
            pacing,
            quota,
            provider,
        } = Options::read(options).map_err(|refusal| refusal.raised(py, &errors))?;
        if from_env {
            builder = builder.from_env();
        }
        let mut first = builder.clone();
        first = match pacing {
            Pacing::Platform => first,
            Pacing::Limited(limit) => first.rate_limit(limit),
            Pacing::Off => first.rate_limit(None),
        };
        if let Some(quota) = &quota {
            first = first.quota(quota.get().handle());
        }
        let provider = provider.map(|provider| Bound::new(py, provider)).transpose()?;
        if provider.is_some() {
            // Import it now and not with the first token: a child process that is forked during the import would wait
            // forever for the module.
            crate::provider::helpers(py)?;
        }
        let live = Live::build(first, provider.as_ref(), is_async, &errors)?;
        let own_quota = live.client().and_then(|client| client.quota());
        let quota = match (quota, own_quota) {
            (Some(given), _) => Some(given),
            (None, Some(own)) => {
                let limit = match pacing {
                    Pacing::Limited(limit) => limit,
                    Pacing::Platform | Pacing::Off => RateLimit::default(),
                };
                Some(Py::new(py, Quota::of(limit, own))?)
            }
            (None, None) => None,
        };
        let client = Self {
            errors,
            options: builder,
            quota,
            provider: provider.map(Bound::unbind),
            is_async,
            closed: AtomicBool::new(false),
            live: PerProcess::new(),
        };
        client.live.get_or_try_init(|| Ok::<_, PyErr>(live))?;
        // Building the client reads files, and may log warnings about them.
        logs::flush_logs(py)?;
        Ok(client)
    }

    /// Makes a call and waits for its result.
    #[allow(clippy::too_many_arguments, reason = "the arguments of the Python method")]
    fn call<'py>(
        &self,
        py: Python<'py>,
        target: &Bound<'py, PyAny>,
        user_ids: &Bound<'py, PyAny>,
        time_sensitive: &Bound<'py, PyAny>,
        user_id_type: &Bound<'py, PyAny>,
        timeout: &Bound<'py, PyAny>,
        on_event: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let arguments = Arguments::read(target, user_ids, time_sensitive, user_id_type, timeout, on_event)
            .map_err(|refusal| refusal.raised(py, &self.errors))?;
        logs::refresh(py)?;
        let live = self.live(py)?;
        let Some(core) = self.core(live) else {
            return Err(self.closed_error(py, arguments.user_ids));
        };
        let engine = match engine() {
            Ok(engine) => engine,
            Err(error) => return Err(self.errors.out_of_resources(py, error, arguments.user_ids)),
        };
        let listener = CallListener::of_thread(py, arguments.on_event(py))?;
        let call = arguments.make(&core);
        let queue = self.provider.is_some().then(|| live.queue.clone());
        let end = match listener {
            Some(listener) => wait_with_listener(py, engine, call, queue, &listener)?,
            None => wait(py, engine, call, queue)?,
        };
        outcome::returned(py, &self.errors, end)
    }

    /// Starts a call. Returns a future of the running event loop for the result, and a handle that stops the call.
    #[allow(clippy::too_many_arguments, reason = "the arguments of the Python method")]
    fn start<'py>(
        &self,
        py: Python<'py>,
        target: &Bound<'py, PyAny>,
        user_ids: &Bound<'py, PyAny>,
        time_sensitive: &Bound<'py, PyAny>,
        user_id_type: &Bound<'py, PyAny>,
        timeout: &Bound<'py, PyAny>,
        on_event: &Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PyAny>, CallHandle)> {
        let arguments = Arguments::read(target, user_ids, time_sensitive, user_id_type, timeout, on_event)
            .map_err(|refusal| refusal.raised(py, &self.errors))?;
        logs::refresh(py)?;
        let Some(core) = self.core(self.live(py)?) else {
            return Err(self.closed_error(py, arguments.user_ids));
        };
        let event_loop = match loops::current_loop(py)? {
            Ok(event_loop) => event_loop,
            Err(error) => return Err(self.errors.out_of_resources(py, error, arguments.user_ids)),
        };
        let context = match self.provider {
            Some(_) => Some(copy_context(py)?),
            None => None,
        };
        let on_event = arguments.on_event(py);
        let call = arguments.make(&core);
        event_loop.start(call, context, self.errors.clone_ref(py), on_event)
    }

    /// Returns the state of many calls, and an iterator of the requests, which is `None` for an async iterable.
    fn many<'py>(
        slf: &Bound<'py, Self>,
        requests: &Bound<'py, PyAny>,
        concurrency: &Bound<'py, PyAny>,
        total_timeout: &Bound<'py, PyAny>,
        progress: &Bound<'py, PyAny>,
        on_event: &Bound<'py, PyAny>,
    ) -> PyResult<(Many, Option<Bound<'py, PyIterator>>)> {
        let many = Self::read_many(slf, requests, concurrency, total_timeout, progress, on_event);
        many.map_err(|refusal| refusal.raised(slf.py(), &slf.get().errors))
    }

    fn set_app_ticket(&self, py: Python<'_>, app_ticket: &Bound<'_, PyAny>) -> PyResult<()> {
        let raised = |error| self.errors.raised(py, &error);
        let app_ticket = arguments::secret("app_ticket", app_ticket).map_err(raised)?;
        self.open(py)?.set_app_ticket(app_ticket).map_err(raised)
    }

    #[getter]
    fn quota(&self, py: Python<'_>) -> Option<Py<Quota>> {
        self.quota.as_ref().map(|quota| quota.clone_ref(py))
    }

    #[getter]
    fn base_url(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let core = self.live(py)?.client();
        Ok(core.map(|core| binding::base_url(&core).to_owned()))
    }

    #[getter]
    pub(crate) fn closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Refuses new calls and drops the connections. With a timeout, waits for calls in progress, and then stops the
    /// remaining ones.
    fn close(&self, py: Python<'_>, timeout: &Bound<'_, PyAny>) -> PyResult<()> {
        let timeout = self.close_timeout(timeout)?;
        let Some((closing, engine)) = self.begin_close(timeout) else {
            return Ok(());
        };
        wait(py, engine, closing, None)
    }

    /// Like `close`, for the running event loop. Returns a future and a handle that ends the wait, or `None` if there is
    /// nothing to wait for.
    fn start_close<'py>(
        &self,
        py: Python<'py>,
        timeout: &Bound<'py, PyAny>,
    ) -> PyResult<Option<(Bound<'py, PyAny>, CallHandle)>> {
        let timeout = self.close_timeout(timeout)?;
        let Some((closing, _)) = self.begin_close(timeout) else {
            return Ok(None);
        };
        match loops::current_loop(py)? {
            Ok(event_loop) => event_loop.wait(closing).map(Some),
            Err(error) => Err(self.errors.out_of_resources(py, error, Vec::new())),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.errors.traverse(&visit)?;
        visit.call(&self.quota)?;
        visit.call(&self.provider)
    }
}

impl Client {
    fn read_many<'py>(
        slf: &Bound<'py, Self>,
        requests: &Bound<'py, PyAny>,
        concurrency: &Bound<'py, PyAny>,
        total_timeout: &Bound<'py, PyAny>,
        progress: &Bound<'py, PyAny>,
        on_event: &Bound<'py, PyAny>,
    ) -> Result<(Many, Option<Bound<'py, PyIterator>>), Refusal> {
        let iterator = if slf.get().is_async && requests.hasattr("__aiter__")? {
            None
        } else {
            Some(arguments::requests(requests)?)
        };
        let concurrency = if concurrency.is_none() {
            None
        } else {
            Some(arguments::count("concurrency", concurrency)?)
        };
        let total_timeout = if total_timeout.is_none() {
            None
        } else {
            Some(arguments::seconds(
                "total_timeout",
                total_timeout,
                binding::seconds,
            )?)
        };
        arguments::callback("progress", progress)?;
        let on_event = arguments::callback("on_event", on_event)?;
        let options = ManyOptions {
            concurrency: concurrency_of(concurrency)?,
            total_timeout,
            total: arguments::length(requests)?,
        };
        Ok((Many::new(slf.clone().unbind(), options, on_event), iterator))
    }

    fn live(&self, py: Python<'_>) -> PyResult<&Live> {
        self.live.get_or_try_init(|| {
            let builder = match &self.quota {
                Some(quota) => self.options.clone().quota(quota.get().handle()),
                None => self.options.clone().rate_limit(None::<RateLimit>),
            };
            let provider = self.provider.as_ref().map(|provider| provider.bind(py));
            Live::build(builder, provider, self.is_async, &self.errors)
        })
    }

    /// Returns the core's client, or `None` if this client is closed.
    fn core(&self, live: &Live) -> Option<Core> {
        if self.closed() { None } else { live.client() }
    }

    fn close_timeout(&self, timeout: &Bound<'_, PyAny>) -> PyResult<Option<Duration>> {
        if timeout.is_none() {
            return Ok(None);
        }
        match arguments::seconds("timeout", timeout, binding::seconds_or_zero) {
            Ok(seconds) => Ok(Some(seconds)),
            Err(error) => Err(self.errors.raised(timeout.py(), &error)),
        }
    }

    /// Closes the client. With a timeout, returns a future that waits for the calls in progress, and the engine to run
    /// it.
    fn begin_close(
        &self,
        timeout: Option<Duration>,
    ) -> Option<(impl Future<Output = ()> + Send + use<>, &'static Engine)> {
        self.closed.store(true, Ordering::Release);
        let live = self.live.get()?;
        let closing = live.closing.close(timeout);
        let core = live.core.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(core);
        timeout?;
        // If the engine cannot be created now, there were no calls.
        Some((closing, engine().ok()?))
    }

    /// Returns the exception classes that the client raises.
    pub(crate) fn errors(&self) -> &Errors {
        &self.errors
    }

    fn closed_error(&self, py: Python<'_>, user_ids: Vec<String>) -> PyErr {
        self.errors.raised(py, &binding::client_closed(user_ids))
    }

    pub(crate) fn is_async(&self) -> bool {
        self.is_async
    }

    /// Returns the core's client, or an error if this client is closed.
    pub(crate) fn open(&self, py: Python<'_>) -> PyResult<Core> {
        self.core(self.live(py)?)
            .ok_or_else(|| self.closed_error(py, Vec::new()))
    }

    /// Returns the queue of provider calls, if this is a blocking client with a provider.
    pub(crate) fn provider_queue(&self, py: Python<'_>) -> PyResult<Option<Arc<ProviderQueue>>> {
        match self.provider {
            Some(_) if !self.is_async => Ok(Some(self.live(py)?.queue.clone())),
            _ => Ok(None),
        }
    }
}

impl Live {
    fn build(
        mut builder: ClientBuilder,
        provider: Option<&Bound<'_, Provider>>,
        is_async: bool,
        errors: &Errors,
    ) -> PyResult<Self> {
        let queue = Arc::<ProviderQueue>::default();
        if let Some(provider) = provider {
            let route = if is_async {
                Route::Loop
            } else {
                Route::Queue(queue.clone())
            };
            builder = builder.token_provider(Provider::bridge(provider, route)?);
        }
        let core = Python::attach(|py| builder.build().map_err(|error| errors.raised(py, &error)))?;
        Ok(Self {
            closing: binding::closing(&core),
            core: Mutex::new(Some(core)),
            queue,
        })
    }

    fn client(&self) -> Option<Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A call's arguments, converted to the core's types.
struct Arguments {
    target: Target,
    user_ids: Vec<String>,
    time_sensitive: bool,
    user_id_type: UserIdType,
    timeout: Option<Duration>,
    on_event: Option<Py<PyAny>>,
}

impl Arguments {
    fn read(
        target: &Bound<'_, PyAny>,
        user_ids: &Bound<'_, PyAny>,
        time_sensitive: &Bound<'_, PyAny>,
        user_id_type: &Bound<'_, PyAny>,
        timeout: &Bound<'_, PyAny>,
        on_event: &Bound<'_, PyAny>,
    ) -> Result<Self, Refusal> {
        let on_event = arguments::callback("on_event", on_event);
        let rest = || {
            Ok((
                arguments::target(target)?,
                arguments::flag("time_sensitive", time_sensitive)?,
                arguments::text("user_id_type", user_id_type)?.parse()?,
                if timeout.is_none() {
                    None
                } else {
                    Some(arguments::seconds("timeout", timeout, binding::seconds)?)
                },
            ))
        };
        let user_ids = arguments::user_ids(user_ids)?;
        let checked = match (rest(), on_event) {
            (Ok(rest), Ok(on_event)) => Ok((rest, on_event)),
            (_, Err(Refusal::Raised(error))) => return Err(error.into()),
            (Err(error), _) | (_, Err(Refusal::Wrong(error))) => Err(error),
        };
        match checked {
            Ok(((target, time_sensitive, user_id_type, timeout), on_event)) => Ok(Self {
                target,
                user_ids,
                time_sensitive,
                user_id_type,
                timeout,
                on_event,
            }),
            Err(error) => Err(binding::not_attempted(error, user_ids).into()),
        }
    }

    fn on_event(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.on_event.as_ref().map(|on_event| on_event.clone_ref(py))
    }

    /// Creates the call. The call takes its place in the order of calls here, not when it is first polled
    /// (docs/architecture.md#order).
    fn make(self, core: &Core) -> CallFuture {
        let Self {
            target,
            user_ids,
            time_sensitive,
            user_id_type,
            timeout,
            ..
        } = self;
        let call =
            binding::set_time_sensitive(core, target, user_ids, time_sensitive).user_id_type(user_id_type);
        match timeout {
            Some(timeout) => call.timeout(timeout).into_future(),
            None => call.into_future(),
        }
    }
}
