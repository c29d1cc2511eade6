//! Many calls: requests go in from Python's iterables, and results come back in batches.
//!
//! The caller's thread reads the iterable and makes Python's objects; the runtime, on the engine's
//! thread, does all between. They meet in `Shared`, of which neither holds the lock for long.

use std::collections::HashMap;
use std::mem::{self, ManuallyDrop};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use feishu_feed_card::binding::PROGRESS_EVERY;
use feishu_feed_card::{Error, Item, Outcome, Progress, Report, Request, UserIds, binding};
use futures_core::Stream;
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList, PyTuple};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::arguments;
use crate::client::Client;
use crate::engine::{Engine, engine};
use crate::errors::{Errors, Refusal};
use crate::items;
use crate::logs;
use crate::loops::{self, CallHandle, Mailbox};
use crate::outcome;
use crate::process;
use crate::records::Tuple;
use crate::waits::wait;

/// Results that cross to Python at a time, at most: waking a thread or a loop costs as much as ten of
/// them and more.
const BATCH: usize = 64;

/// How long a result waits for others to cross with, where others are on their way.
const LINGERS_FOR: Duration = Duration::from_millis(2);

/// How long reading goes on at a stretch: an iterable that is slow must hold up neither the results that
/// are there nor an event loop's other tasks.
const READS_FOR: Duration = Duration::from_millis(5);
/// Many calls of one client, not begun until the first result is asked for.
#[pyclass(module = "feishu_feed_card._native", frozen)]
pub(crate) struct Many {
    client: Py<Client>,
    concurrency: usize,
    total_timeout: Option<Duration>,
    total: Option<usize>,
    /// Somebody wants to hear of progress.
    tells: bool,
    state: Mutex<PythonSide>,
    /// Somebody waits for the next result.
    is_busy: AtomicBool,
}

/// A `Progress`, as its constructor takes it.
type Values = (usize, Option<usize>, usize, usize, Option<f64>);

/// What only Python's threads touch.
#[derive(Default)]
struct PythonSide {
    running: Option<ManyTask>,
    /// What was read and has not been handed back, by its index.
    handed_in: HashMap<usize, HandedIn>,
    /// How much was read.
    read: usize,
    is_all_read: bool,
    /// The request whose user ids raised, and those of them that were read.
    half_read: Option<(usize, Vec<String>)>,
    /// Why reading ended early; to be raised after what had finished.
    failure: Option<Py<PyAny>>,
    /// What is on its way was stopped.
    is_stopped: bool,
    /// How many were handed back that the core had not taken when `total_timeout` passed.
    out_of_time: usize,
    is_left: bool,
}

struct HandedIn {
    request: Py<PyAny>,
    /// Its user ids; those of an outcome are these, where all were reached.
    ids: Py<PyTuple>,
    /// Why it is no request. The core gets one in its place that does not pass its checks either.
    error: Option<Py<PyAny>>,
}

struct ManyTask {
    process: u64,
    /// None of these is touched, nor dropped, in a fork's child.
    own: ManuallyDrop<Own>,
}

struct Own {
    requests: Option<mpsc::Sender<Request>>,
    task: AbortHandle,
    shared: Arc<Shared>,
}

impl Drop for ManyTask {
    fn drop(&mut self) {
        if self.process == process::id() {
            #[allow(unsafe_code, reason = "what a fork's child must not drop is dropped by hand")]
            // SAFETY: `self.own` is not used after this.
            let own = unsafe { ManuallyDrop::take(&mut self.own) };
            own.task.abort();
        }
    }
}

/// Where Python's threads and the runtime meet.
#[derive(Default)]
struct Shared {
    found: Mutex<Found>,
    /// There is something to find.
    ready: Notify,
    /// No more is wanted.
    stop: Notify,
}

