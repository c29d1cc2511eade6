//! Many calls: reads requests from Python iterables, and converts results to Python objects. The core's [`ManyDriver`]
//! makes the calls in a task of the runtime.

use std::collections::HashMap;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use feishu_feed_card::UserIds;
use feishu_feed_card::binding::many::{ManyDriver, ManyItem, ManyOptions, ManyReport, READS_FOR};
use feishu_feed_card::binding::{Origin, with_origin};
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList};
use tokio::task::AbortHandle;

use crate::arguments;
use crate::client::Client;
use crate::engine::{Engine, engine};
use crate::errors::{Errors, Refusal};
use crate::items::{Item, Unfinished};
use crate::logs::{self, CallListener};
use crate::loops::{self, CallHandle, CurrentLoop};
use crate::outcome;
use crate::process;
use crate::provider::Caller;
use crate::records::Tuple;
use crate::waits::{wait, wait_with_listener};

/// The state of many calls. They start when the first result is requested.
#[pyclass(module = "feishu_feed_card._native", frozen)]
pub(crate) struct Many {
    client: Py<Client>,
    options: ManyOptions,
    on_event: Option<Py<PyAny>>,
    state: Mutex<State>,
    /// Whether a thread is waiting for the next results.
    is_busy: AtomicBool,
}

/// The fields of Python's `Progress`.
type Progress = (usize, Option<usize>, usize, usize, Option<f64>);

/// The fields of Python's `Report`.
type Report<'py> = (
    usize,
    usize,
    usize,
    Bound<'py, PyList>,
    Vec<Bound<'py, Unfinished>>,
    Vec<Py<Item>>,
    Option<usize>,
);

#[derive(Default)]
struct State {
    running: Option<Running>,
    /// Requests that the core has and whose results were not returned yet, by index.
    requests: HashMap<usize, KeptRequest>,
    /// Results that are being converted. If the conversion is interrupted, the report includes them.
    batches: Vec<Arc<Vec<ManyItem>>>,
    /// Taken from the core once, after the end.
    report: Option<Arc<ManyReport>>,
    /// Returned results that the report lists as failures.
    failures: Vec<Py<Item>>,
    /// The exception that the iterable raised. Raised to the caller after the results.
    failure: Option<Py<PyAny>>,
    /// Whether the caller has left the loop, after which no more results are returned.
    is_left: bool,
}

struct KeptRequest {
    request: Py<PyAny>,
    tag: Option<Py<PyAny>>,
    /// The error of an invalid request.
    error: Option<Py<PyAny>>,
}

/// Neither used nor dropped in a forked child.
struct Running {
    process: u64,
    driver: ManyDriver,
    task: AbortHandle,
    /// The event loop on which a result was last requested, and the handle that owns the context for it.
    on_loop: Option<(Arc<Caller>, CallHandle)>,
    /// Handles records and events when results are taken. On an event loop, they are handled in the context of the task
    /// that takes the results.
    listener: Option<Arc<CallListener>>,
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            if running.process == process::id() {
                running.task.abort();
                if let Some((_, handle)) = running.on_loop {
                    handle.cancel();
                }
            } else {
                mem::forget(running);
            }
        }
    }
}

#[pymethods]
impl Many {
    /// Reads requests in this thread until there are results, and takes them: see `take`.
    fn next_batch(
        &self,
        py: Python<'_>,
        iterator: &Bound<'_, PyIterator>,
        batch: &Bound<'_, PyList>,
    ) -> PyResult<bool> {
        let _busy = self.busy()?;
        self.read_until_ready(iterator)?;
        self.take(py, batch)
    }

