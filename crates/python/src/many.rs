//! Many calls: requests from Python's iterables, results as Python's objects. What happens between is the core's
//! [`ManyDriver`], in a task of the runtime.

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
use crate::logs::{self, Listening};
use crate::loops::{self, CallHandle, Here};
use crate::outcome;
use crate::process;
use crate::provider::Caller;
use crate::records::Tuple;
use crate::waits::{wait, wait_listening};

/// Many calls of one client, not begun until the first result is asked for.
#[pyclass(module = "feishu_feed_card._native", frozen)]
pub(crate) struct Many {
    client: Py<Client>,
    options: ManyOptions,
    on_event: Option<Py<PyAny>>,
    state: Mutex<State>,
    /// Whether a thread waits for the next results.
    is_busy: AtomicBool,
}

/// What a `Progress` is made of.
type Progress = (usize, Option<usize>, usize, usize, Option<f64>);

/// What a `Report` is made of.
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
    /// Requests that were handed over and whose results were not handed out, by index.
    requests: HashMap<usize, HandedOver>,
    /// Results on their way to Python. They are the report's if the way is interrupted.
    batches: Vec<Arc<Vec<ManyItem>>>,
    /// Taken from the core once, after the end.
    report: Option<Arc<ManyReport>>,
    /// Results that were handed out, and that the report is to list.
    failures: Vec<Py<Item>>,
    /// Why reading ended early. Raised after the results.
    failure: Option<Py<PyAny>>,
    /// Whether the loop was left: no more results are handed out.
    is_left: bool,
}

struct HandedOver {
    request: Py<PyAny>,
    tag: Option<Py<PyAny>>,
    /// Why it is no request.
    error: Option<Py<PyAny>>,
}

/// Neither touched nor dropped in a fork's child.
struct Running {
    process: u64,
    driver: ManyDriver,
    task: AbortHandle,
    /// The event loop on which results were asked for last, and what it keeps.
    on_loop: Option<(Arc<Caller>, CallHandle)>,
    /// On an event loop, too, what is reported is handled when results are taken, in the context of the task that
    /// takes them.
    listening: Option<Arc<Listening>>,
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
    /// Reads the iterator on this thread until there are results, and takes them: see `take`.
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

    /// Reads a synchronous iterator for some milliseconds, as far as there is room. Returns whether to read on.
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

    /// Whether another request may be read.
    fn may_read(&self, py: Python<'_>) -> PyResult<bool> {
        self.begin(py)?;
        Ok(self.driver()?.is_some_and(|driver| driver.has_room()))
    }

    /// Whether the core still takes requests.
    fn is_reading(&self) -> PyResult<bool> {
        Ok(self.driver()?.is_some_and(|driver| driver.takes_more()))
    }

    /// Hands an element over, and returns whether there is room for another. If it is no request, the error
    /// becomes its result.
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

    /// Ends the input: the iterable has no more.
    fn end_reading(&self) -> PyResult<()> {
        if let Some(driver) = self.driver()? {
            driver.end_input();
        }
        Ok(())
    }

    /// Stops all calls because the iterable raised. The exception is raised after the results that are there.
    fn fail(&self, exception: Bound<'_, PyAny>) -> PyResult<()> {
        self.raise_later(exception.unbind());
        if let Some(driver) = self.driver()? {
            driver.stop();
        }
        Ok(())
    }

    /// Puts the results that are there before those in the list, the first one last; none if there is only progress
    /// to report. Returns false at the end.
    ///
    /// The list is the caller's: an interrupt that comes as this returns must not lose the results.
    fn take(&self, py: Python<'_>, batch: &Bound<'_, PyList>) -> PyResult<bool> {
        logs::look(py)?;
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
        // This may run Python's code, and be interrupted: then they are the report's.
        let items = self.to_python(py, taken.iter())?;
        let handed_over = {
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
        // Not under the lock: dropping them may run Python's code.
        drop(handed_over);
        Ok(true)
    }

    /// Takes the error to raise after the last result, if not all requests were read.
    fn take_error<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let error = self.driver()?.and_then(|driver| driver.take_error());
        error.map(|error| self.errors().to_python(py, &error)).transpose()
    }