#[derive(Default)]
struct Found {
    items: Vec<Done>,
    progress: Option<Progress>,
    /// Progress is to be told though there are no results.
    is_to_tell: bool,
    /// What was read from the iterable, and not by the core.
    not_taken: Vec<Request>,
    end: Option<Result<Report, Panicked>>,
    /// Waits of event loops.
    waits: Vec<(Arc<Mailbox>, u64)>,
}

/// What became of a request.
struct Done {
    index: usize,
    result: Result<Outcome, Error>,
    /// The ids reached are those of the request, one by one, and not here.
    are_all_reached: bool,
}

/// The core's task ended without a report.
#[derive(Clone, Copy)]
struct Panicked;

impl Shared {
    fn found(&self) -> MutexGuard<'_, Found> {
        lock(&self.found)
    }

    fn put(&self, change: impl FnOnce(&mut Found)) {
        let waits = {
            let mut found = self.found();
            change(&mut found);
            mem::take(&mut found.waits)
        };
        for (mailbox, wait) in waits {
            mailbox.ready(wait);
        }
        self.ready.notify_waiters();
    }

    /// Waits until there are results, or progress to tell, or the end.
    async fn ready(self: Arc<Self>) {
        loop {
            let mut ready = std::pin::pin!(self.ready.notified());
            ready.as_mut().enable();
            if self.found().is_ready() {
                return;
            }
            ready.await;
        }
    }

    /// Waits for the end.
    async fn end(self: Arc<Self>) {
        loop {
            let mut ready = std::pin::pin!(self.ready.notified());
            ready.as_mut().enable();
            if self.found().end.is_some() {
                return;
            }
            ready.await;
        }
    }
}

impl Found {
    fn is_ready(&self) -> bool {
        !self.items.is_empty() || self.is_to_tell || self.end.is_some()
    }
}

/// The requests as the core reads them.
struct Requests {
    receiver: mpsc::Receiver<Request>,
    total: Option<usize>,
    shared: Arc<Shared>,
}

impl Stream for Requests {
    type Item = Request;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Request>> {
        self.receiver.poll_recv(context)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.total.unwrap_or(0), self.total)
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        // What is sent from here on lands behind these.
        let mut found = self.shared.found();
        self.receiver.close();
        while let Ok(request) = self.receiver.try_recv() {
            found.not_taken.push(request);
        }
    }
}

/// Tells the end when dropped, also where the task panicked: nobody waits for ever.
struct EndOfMany(Arc<Shared>);

impl Drop for EndOfMany {
    fn drop(&mut self) {
        self.0.put(|found| {
            found.end.get_or_insert(Err(Panicked));
        });
    }
}

/// Makes the calls.
async fn run(mut many: feishu_feed_card::Many, end: EndOfMany, enough: usize, tells: bool) {
    let shared = &end.0;
    loop {
        let mut items = tokio::select! {
            biased;
            () = shared.stop.notified() => break,
            items = many.next_batch(BATCH) => items,
            () = sleep(PROGRESS_EVERY), if tells => {
                let progress = many.progress();
                shared.put(|found| {
                    found.progress = Some(progress);
                    found.is_to_tell = true;
                });
                continue;
            }
        };
        if items.is_empty() {
            break;
        }
        if items.len() < enough {
            let _ = timeout(LINGERS_FOR, async {
                while items.len() < enough {
                    let more = many.next_batch(BATCH - items.len()).await;
                    if more.is_empty() {
                        break;
                    }
                    items.extend(more);
                }
            })
            .await;
        }
        let progress = many.progress();
        let mut items = done(items);
        shared.put(|found| {
            found.items.append(&mut items);
            found.progress = Some(progress);
        });
    }
    let mut report = many.report().await;
    let progress = many.progress();
    let mut unread = done(mem::take(&mut report.unread));
    shared.put(|found| {
        found.items.append(&mut unread);
        found.progress = Some(progress);
        found.end = Some(Ok(report));
    });
}