    /// Reads requests for a few milliseconds, as long as the core accepts them. Returns whether to continue reading.
    fn read(&self, iterator: &Bound<'_, PyIterator>) -> PyResult<bool> {
        let py = iterator.py();
        if !self.may_read(py)? {
            return Ok(false);
        }
        let began = Instant::now();
        loop {
            let Some(request) = iterator.clone().next() else {
                self.end_reading()?;
                return Ok(false);
            };
            match request.and_then(|request| self.push(&request)) {
                Ok(true) if began.elapsed() > READS_FOR => return Ok(true),
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) if error.is_instance_of::<PyException>(py) => {
                    self.fail(error.into_value(py).into_bound(py).into_any())?;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether another request may be read. Starts the calls.
    fn may_read(&self, py: Python<'_>) -> PyResult<bool> {
        self.begin(py)?;
        Ok(self.driver()?.is_some_and(|driver| driver.has_room()))
    }

    /// Whether the core still accepts requests.
    fn is_reading(&self) -> PyResult<bool> {
        Ok(self.driver()?.is_some_and(|driver| driver.takes_more()))
    }

    /// Passes a request to the core, and returns whether another one may be read. If the request is invalid, the error is
    /// its result.
    fn push(&self, request: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = request.py();
        let (mut user_ids, mut tag) = (Vec::new(), None);
        let read = arguments::request(request, &mut user_ids, &mut tag);
        let Some(driver) = self.driver()? else {
            return Ok(false);
        };
        let (read, error) = match read {
            Ok(read) => (Ok(read), None),
            Err(Refusal::Wrong(error)) => {
                let error = self.errors().to_python(py, &error)?;
                (Err(None), Some(error.unbind()))
            }
            Err(Refusal::Raised(error)) => {
                self.keep(request, tag, None, || driver.push_unreadable(user_ids));
                return Err(error);
            }
        };
        self.keep(request, tag, error, || driver.push(read));
        Ok(driver.has_room())
    }

    /// Reports the end of the iterable to the core.
    fn end_reading(&self) -> PyResult<()> {
        if let Some(driver) = self.driver()? {
            driver.end_input();
        }
        Ok(())
    }

    /// Stops all calls because of an exception of the iterable. The exception is raised after the available results.
    fn fail(&self, exception: Bound<'_, PyAny>) -> PyResult<()> {
        self.raise_later(exception.unbind());
        if let Some(driver) = self.driver()? {
            driver.stop();
        }
        Ok(())
    }

    /// Inserts the available results at the beginning of the list, in reverse order. Inserts nothing if only the progress
    /// has changed. Returns false at the end.
    ///
    /// Python passes the list, so that an interrupt when this method returns cannot lose the results.
    fn take(&self, py: Python<'_>, batch: &Bound<'_, PyList>) -> PyResult<bool> {
        logs::refresh(py)?;
        self.handle_reports(py)?;
        let Some(driver) = self.driver()? else {
            return Ok(false);
        };
        let mut state = lock(&self.state);
        if state.is_left {
            return Ok(false);
        }
        let taken = driver.take_batch();
        if taken.is_end {
            let failure = state.failure.take();
            drop(state);
            return match (failure, driver.panic()) {
                (Some(failure), _) => Err(PyErr::from_value(failure.into_bound(py))),
                (None, Some(panic)) => Err(PyRuntimeError::new_err(format!(
                    "a bug in feishu_feed_card: {panic}"
                ))),
                (None, None) => Ok(false),
            };
        }
        let taken = Arc::new(taken.items);
        state.batches.push(taken.clone());
        drop(state);
        // The conversion may run Python code and may be interrupted. The report then includes the results.
        let items = self.to_python(py, taken.iter())?;
        let removed = {
            let mut state = lock(&self.state);
            if state.is_left {
                return Ok(false);
            }
            state.batches.retain(|kept| !Arc::ptr_eq(kept, &taken));
            batch.set_slice(0, 0, &items)?;
            state.failures.extend(listed(&items, taken.iter())?);
            let requests = taken.iter().map(|item| state.requests.remove(&item.index));
            requests.collect::<Vec<_>>()
        };
        // Not under the lock, because dropping the requests may run Python code.
        drop(removed);
        Ok(true)
    }

    /// Takes the error to raise after the last result because some requests were not read.
    fn take_error<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let error = self.driver()?.and_then(|driver| driver.take_error());
        error.map(|error| self.errors().to_python(py, &error)).transpose()
    }

    /// Returns a future that completes when there are results or new progress, or at the end. Returns `None` if this is
    /// already the case.
    fn ready<'py>(&self, py: Python<'py>) -> PyResult<Option<(Bound<'py, PyAny>, CallHandle)>> {
        match self.driver()? {
            Some(driver) if !driver.is_ready() => self.wait_on_loop(py, driver.ready()).map(Some),
            _ => Ok(None),
        }
    }

    /// Returns a future that completes at the end. Returns `None` if the end is already reached.
    fn ended<'py>(&self, py: Python<'py>) -> PyResult<Option<(Bound<'py, PyAny>, CallHandle)>> {
        match self.driver()? {
            Some(driver) if !driver.is_ended() => self.wait_on_loop(py, driver.ended()).map(Some),
            _ => Ok(None),
        }
    }