    /// A future of the running event loop that is settled when there are results, progress, or the end; `None`
    /// if there are already.
    fn ready<'py>(&self, py: Python<'py>) -> PyResult<Option<(Bound<'py, PyAny>, CallHandle)>> {
        match self.driver()? {
            Some(driver) if !driver.is_ready() => self.wait_on_loop(py, driver.ready()).map(Some),
            _ => Ok(None),
        }
    }

    /// The same for the end alone.
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

    /// Stops all calls, and waits for their end.
    fn leave(&self, py: Python<'_>) -> PyResult<()> {
        self.stop()?;
        match self.driver()? {
            Some(driver) => self.wait(py, driver.ended()),
            None => Ok(()),
        }
    }

    /// Returns the final state of all requests, after the end; the same each time.
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
            let HandedOver { request, tag, .. } = self.handed_over(py, stopped.index);
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

    /// Raises in a fork's child, whose memory has the results of its parent.
    fn check_process(&self) -> PyResult<()> {
        self.driver().map(drop)
    }

    /// The current progress.
    fn progress(&self) -> PyResult<Progress> {
        let progress = self.driver()?.map(|driver| driver.progress());
        Ok(progress.map_or((0, self.options.total, 0, 0, None), values))
    }

    /// The current progress if it has changed since the last call.
    fn new_progress(&self) -> PyResult<Option<Progress>> {
        let driver = self.driver()?;
        Ok(driver.and_then(|driver| driver.new_progress()).map(values))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.client)?;
        visit.call(&self.on_event)?;
        if let Ok(state) = self.state.try_lock() {
            for HandedOver { request, tag, error } in state.requests.values() {
                visit.call(request)?;
                visit.call(tag)?;
                visit.call(error)?;
            }
            for item in &state.failures {
                visit.call(item)?;
            }
            visit.call(&state.failure)?;
            if let Some(running) = &state.running {
                if let Some(listening) = &running.listening {
                    listening.traverse(&visit)?;
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

    /// Begins, at the first call.
    fn begin(&self, py: Python<'_>) -> PyResult<()> {
        let has_begun = self.driver()?.is_some();
        if has_begun || lock(&self.state).is_left {
            return Ok(());
        }
        logs::look(py)?;
        let core = self.client.get().open(py)?;
        // First everything that the system may refuse.
        let engine = self.engine(py)?;
        let here = self.client.get().is_async().then(|| self.here(py)).transpose()?;
        let board = self.client.get().board(py)?;
        let attendance = board.map(|board| board.attend(py, self.errors())).transpose()?;
        let on_event = self.on_event.as_ref().map(|on_event| on_event.clone_ref(py));
        let listening = Listening::of_thread(py, on_event)?.map(Arc::new);
        let (driver, run) = ManyDriver::new(&core, self.options);
        let on_loop = here.map(|here| here.origin_of_many()).transpose()?;
        let mut state = lock(&self.state);
        if state.is_left || state.running.is_some() {
            // Python's code ran above, and another thread's `report` with it.
            drop(state);
            on_loop.inspect(|(_, handle)| handle.cancel());
            return Ok(());
        }
        // The runtime does not hold what listens: dropping that takes the GIL.
        let run: Pin<Box<dyn Future<Output = ()> + Send>> = match &listening {
            Some(listening) => Box::pin(listening.around(run)),
            None => Box::pin(run),
        };
        let origin = on_loop.as_ref().map(|(origin, _)| origin.clone() as Origin);
        let task = engine.spawn(async move {
            let _attendance = attendance;
            with_origin(origin, run).await;
        });
        state.running = Some(Running {
            process: process::id(),
            driver,
            task,
            on_loop,
            listening,
        });
        Ok(())
    }

    fn listening(&self) -> Option<Arc<Listening>> {
        let state = lock(&self.state);
        state
            .running
            .as_ref()
            .and_then(|running| running.listening.clone())
    }

    fn handle_reports(&self, py: Python<'_>) -> PyResult<()> {
        self.listening()
            .map_or(Ok(()), |listening| listening.handle_reports(py))
    }

    /// The core's side, once it has begun.
    fn driver(&self) -> PyResult<Option<ManyDriver>> {
        match &lock(&self.state).running {
            Some(running) if running.process != process::id() => Err(PyRuntimeError::new_err(
                "these calls are made by the process that began them, from which this one was forked",
            )),
            running => Ok(running.as_ref().map(|running| running.driver.clone())),
        }
    }

    fn engine(&self, py: Python<'_>) -> PyResult<&'static Engine> {
        engine().map_err(|error| self.errors().out_of_resources(py, error, Vec::new()))
    }

    /// The running event loop.
    fn here<'py>(&self, py: Python<'py>) -> PyResult<Here<'py>> {
        loops::here(py)?.map_err(|error| self.errors().out_of_resources(py, error, Vec::new()))
    }

    /// Reads until there is something to return. Waits for that if there is no room or nothing to read.
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

    /// Blocks this thread.
    fn wait(&self, py: Python<'_>, waiting: impl Future<Output = ()> + Send + 'static) -> PyResult<()> {
        let board = self.client.get().board(py)?;
        match self.listening() {
            Some(listening) => wait_listening(py, self.engine(py)?, waiting, board, &listening),
            None => wait(py, self.engine(py)?, waiting, board),
        }
    }

    /// Has the running event loop wait: a future, and what ends the wait.
    fn wait_on_loop<'py>(
        &self,
        py: Python<'py>,
        waiting: impl Future<Output = ()> + Send + 'static,
    ) -> PyResult<(Bound<'py, PyAny>, CallHandle)> {
        let here = self.here(py)?;
        self.move_to(&here)?;
        here.wait(waiting)
    }

    /// Has token providers run on this event loop, if the calls began on another.
    fn move_to(&self, here: &Here<'_>) -> PyResult<()> {
        let is_here = {
            let state = lock(&self.state);
            let on_loop = state
                .running
                .as_ref()
                .and_then(|running| running.on_loop.as_ref());
            on_loop.is_none_or(|(_, handle)| here.has(handle))
        };
        if is_here {
            return Ok(());
        }
        let (there, mut handle) = here.origin_of_many()?;
        if let Some(running) = &mut lock(&self.state).running
            && let Some((origin, kept)) = &mut running.on_loop
        {
            origin.move_to(&there);
            mem::swap(kept, &mut handle);
        }
        handle.cancel();
        Ok(())
    }

    fn busy(&self) -> PyResult<Busy<'_>> {
        if self.is_busy.swap(true, Ordering::Acquire) {
            return Err(PyRuntimeError::new_err(
                "another thread waits for the next result",
            ));
        }
        Ok(Busy(&self.is_busy))
    }

    /// Keeps a request under the index that `hand_over` returns. Under the lock: its result may be there at once.
    fn keep(
        &self,
        request: &Bound<'_, PyAny>,
        tag: Option<Py<PyAny>>,
        error: Option<Py<PyAny>>,
        hand_over: impl FnOnce() -> usize,
    ) {
        let request = request.clone().unbind();
        let mut state = lock(&self.state);
        let handed_over = HandedOver { request, tag, error };
        state.requests.insert(hand_over(), handed_over);
    }

    fn handed_over(&self, py: Python<'_>, index: usize) -> HandedOver {
        let copied = |value: &Option<Py<PyAny>>| value.as_ref().map(|value| value.clone_ref(py));
        let state = lock(&self.state);
        let handed_over = state.requests.get(&index);
        HandedOver {
            request: handed_over.map_or_else(|| py.None(), |kept| kept.request.clone_ref(py)),
            tag: handed_over.and_then(|kept| copied(&kept.tag)),
            error: handed_over.and_then(|kept| copied(&kept.error)),
        }
    }

    fn raise_later(&self, exception: Py<PyAny>) {
        let earlier = lock(&self.state).failure.replace(exception);
        // Not under the lock: dropping it may run Python's code.
        drop(earlier);
    }

    fn errors(&self) -> &Errors {
        self.client.get().errors()
    }

    /// A list of results, the first one last.
    fn to_python<'py, 'a>(
        &self,
        py: Python<'py>,
        items: impl DoubleEndedIterator<Item = &'a ManyItem>,
    ) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for ManyItem { index, result, .. } in items.rev() {
            let index = *index;
            let HandedOver { request, tag, error } = self.handed_over(py, index);
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

/// Those of a list of results, the first one last, that the report is to list.
fn listed<'a>(
    list: &Bound<'_, PyList>,
    items: impl DoubleEndedIterator<Item = &'a ManyItem>,
) -> PyResult<Vec<Py<Item>>> {
    let listed = list.iter().zip(items.rev()).filter(|(_, item)| item.is_listed);
    listed.map(|(item, _)| Ok(item.cast_into()?.unbind())).collect()
}