/// Drops what Python has of its own, the request and its ids, on the runtime's thread: the caller's would read
/// and free another thread's memory for it, 8 % of what a result costs there.
fn done(items: Vec<Item>) -> Vec<Done> {
    let done = |item| {
        let Item {
            index,
            request,
            mut result,
            ..
        } = item;
        let mut are_all_reached = false;
        if let Ok(outcome) = &mut result {
            are_all_reached = outcome.users.reached == request.user_ids;
            if are_all_reached {
                outcome.users.reached = Vec::new();
            }
        }
        Done {
            index,
            result,
            are_all_reached,
        }
    };
    items.into_iter().map(done).collect()
}

#[pymethods]
impl Many {
    /// The next results, the first one last, as soon as there are some; none where there is only progress
    /// to tell, `None` at the end. Reads the iterator on this thread meanwhile.
    fn next_batch<'py>(
        &self,
        py: Python<'py>,
        iterator: &Bound<'py, PyIterator>,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        let _busy = self.busy()?;
        match self.read_until_ready(iterator) {
            Ok(()) => self.take(py),
            // A signal's handler raised: as with a generator, that is the end.
            Err(error) => {
                self.stop();
                Err(error)
            }
        }
    }

    /// Reads a synchronous iterator for a moment, as far as there is room, and says whether there is more.
    fn read(&self, iterator: &Bound<'_, PyIterator>) -> PyResult<bool> {
        let py = iterator.py();
        if !self.may_read(py)? {
            return Ok(false);
        }
        let began = Instant::now();
        loop {
            let Some(request) = iterator.clone().next() else {
                self.end_reading();
                return Ok(false);
            };
            match request.and_then(|request| self.push(&request)) {
                Ok(true) if began.elapsed() > READS_FOR => return Ok(true),
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => {
                    self.end_with(py, error)?;
                    return Ok(false);
                }
            }
        }
    }

    /// Whether another request may be read: there is room, the client is open, nothing failed.
    fn may_read(&self, py: Python<'_>) -> PyResult<bool> {
        self.begin(py)?;
        {
            let state = lock(&self.state);
            if !state.is_reading() || state.handed_in.len() >= self.concurrency {
                return Ok(false);
            }
        }
        // Those on their way go on to their end, as single calls do.
        if let Err(error) = self.client.get().check_open(py) {
            self.end_reading_with(py, error);
            return Ok(false);
        }
        Ok(true)
    }

    /// Whether the core still takes requests.
    fn is_reading(&self) -> bool {
        lock(&self.state).is_reading()
    }

    /// Hands a request in, and says whether there is room for another. What is none comes back as a
    /// result, like a request that fails.
    fn push(&self, request: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = request.py();
        let mut user_ids = Vec::new();
        let (core, handed_in) = match arguments::request(request, &mut user_ids) {
            Ok((core, ids)) => (core, HandedIn::new(request, ids)),
            Err(Refusal::Wrong(error)) => {
                let stands_in = binding::unreadable_request();
                let error = Some(self.errors().to_python(py, &error)?.unbind());
                let handed_in = HandedIn::new(request, PyTuple::empty(py));
                (stands_in, HandedIn { error, ..handed_in })
            }
            Err(Refusal::Raised(error)) => {
                let mut state = lock(&self.state);
                let index = state.read(HandedIn::new(request, PyTuple::empty(py)));
                state.half_read = Some((index, user_ids));
                return Err(error);
            }
        };
        let mut state = lock(&self.state);
        state.read(handed_in);
        let has_room = state.handed_in.len() < self.concurrency;
        let Some(running) = &state.running else {
            return Ok(false);
        };
        let own = &running.own;
        let sent = match &own.requests {
            Some(requests) => requests.try_send(core).map_err(TrySendError::into_inner),
            None => Err(core),
        };
        match sent {
            Ok(()) => Ok(has_room && !self.client.get().closed()),
            Err(core) => {
                own.shared.found().not_taken.push(core);
                Ok(false)
            }
        }
    }

    /// Says that there are no more requests.
    fn end_reading(&self) {
        lock(&self.state).end_reading();
    }

    /// Says that the iterable raised: nothing more is sent, and what had finished comes first.
    fn fail(&self, exception: Bound<'_, PyAny>) {
        let py = exception.py();
        self.end_reading_with(py, PyErr::from_value(exception));
        lock(&self.state).stop();
    }

    /// The results that are there, the first one last, if any; `None` at the end.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        logs::look(py)?;
        let shared = self.shared()?;
        let is_left = lock(&self.state).is_left;
        let Some(shared) = shared.filter(|_| !is_left) else {
            return Ok(None);
        };
        let (mut items, end) = {
            let mut found = shared.found();
            found.is_to_tell = false;
            let count = found.items.len().min(BATCH);
            let rest = found.items.split_off(count);
            let items = mem::replace(&mut found.items, rest);
            (items, found.end.as_ref().map(Result::is_ok))
        };
        if items.is_empty()
            && let Some(is_told) = end
        {
            let mut out_of_time = self.out_of_time(py, &shared)?;
            if !out_of_time.is_empty() {
                out_of_time.reverse();
                return PyList::new(py, out_of_time).map(Some);
            }
            let failure = lock(&self.state).failure.take();
            return match failure {
                Some(failure) => Err(PyErr::from_value(failure.into_bound(py))),
                None if is_told => Ok(None),
                None => Err(broken()),
            };
        }
        items.reverse();
        let items = self.to_python(py, items)?;
        PyList::new(py, items).map(Some)
    }

    /// A future of the running event loop that is settled when there are results, or the end; `None`
    /// where there are already.
    fn ready<'py>(&self, py: Python<'py>) -> PyResult<Option<(Bound<'py, PyAny>, CallHandle)>> {
        self.wait_on_loop(py, Found::is_ready)
    }

    /// The same for the end alone.
    fn ended<'py>(&self, py: Python<'py>) -> PyResult<Option<(Bound<'py, PyAny>, CallHandle)>> {
        self.wait_on_loop(py, |found| found.end.is_some())
    }

    /// Stops what is on its way.
    fn stop(&self) {
        let mut state = lock(&self.state);
        state.end_reading();
        state.stop();
    }

    /// Stops what is on its way, and waits until it has stopped.
    fn leave(&self, py: Python<'_>) -> PyResult<()> {
        self.stop();
        if let Some(shared) = self.shared()? {
            wait(py, self.engine(py)?, shared.end(), self.board(py)?)?;
        }
        Ok(())
    }

    /// Takes what became of everything, after the end: how many were read, succeeded and failed, the
    /// results not handed out, and what was stopped on its way.
    fn report<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let nothing = || (0_usize, 0_usize, 0_usize, PyList::empty(py), PyList::empty(py)).into_pyobject(py);
        let shared = self.shared()?;
        let (half_read, out_of_time) = {
            let mut state = lock(&self.state);
            state.is_left = true;
            (state.half_read.take(), state.out_of_time)
        };
        let Some(shared) = shared else {
            return nothing();
        };
        let (items, not_taken, report) = {
            let mut found = shared.found();
            let report = found.end.clone();
            (
                mem::take(&mut found.items),
                mem::take(&mut found.not_taken),
                report,
            )
        };
        let Some(Ok(report)) = report else {
            return Err(broken());
        };
        let unread = PyList::new(py, self.to_python(py, items)?)?;
        let unfinished = PyList::empty(py);
        for stopped in report.unfinished {
            unfinished.append(self.unfinished(py, stopped.index, &stopped.users)?)?;
        }
        let mut failed = report.failed + out_of_time;
        let mut taken = report.taken + out_of_time;
        for request in not_taken {
            let error = lock(&self.state)
                .handed_in
                .get(&taken)
                .and_then(|handed_in| Some(handed_in.error.as_ref()?.clone_ref(py)));
            if let Some(error) = error {
                failed += 1;
                let request = self.handed_in(py, taken).request;
                unread.append(item(py, taken, request, None, Some(error.into_bound(py)))?)?;
            } else {
                unfinished.append(self.unfinished(py, taken, &not_attempted(request.user_ids))?)?;
            }
            taken += 1;
        }
        if let Some((index, user_ids)) = half_read {
            unfinished.append(self.unfinished(py, index, &not_attempted(user_ids))?)?;
            taken += 1;
        }
        (taken, report.succeeded, failed, unread, unfinished).into_pyobject(py)
    }

    /// Raises in a fork's child, which has its parent's results in its memory, too.
    fn check_process(&self) -> PyResult<()> {
        if lock(&self.state).is_of_this_process() {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(
            "these calls are made by the process that began them, from which this one was forked",
        ))
    }

    /// How far it has come: done, total, failed, waiting for the quota, and the least seconds it takes yet.
    fn progress(&self) -> PyResult<Values> {
        let progress = self.shared()?.and_then(|shared| shared.found().progress);
        Ok(match progress {
            Some(progress) => (
                progress.done,
                self.total,
                progress.failed,
                progress.waiting_for_quota,
                progress.eta.map(|eta| eta.as_secs_f64()),
            ),
            None => (0, self.total, 0, 0, None),
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.client)?;
        if let Ok(state) = self.state.try_lock() {
            for handed_in in state.handed_in.values() {
                visit.call(&handed_in.request)?;
                visit.call(&handed_in.ids)?;
                visit.call(&handed_in.error)?;
            }
            visit.call(&state.failure)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        let (handed_in, failure) = {
            let mut state = lock(&self.state);
            (mem::take(&mut state.handed_in), state.failure.take())
        };
        drop((handed_in, failure));
    }
}

impl Many {
    pub(crate) fn new(
        client: Py<Client>,
        concurrency: usize,
        total_timeout: Option<Duration>,
        total: Option<usize>,
        tells: bool,
    ) -> Self {
        Self {
            client,
            concurrency,
            total_timeout,
            total,
            tells,
            state: Mutex::default(),
            is_busy: AtomicBool::new(false),
        }
    }

    /// Begins, at the first call.
    fn begin(&self, py: Python<'_>) -> PyResult<()> {
        if self.shared()?.is_some() || lock(&self.state).is_all_read {
            return Ok(());
        }
        logs::look(py)?;
        let core = self.client.get().open(py)?;
        let shared = Arc::<Shared>::default();
        let (sender, receiver) = mpsc::channel(self.concurrency);
        let requests = Requests {
            receiver,
            total: self.total,
            shared: shared.clone(),
        };
        let mut many = core
            .set_time_sensitive_stream(requests)
            .concurrency(self.concurrency);
        if let Some(total_timeout) = self.total_timeout {
            many = many.total_timeout(total_timeout);
        }
        // With a quarter there the others keep the connections busy while these cross.
        let enough = (self.concurrency / 4).clamp(1, BATCH);
        // All that the system may refuse, before anything is begun.
        let engine = self.engine(py)?;
        let attendance = self
            .board(py)?
            .map(|board| board.attend(py, self.errors()))
            .transpose()?;
        let run = run(many, EndOfMany(shared.clone()), enough, self.tells);
        let mut state = lock(&self.state);
        if state.is_all_read || state.running.is_some() {
            // Python's code ran above, and another thread's `report` with it.
            return Ok(());
        }
        let task = engine.spawn(async move {
            let _attendance = attendance;
            run.await;
        });
        state.running = Some(ManyTask {
            process: process::id(),
            own: ManuallyDrop::new(Own {
                requests: Some(sender),
                task,
                shared,
            }),
        });
        Ok(())
    }

    /// The runtime; for an `AsyncClient`'s also what its event loop needs to be woken.
    fn engine(&self, py: Python<'_>) -> PyResult<&'static Engine> {
        let engine = if self.client.get().is_async() {
            loops::here(py)?.map(|here| here.engine)
        } else {
            engine()
        };
        engine.map_err(|error| self.errors().out_of_resources(py, error, Vec::new()))
    }

    fn end_with(&self, py: Python<'_>, error: PyErr) -> PyResult<()> {
        if !error.is_instance_of::<PyException>(py) {
            return Err(error);
        }
        self.fail(error.into_value(py).into_bound(py).into_any());
        Ok(())
    }

    /// Reads until there is something to hand back, and waits for it where there is no more to read.
    fn read_until_ready(&self, iterator: &Bound<'_, PyIterator>) -> PyResult<()> {
        let py = iterator.py();
        loop {
            let has_more = self.read(iterator)?;
            let Some(shared) = self.shared()? else {
                return Ok(());
            };
            if shared.found().is_ready() {
                return Ok(());
            }
            if !has_more {
                return wait(py, self.engine(py)?, shared.ready(), self.board(py)?);
            }
        }
    }

    /// Results for what was read as `total_timeout` passed, too late for the core to take it.
    fn out_of_time<'py>(&self, py: Python<'py>, shared: &Shared) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let before = {
            let state = lock(&self.state);
            if state.is_stopped {
                return Ok(Vec::new());
            }
            state.out_of_time
        };
        let (taken, not_taken) = {
            let mut found = shared.found();
            let Some(Ok(report)) = &found.end else {
                return Ok(Vec::new());
            };
            let taken = report.taken + before;
            let not_taken = mem::take(&mut found.not_taken);
            if let Some(progress) = &mut found.progress {
                progress.done += not_taken.len();
                progress.failed += not_taken.len();
            }
            (taken, not_taken)
        };
        lock(&self.state).out_of_time += not_taken.len();
        let to_python = |(index, request): (usize, Request)| {
            let HandedIn {
                request: own, error, ..
            } = self.handed_in(py, index);
            let error = match error {
                Some(error) => error.into_bound(py),
                None => self
                    .errors()
                    .to_python(py, &binding::total_timeout_passed(request.user_ids))?,
            };
            item(py, index, own, None, Some(error))
        };
        (taken..).zip(not_taken).map(to_python).collect()
    }

    /// Neither making nor dropping an exception may happen under the lock: both may run Python's code.
    fn end_reading_with(&self, py: Python<'_>, error: PyErr) {
        let error = error.into_value(py).into_any();
        let earlier = {
            let mut state = lock(&self.state);
            state.end_reading();
            state.failure.replace(error)
        };
        drop(earlier);
    }

    fn shared(&self) -> PyResult<Option<Arc<Shared>>> {
        self.check_process()?;
        Ok(lock(&self.state).shared().cloned())
    }

    fn errors(&self) -> &Errors {
        self.client.get().errors()
    }

    fn board(&self, py: Python<'_>) -> PyResult<Option<Arc<crate::provider::Board>>> {
        self.client.get().board(py)
    }

    fn busy(&self) -> PyResult<Busy<'_>> {
        if self.is_busy.swap(true, Ordering::Acquire) {
            return Err(PyRuntimeError::new_err(
                "another thread waits for the next result",
            ));
        }
        Ok(Busy(&self.is_busy))
    }

    fn wait_on_loop<'py>(
        &self,
        py: Python<'py>,
        is_there: fn(&Found) -> bool,
    ) -> PyResult<Option<(Bound<'py, PyAny>, CallHandle)>> {
        let Some(shared) = self.shared()? else {
            return Ok(None);
        };
        if is_there(&shared.found()) {
            return Ok(None);
        }
        let here = loops::here(py)?.map_err(|error| self.errors().out_of_resources(py, error, Vec::new()))?;
        let (future, call, mailbox) = here.wait()?;
        self.client.get().asked_from(&mailbox);
        let mut found = shared.found();
        if is_there(&found) {
            drop(found);
            call.cancel();
            return Ok(None);
        }
        found.waits.push((mailbox, call.number()));
        Ok(Some((future, call)))
    }

    fn handed_in(&self, py: Python<'_>, index: usize) -> HandedIn {
        let handed_in = lock(&self.state).handed_in.remove(&index);
        handed_in.unwrap_or_else(|| HandedIn::new(py.None().bind(py), PyTuple::empty(py)))
    }

    fn to_python<'py>(&self, py: Python<'py>, items: Vec<Done>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let to_python = |done: Done| {
            let index = done.index;
            let HandedIn { request, ids, error } = self.handed_in(py, index);
            let (outcome, error) = match (&done.result, error) {
                (_, Some(error)) => (None, Some(error.into_bound(py))),
                (Ok(outcome), None) if done.are_all_reached => {
                    let ids = ids.into_bound(py);
                    (
                        Some(outcome::to_python_with(py, self.errors(), outcome, ids)?),
                        None,
                    )
                }
                (Ok(outcome), None) => (Some(outcome::to_python(py, self.errors(), outcome)?), None),
                (Err(error), None) => (None, Some(self.errors().to_python(py, error)?)),
            };
            item(py, index, request, outcome, error)
        };
        items.into_iter().map(to_python).collect()
    }

    fn unfinished<'py>(&self, py: Python<'py>, index: usize, users: &UserIds) -> PyResult<Bound<'py, PyAny>> {
        let unfinished = items::Unfinished {
            index,
            request: self.handed_in(py, index).request,
            reached: Tuple::of(py, &users.reached)?,
            failed: Tuple::of(py, &users.failed)?,
            unknown: Tuple::of(py, &users.unknown)?,
            not_attempted: Tuple::of(py, &users.not_attempted)?,
        };
        Bound::new(py, unfinished).map(Bound::into_any)
    }
}