    /// Stops all calls. No more results are returned.
    fn stop(&self) -> PyResult<()> {
        let driver = self.driver()?;
        lock(&self.state).is_left = true;
        if let Some(driver) = driver {
            driver.stop();
        }
        Ok(())
    }

    /// Stops all calls and waits until they have ended.
    fn leave(&self, py: Python<'_>) -> PyResult<()> {
        self.stop()?;
        match self.driver()? {
            Some(driver) => self.wait(py, driver.ended()),
            None => Ok(()),
        }
    }

    /// Returns the final results of all requests, after the end. Always returns the same results.
    fn report<'py>(&self, py: Python<'py>) -> PyResult<Report<'py>> {
        let Some(driver) = self.driver()? else {
            return Ok((
                0,
                0,
                0,
                PyList::empty(py),
                Vec::new(),
                Vec::new(),
                self.options.total,
            ));
        };
        self.handle_reports(py)?;
        let (report, batches, mut failures) = {
            let mut state = lock(&self.state);
            let report = state.report.get_or_insert_with(|| Arc::new(driver.take_report()));
            let report = report.clone();
            let failures: Vec<_> = state.failures.iter().map(|item| item.clone_ref(py)).collect();
            (report, state.batches.clone(), failures)
        };
        let items = batches
            .iter()
            .flat_map(|batch| batch.iter())
            .chain(&report.unread);
        let unread = self.to_python(py, items.clone())?;
        let unfinished = report.unfinished.iter().map(|stopped| {
            let UserIds {
                reached,
                failed,
                unknown,
                not_attempted,
                ..
            } = &stopped.users;
            let KeptRequest { request, tag, .. } = self.kept_request(py, stopped.index);
            let unfinished = Unfinished {
                index: stopped.index,
                request,
                reached: Tuple::of(py, reached)?,
                failed: Tuple::of(py, failed)?,
                unknown: Tuple::of(py, unknown)?,
                not_attempted: Tuple::of(py, not_attempted)?,
                tag,
            };
            Bound::new(py, unfinished)
        });
        let unfinished = unfinished.collect::<PyResult<_>>()?;
        failures.extend(listed(&unread, items)?);
        Ok((
            report.taken,
            report.succeeded,
            report.failed,
            unread,
            unfinished,
            failures,
            report.not_read,
        ))
    }

    /// Raises an exception in a forked child, because the results in its memory belong to its parent.
    fn check_process(&self) -> PyResult<()> {
        self.driver().map(drop)
    }

    /// Returns the current progress.
    fn progress(&self) -> PyResult<Progress> {
        let progress = self.driver()?.map(|driver| driver.progress());
        Ok(progress.map_or((0, self.options.total, 0, 0, None), values))
    }

    /// Returns the current progress if it has changed since the last call.
    fn new_progress(&self) -> PyResult<Option<Progress>> {
        let driver = self.driver()?;
        Ok(driver.and_then(|driver| driver.new_progress()).map(values))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.client)?;
        visit.call(&self.on_event)?;
        if let Ok(state) = self.state.try_lock() {
            for KeptRequest { request, tag, error } in state.requests.values() {
                visit.call(request)?;
                visit.call(tag)?;
                visit.call(error)?;
            }
            for item in &state.failures {
                visit.call(item)?;
            }
            visit.call(&state.failure)?;
            if let Some(running) = &state.running {
                if let Some(listener) = &running.listener {
                    listener.traverse(&visit)?;
                }
                if let Some((_, handle)) = &running.on_loop {
                    handle.traverse(&visit)?;
                }
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let (requests, failures, failure) = {
            let mut state = lock(&self.state);
            let requests = mem::take(&mut state.requests);
            (requests, mem::take(&mut state.failures), state.failure.take())
        };
        drop((requests, failures, failure));
    }
}

impl Many {
    pub(crate) fn new(client: Py<Client>, options: ManyOptions, on_event: Option<Py<PyAny>>) -> Self {
        Self {
            client,
            options,
            on_event,
            state: Mutex::default(),
            is_busy: AtomicBool::new(false),
        }
    }

