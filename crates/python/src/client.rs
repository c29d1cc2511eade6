//! The client behind Python's `Client` and `AsyncClient`.

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
use crate::logs::{self, Listening, copy_context};
use crate::loops::{self, CallHandle};
use crate::many::Many;
use crate::options::{Options, Pacing};
use crate::outcome;
use crate::process::PerProcess;
use crate::provider::{Board, Desk, Provider};
use crate::quota::Quota;
use crate::waits::{wait, wait_listening};

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

/// What one process has of a client.
struct Live {
    core: Mutex<Option<Core>>,
    closing: Closing,
    board: Arc<Board>,
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
        logs::look(py)?;
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
            // Now, and not when a thread asks it: a child that is forked during an import waits for ever if it needs
            // that module.
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
        // Files that were read while it was made may be worth a warning.
        logs::flush_logs(py)?;
        Ok(client)
    }

    /// Makes a call and waits for its end.
    #[allow(clippy::too_many_arguments, reason = "the call's own, which Python names")]
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
        logs::look(py)?;
        let live = self.live(py)?;
        let Some(core) = self.core(live) else {
            return Err(self.closed_error(py, arguments.user_ids));
        };
        let engine = match engine() {
            Ok(engine) => engine,
            Err(error) => return Err(self.errors.out_of_resources(py, error, arguments.user_ids)),
        };
        let listening = Listening::of_thread(py, arguments.on_event(py))?;
        let making = arguments.make(&core);
        let board = self.provider.is_some().then(|| live.board.clone());
        let end = match listening {
            Some(listening) => wait_listening(py, engine, making, board, &listening)?,
            None => wait(py, engine, making, board)?,
        };
        outcome::returned(py, &self.errors, end)
    }

    /// Starts a call: returns a future of the running event loop that the call's end settles, and what
    /// stops the call.
    #[allow(clippy::too_many_arguments, reason = "the call's own, which Python names")]
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
        logs::look(py)?;
        let Some(core) = self.core(self.live(py)?) else {
            return Err(self.closed_error(py, arguments.user_ids));
        };
        let here = match loops::here(py)? {
            Ok(here) => here,
            Err(error) => return Err(self.errors.out_of_resources(py, error, arguments.user_ids)),
        };
        let context = match self.provider {
            Some(_) => Some(copy_context(py)?),
            None => None,
        };
        let on_event = arguments.on_event(py);
        let making = arguments.make(&core);
        here.start(making, context, self.errors.clone_ref(py), on_event)
    }

    /// Many calls, and an iterator of the requests; `None` for an async iterable.
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

    /// Refuses new calls and lets the connections go. With a timeout, waits for calls in progress, and stops those that
    /// are left then.
    fn close(&self, py: Python<'_>, timeout: &Bound<'_, PyAny>) -> PyResult<()> {
        let timeout = self.time_to_close(timeout)?;
        let Some((closing, engine)) = self.begin_to_close(timeout) else {
            return Ok(());
        };
        wait(py, engine, closing, None)
    }

    /// Like `close`, for the running event loop. Returns a future and what ends the wait, or `None` if there is nothing to
    /// wait for.
    fn start_close<'py>(
        &self,
        py: Python<'py>,
        timeout: &Bound<'py, PyAny>,
    ) -> PyResult<Option<(Bound<'py, PyAny>, CallHandle)>> {
        let timeout = self.time_to_close(timeout)?;
        let Some((closing, _)) = self.begin_to_close(timeout) else {
            return Ok(None);
        };
        match loops::here(py)? {
            Ok(here) => here.wait(closing).map(Some),
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

    /// The core's client, as long as this one is open.
    fn core(&self, live: &Live) -> Option<Core> {
        if self.closed() { None } else { live.client() }
    }

    fn time_to_close(&self, timeout: &Bound<'_, PyAny>) -> PyResult<Option<Duration>> {
        if timeout.is_none() {
            return Ok(None);
        }
        match arguments::seconds("timeout", timeout, binding::seconds_or_zero) {
            Ok(seconds) => Ok(Some(seconds)),
            Err(error) => Err(self.errors.raised(timeout.py(), &error)),
        }
    }

    /// Closes the client. With a timeout, returns the wait for its calls, and the engine that drives it.
    fn begin_to_close(
        &self,
        timeout: Option<Duration>,
    ) -> Option<(impl Future<Output = ()> + Send + use<>, &'static Engine)> {
        self.closed.store(true, Ordering::Release);
        let live = self.live.get()?;
        let closing = live.closing.close(timeout);
        let core = live.core.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(core);
        timeout?;
        // Without an engine there were no calls.
        Some((closing, engine().ok()?))
    }

    /// The exception classes that its calls raise.
    pub(crate) fn errors(&self) -> &Errors {
        &self.errors
    }

    fn closed_error(&self, py: Python<'_>, user_ids: Vec<String>) -> PyErr {
        self.errors.raised(py, &binding::client_closed(user_ids))
    }

    pub(crate) fn is_async(&self) -> bool {
        self.is_async
    }

    /// The core's client.
    pub(crate) fn open(&self, py: Python<'_>) -> PyResult<Core> {
        self.core(self.live(py)?)
            .ok_or_else(|| self.closed_error(py, Vec::new()))
    }

    /// Where the questions for a token lie, if there is a provider that no event loop runs.
    pub(crate) fn board(&self, py: Python<'_>) -> PyResult<Option<Arc<Board>>> {
        match self.provider {
            Some(_) if !self.is_async => Ok(Some(self.live(py)?.board.clone())),
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
        let board = Arc::<Board>::default();
        if let Some(provider) = provider {
            let desk = if is_async {
                Desk::Loop
            } else {
                Desk::Board(board.clone())
            };
            builder = builder.token_provider(Provider::asked_through(provider, desk)?);
        }
        let core = Python::attach(|py| builder.build().map_err(|error| errors.raised(py, &error)))?;
        Ok(Self {
            closing: binding::closing(&core),
            core: Mutex::new(Some(core)),
            board,
        })
    }

    fn client(&self) -> Option<Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A call's arguments, of the right types.
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
            Err(error) => Err(binding::refused(error, user_ids).into()),
        }
    }

    fn on_event(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.on_event.as_ref().map(|on_event| on_event.clone_ref(py))
    }

    /// The call takes its place in the order of calls here, not when it is first polled.
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