impl HandedIn {
    fn new(request: &Bound<'_, PyAny>, ids: Bound<'_, PyTuple>) -> Self {
        Self {
            request: request.clone().unbind(),
            ids: ids.unbind(),
            error: None,
        }
    }
}

impl PythonSide {
    /// Keeps what was read; returns its index.
    fn read(&mut self, handed_in: HandedIn) -> usize {
        let index = self.read;
        self.read += 1;
        self.handed_in.insert(index, handed_in);
        index
    }

    fn stop(&mut self) {
        self.is_stopped = true;
        if self.is_of_this_process()
            && let Some(shared) = self.shared()
        {
            shared.stop.notify_one();
        }
    }

    fn shared(&self) -> Option<&Arc<Shared>> {
        self.running.as_ref().map(|running| &running.own.shared)
    }

    fn is_of_this_process(&self) -> bool {
        self.running
            .as_ref()
            .is_none_or(|running| running.process == process::id())
    }

    /// `total_timeout` and a stop make the core read no more.
    fn is_reading(&self) -> bool {
        self.is_of_this_process()
            && self.running.as_ref().is_some_and(|running| {
                let requests = running.own.requests.as_ref();
                requests.is_some_and(|requests| !requests.is_closed())
            })
    }

    fn end_reading(&mut self) {
        self.is_all_read = true;
        if self.is_of_this_process()
            && let Some(running) = &mut self.running
        {
            running.own.requests = None;
        }
    }
}

struct Busy<'a>(&'a AtomicBool);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn item<'py>(
    py: Python<'py>,
    index: usize,
    request: Py<PyAny>,
    outcome: Option<Bound<'py, PyAny>>,
    error: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let item = items::Item {
        index,
        request,
        outcome: outcome.map(Bound::unbind),
        error: error.map(Bound::unbind),
    };
    Bound::new(py, item).map(Bound::into_any)
}

/// Each id once.
fn not_attempted(user_ids: Vec<String>) -> UserIds {
    let refused = binding::refused(binding::invalid_input("", "", ""), user_ids);
    refused.users().clone()
}

fn broken() -> PyErr {
    PyRuntimeError::new_err("a bug in feishu_feed_card: the calls ended without a result")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