    /// Starts the calls, if they have not started yet.
    fn begin(&self, py: Python<'_>) -> PyResult<()> {
        let has_begun = self.driver()?.is_some();
        if has_begun || lock(&self.state).is_left {
            return Ok(());
        }
        logs::refresh(py)?;
        let core = self.client.get().open(py)?;
        // First everything for which the system may have no resources.
        let engine = self.engine(py)?;
        let event_loop = self
            .client
            .get()
            .is_async()
            .then(|| self.current_loop(py))
            .transpose()?;
        let queue = self.client.get().provider_queue(py)?;
        let reader = queue
            .map(|queue| queue.start_reader(py, self.errors()))
            .transpose()?;
        let on_event = self.on_event.as_ref().map(|on_event| on_event.clone_ref(py));
        let listener = CallListener::of_thread(py, on_event)?.map(Arc::new);
        let (driver, run) = ManyDriver::new(&core, self.options);
        let on_loop = event_loop
            .map(|event_loop| event_loop.origin_of_many())
            .transpose()?;
        let mut state = lock(&self.state);
        if state.is_left || state.running.is_some() {
            // Python code ran above, so another thread may have started the calls or left the loop.
            drop(state);
            on_loop.inspect(|(_, handle)| handle.cancel());
            return Ok(());
        }
        // The runtime must not own `listener`, because dropping it needs the GIL.
        let run: Pin<Box<dyn Future<Output = ()> + Send>> = match &listener {
            Some(listener) => Box::pin(listener.around(run)),
            None => Box::pin(run),
        };
        let origin = on_loop.as_ref().map(|(origin, _)| origin.clone() as Origin);
        let task = engine.spawn(async move {
            let _reader = reader;
            with_origin(origin, run).await;
        });
        state.running = Some(Running {
            process: process::id(),
            driver,
            task,
            on_loop,
            listener,
        });
        Ok(())
    }

    fn listener(&self) -> Option<Arc<CallListener>> {
        let state = lock(&self.state);
        state
            .running
            .as_ref()
            .and_then(|running| running.listener.clone())
    }

    fn handle_reports(&self, py: Python<'_>) -> PyResult<()> {
        self.listener()
            .map_or(Ok(()), |listener| listener.handle_reports(py))
    }

    /// Returns the core's driver, or `None` before the start. Fails in a forked child.
    fn driver(&self) -> PyResult<Option<ManyDriver>> {
        match &lock(&self.state).running {
            Some(running) if running.process != process::id() => Err(PyRuntimeError::new_err(
                "these calls belong to the process that started them; this process was forked from it",
            )),
            running => Ok(running.as_ref().map(|running| running.driver.clone())),
        }
    }

    fn engine(&self, py: Python<'_>) -> PyResult<&'static Engine> {
        engine().map_err(|error| self.errors().out_of_resources(py, error, Vec::new()))
    }

    /// Returns the running event loop.
    fn current_loop<'py>(&self, py: Python<'py>) -> PyResult<CurrentLoop<'py>> {
        loops::current_loop(py)?.map_err(|error| self.errors().out_of_resources(py, error, Vec::new()))
    }

    /// Reads requests until there are results. Waits for results if no more requests can be read.
    fn read_until_ready(&self, iterator: &Bound<'_, PyIterator>) -> PyResult<()> {
        loop {
            let has_more = self.read(iterator)?;
            let Some(driver) = self.driver()?.filter(|driver| !driver.is_ready()) else {
                return Ok(());
            };
            if !has_more {
                return self.wait(iterator.py(), driver.ready());
            }
        }
    }

    /// Waits in this thread.
    fn wait(&self, py: Python<'_>, waiting: impl Future<Output = ()> + Send + 'static) -> PyResult<()> {
        let queue = self.client.get().provider_queue(py)?;
        match self.listener() {
            Some(listener) => wait_with_listener(py, self.engine(py)?, waiting, queue, &listener),
            None => wait(py, self.engine(py)?, waiting, queue),
        }
    }

    /// Waits on the running event loop. Returns a future, and a handle that ends the wait.
    fn wait_on_loop<'py>(
        &self,
        py: Python<'py>,
        waiting: impl Future<Output = ()> + Send + 'static,
    ) -> PyResult<(Bound<'py, PyAny>, CallHandle)> {
        let event_loop = self.current_loop(py)?;
        self.move_to(&event_loop)?;
        event_loop.wait(waiting)
    }

    /// Moves the token provider to this event loop, if it ran on another one.
    fn move_to(&self, event_loop: &CurrentLoop<'_>) -> PyResult<()> {
        let is_same_loop = {
            let state = lock(&self.state);
            let on_loop = state
                .running
                .as_ref()
                .and_then(|running| running.on_loop.as_ref());
            on_loop.is_none_or(|(_, handle)| event_loop.has(handle))
        };
        if is_same_loop {
            return Ok(());
        }
        let (new_origin, mut handle) = event_loop.origin_of_many()?;
        if let Some(running) = &mut lock(&self.state).running
            && let Some((origin, kept)) = &mut running.on_loop
        {
            origin.move_to(&new_origin);
            mem::swap(kept, &mut handle);
        }
        handle.cancel();
        Ok(())
    }

    fn busy(&self) -> PyResult<Busy<'_>> {
        if self.is_busy.swap(true, Ordering::Acquire) {
            return Err(PyRuntimeError::new_err(
                "another thread is already waiting for the next result",
            ));
        }
        Ok(Busy(&self.is_busy))
    }

    /// Stores a request under the index that `push` returns. Holds the lock during `push`, because the result may be
    /// available immediately.
    fn keep(
        &self,
        request: &Bound<'_, PyAny>,
        tag: Option<Py<PyAny>>,
        error: Option<Py<PyAny>>,
        push: impl FnOnce() -> usize,
    ) {
        let request = request.clone().unbind();
        let mut state = lock(&self.state);
        let kept = KeptRequest { request, tag, error };
        state.requests.insert(push(), kept);
    }

    fn kept_request(&self, py: Python<'_>, index: usize) -> KeptRequest {
        let copied = |value: &Option<Py<PyAny>>| value.as_ref().map(|value| value.clone_ref(py));
        let state = lock(&self.state);
        let kept = state.requests.get(&index);
        KeptRequest {
            request: kept.map_or_else(|| py.None(), |kept| kept.request.clone_ref(py)),
            tag: kept.and_then(|kept| copied(&kept.tag)),
            error: kept.and_then(|kept| copied(&kept.error)),
        }
    }

    fn raise_later(&self, exception: Py<PyAny>) {
        let earlier = lock(&self.state).failure.replace(exception);
        // Not under the lock, because dropping the exception may run Python code.
        drop(earlier);
    }

    fn errors(&self) -> &Errors {
        self.client.get().errors()
    }

    /// Converts results to a list, in reverse order.
    fn to_python<'py, 'a>(
        &self,
        py: Python<'py>,
        items: impl DoubleEndedIterator<Item = &'a ManyItem>,
    ) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for ManyItem { index, result, .. } in items.rev() {
            let index = *index;
            let KeptRequest { request, tag, error } = self.kept_request(py, index);
            let (outcome, error) = match result {
                Ok(outcome) => (
                    Some(outcome::to_python(py, self.errors(), outcome)?.unbind()),
                    None,
                ),
                Err(Some(error)) => (None, Some(self.errors().to_python(py, error)?.unbind())),
                Err(None) => (None, error),
            };
            let item = Item {
                index,
                request,
                outcome,
                error,
                tag,
            };
            list.append(Bound::new(py, item)?)?;
        }
        Ok(list)
    }
}

struct Busy<'a>(&'a AtomicBool);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn values(progress: feishu_feed_card::Progress) -> Progress {
    (
        progress.done,
        progress.total,
        progress.failed,
        progress.waiting_for_quota,
        progress.eta.map(|eta| eta.as_secs_f64()),
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the results that the report lists as failures. `list` is in reverse order.
fn listed<'a>(
    list: &Bound<'_, PyList>,
    items: impl DoubleEndedIterator<Item = &'a ManyItem>,
) -> PyResult<Vec<Py<Item>>> {
    let listed = list.iter().zip(items.rev()).filter(|(_, item)| item.is_listed);
    listed.map(|(item, _)| Ok(item.cast_into()?.unbind())).collect()
}
