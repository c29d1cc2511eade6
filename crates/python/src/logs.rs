//! What the core reports with `tracing`, on its way to Python's `logging` and to a call's `on_event`.
//!
//! The runtime's thread never takes the GIL: it leaves reports where their caller finds them. A blocking call handles
//! its own while it waits and before it returns, an event loop when it is woken. Reports without a call, and reports made
//! after their call ended, wait in the background until the next call or [`flush_logs`]. Unhandled reports of a cancelled
//! call are dropped. There is no subscriber, and so no cost, until somebody listens: see [`look`].

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use feishu_feed_card::binding::reports::{Fields, Listener, Spans, Subscriber, TraceReport, Value, What};
use pyo3::PyTraverseError;
use pyo3::exceptions::PyException;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use tracing::instrument::Instrumented;
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, Level};

use crate::loops::Mailbox;
use crate::process::{PerProcess, modules};

/// Maximum number of waiting reports, for each blocking call and for the background. Further ones are dropped and counted.
/// One call makes about ten at most. The mailbox of an event loop is not limited.
const MOST_WAITING: usize = 10_000;

/// Above every level of `logging`.
const OFF: usize = usize::MAX;

/// Name of the span around a call that somebody listens to, and of its field with the listener's number.
const CONTEXT: &str = "context";

static LOG: PerProcess<Log> = PerProcess::new();

fn log() -> &'static Log {
    let log = LOG.get_or_try_init(|| Ok::<_, Infallible>(Log::default()));
    match log {
        Ok(log) => log,
    }
}

struct Log {
    /// What `logging` lets through now.
    threshold: AtomicUsize,
    /// How many calls under way have an `on_event`.
    events_wanted: AtomicUsize,
    /// Held while one of the two changes.
    changing: Mutex<()>,
    spans: Spans,
    last_listener: AtomicU64,
    /// Where the reports of calls under way go, by their listener.
    destinations: Mutex<HashMap<u64, Destination>>,
    background: Mutex<Reports>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            threshold: AtomicUsize::new(OFF),
            events_wanted: AtomicUsize::new(0),
            changing: Mutex::default(),
            spans: Spans::default(),
            last_listener: AtomicU64::new(0),
            destinations: Mutex::default(),
            background: Mutex::default(),
        }
    }
}

#[derive(Clone)]
enum Destination {
    /// A thread that looks there.
    Thread(Arc<Mutex<Reports>>),
    /// An event loop, which is woken for a call of this number.
    Loop(Arc<Mailbox>, u64),
}

#[derive(Default)]
struct Reports {
    waiting: VecDeque<Report>,
    dropped: usize,
}

impl Reports {
    fn put(&mut self, report: Report) {
        if self.waiting.len() < MOST_WAITING {
            self.waiting.push_back(report);
        } else {
            self.dropped += 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.dropped == 0
    }
}

pub(crate) struct Report {
    level: Level,
    at: SystemTime,
    what: Happened,
    fields: Fields,
    /// Below the level of `logging`, it is for `on_event` only.
    is_logged: bool,
}

enum Happened {
    Event(String),
    Begun(String),
    /// With how many seconds the span took.
    Ended(String, f64),
}

/// A level as `logging` counts; it has nothing below DEBUG.
fn level_of(level: Level) -> usize {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG | Level::TRACE => 10,
    }
}

/// It has no state of its own, for the sake of forks.
struct Tap;

impl Listener for Tap {
    fn level(&self) -> LevelFilter {
        let log = log();
        if log.events_wanted.load(Ordering::Relaxed) > 0 {
            return LevelFilter::TRACE;
        }
        match log.threshold.load(Ordering::Relaxed) {
            0..=10 => LevelFilter::TRACE,
            11..=20 => LevelFilter::INFO,
            21..=30 => LevelFilter::WARN,
            31..=40 => LevelFilter::ERROR,
            _ => LevelFilter::OFF,
        }
    }

    fn spans(&self) -> &Spans {
        &log().spans
    }

    fn hear(&self, mut report: TraceReport<'_>) {
        let what = match report.what {
            What::Begins(CONTEXT) | What::Ended(CONTEXT, _) => return,
            What::Event(message) => Happened::Event(message),
            What::Begins(name) => Happened::Begun(name.to_owned()),
            What::Ended(name, took) => Happened::Ended(name.to_owned(), took.as_secs_f64()),
        };
        let mut listener = None;
        report.fields.retain(|(name, value)| match value {
            Value::Count(number) if *name == CONTEXT => {
                listener = Some(*number);
                false
            }
            _ => true,
        });
        let log = log();
        // Do not log the end of a span: its last event has reported the result.
        let is_logged = level_of(report.level) >= log.threshold.load(Ordering::Relaxed)
            && !matches!(what, Happened::Ended(..));
        let destination = listener.and_then(|listener| lock(&log.destinations).get(&listener).cloned());
        if destination.is_none() && !is_logged {
            return;
        }
        let report = Report {
            level: report.level,
            at: SystemTime::now(),
            what,
            fields: report.fields,
            is_logged,
        };
        match destination {
            Some(Destination::Thread(reports)) => lock(&reports).put(report),
            Some(Destination::Loop(mailbox, call)) => mailbox.report(call, report),
            None => lock(&log.background).put(report),
        }
    }
}

/// Someone listens to a call: `logging`, or the call's `on_event`.
pub(crate) struct Listening {
    process: u64,
    number: u64,
    /// `None` if the reports go to an event loop.
    reports: Option<Arc<Mutex<Reports>>>,
    /// The caller's file, line and function.
    caller: Py<PyAny>,
    /// The context to handle the reports in; `None` for that of the thread that waits.
    context: Option<Py<PyAny>>,
    on_event: Option<Py<PyAny>>,
}

impl Listening {
    /// Returns `None` if nobody listens.
    pub(crate) fn of_thread(py: Python<'_>, on_event: Option<Py<PyAny>>) -> PyResult<Option<Self>> {
        if !is_listened_to(on_event.as_ref()) {
            return Ok(None);
        }
        let reports = Arc::<Mutex<Reports>>::default();
        let destination = Destination::Thread(reports.clone());
        Self::new(py, destination, Some(reports), None, on_event).map(Some)
    }

    /// Returns `None` if nobody listens. The reports are handled in a copy of the current context.
    pub(crate) fn of_loop(
        py: Python<'_>,
        mailbox: Arc<Mailbox>,
        call: u64,
        on_event: Option<Py<PyAny>>,
    ) -> PyResult<Option<Self>> {
        if !is_listened_to(on_event.as_ref()) {
            return Ok(None);
        }
        let context = copy_context(py)?;
        let destination = Destination::Loop(mailbox, call);
        Self::new(py, destination, None, Some(context), on_event).map(Some)
    }

    fn new(
        py: Python<'_>,
        destination: Destination,
        reports: Option<Arc<Mutex<Reports>>>,
        context: Option<Py<PyAny>>,
        on_event: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let caller = helpers(py)?.call_method0("caller")?.unbind();
        let log = log();
        let number = log.last_listener.fetch_add(1, Ordering::Relaxed) + 1;
        if on_event.is_some() {
            log.change(|log| log.events_wanted.fetch_add(1, Ordering::AcqRel) == 0);
        }
        lock(&log.destinations).insert(number, destination);
        Ok(Self {
            process: crate::process::id(),
            number,
            reports,
            caller,
            context,
            on_event,
        })
    }

    /// Has the reports of a call say that they belong to it.
    pub(crate) fn around<F: Future>(&self, call: F) -> Instrumented<F> {
        call.instrument(tracing::debug_span!(
            target: "feishu_feed_card::python",
            CONTEXT,
            context = self.number
        ))
    }

    /// Handles what has been reported to this thread. An error is an exception, such as `KeyboardInterrupt`, that
    /// must end the call.
    pub(crate) fn handle_reports(&self, py: Python<'_>) -> PyResult<()> {
        let Some(reports) = &self.reports else {
            return Ok(());
        };
        let reports = mem::take(&mut *lock(reports));
        self.handle(py, reports.waiting, reports.dropped)
    }

    pub(crate) fn handle(
        &self,
        py: Python<'_>,
        reports: impl IntoIterator<Item = Report>,
        dropped: usize,
    ) -> PyResult<()> {
        let mut records = Vec::new();
        let mut events = Vec::new();
        for report in reports {
            if self.on_event.is_some()
                && let Some(event) = report.event(py)?
            {
                events.push(event);
            }
            if report.is_logged {
                records.push(report.record(py)?);
            }
        }
        if let Some(on_event) = &self.on_event {
            let events = PyList::new(py, events)?.into_any();
            self.in_context(py, "call_on_event", vec![on_event.bind(py).clone(), events])?;
        }
        if records.is_empty() && dropped == 0 {
            return Ok(());
        }
        let records = PyList::new(py, records)?.into_any();
        let dropped = dropped.into_pyobject(py)?.into_any();
        self.in_context(py, "handle", vec![records, dropped, self.caller.bind(py).clone()])
    }

    /// Calls a function of `_logging`.
    fn in_context<'py>(
        &self,
        py: Python<'py>,
        function: &str,
        mut arguments: Vec<Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let function = helpers(py)?.getattr(function)?;
        match &self.context {
            None => function.call1(PyTuple::new(py, arguments)?),
            Some(context) => {
                arguments.insert(0, function);
                let run = context.bind(py).getattr("run")?;
                run.call1(PyTuple::new(py, arguments)?)
            }
        }
        .map(drop)
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.caller)?;
        visit.call(&self.context)?;
        visit.call(&self.on_event)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // A fork's child has a log of its own.
        if let Some(log) = LOG.get().filter(|_| self.process == crate::process::id()) {
            lock(&log.destinations).remove(&self.number);
            if self.on_event.is_some() {
                log.change(|log| log.events_wanted.fetch_sub(1, Ordering::AcqRel) == 1);
            }
        }
    }
}

impl Report {
    /// What `_logging.handle` takes.
    fn record<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let message = match &self.what {
            Happened::Event(message) => message.clone(),
            Happened::Begun(name) => format!("{name} begins"),
            Happened::Ended(name, _) => format!("{name} ended"),
        };
        let at = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let record = (level_of(self.level), at.as_secs_f64(), message, self.fields(py)?);
        Ok(record.into_pyobject(py)?.into_any())
    }

    /// What `on_event` receives. Returns `None` for the beginning of a span: its end is reported, with how long it took.
    fn event<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let event = self.fields(py)?;
        match &self.what {
            Happened::Begun(_) => return Ok(None),
            Happened::Event(message) => event.set_item("name", message)?,
            Happened::Ended(name, took) => {
                event.set_item("name", name)?;
                event.set_item("duration_s", took)?;
            }
        }
        event.set_item("level", self.level.as_str().to_ascii_lowercase())?;
        Ok(Some(event))
    }

    fn fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let fields = PyDict::new(py);
        for (name, value) in &self.fields {
            match value {
                Value::Text(text) => fields.set_item(name, text)?,
                Value::Flag(flag) => fields.set_item(name, flag)?,
                Value::Whole(number) => fields.set_item(name, number)?,
                Value::Count(number) => fields.set_item(name, number)?,
                Value::Number(number) => fields.set_item(name, number)?,
            }
        }
        Ok(fields)
    }
}

/// `feishu_feed_card._logging`, which is imported with the package.
fn helpers(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static HELPERS: PerProcess<Py<PyModule>> = PerProcess::new();
    HELPERS.import(py, "feishu_feed_card._logging")
}

fn is_listened_to(on_event: Option<&Py<PyAny>>) -> bool {
    let is_logged = LOG
        .get()
        .is_some_and(|log| log.threshold.load(Ordering::Relaxed) != OFF);
    is_logged || on_event.is_some()
}

/// A copy of the current context.
pub(crate) fn copy_context(py: Python<'_>) -> PyResult<Py<PyAny>> {
    static CONTEXTVARS: PerProcess<Py<PyModule>> = PerProcess::new();
    let context = CONTEXTVARS
        .import(py, "contextvars")?
        .call_method0("copy_context")?;
    Ok(context.unbind())
}

/// Handles what belongs to no call, or to one that has ended.
#[pyfunction]
pub(crate) fn flush_logs(py: Python<'_>) -> PyResult<()> {
    let Some(log) = LOG.get() else {
        return Ok(());
    };
    let reports = {
        let background = &mut *lock(&log.background);
        if background.is_empty() {
            return Ok(());
        }
        mem::take(background)
    };
    let helpers = helpers(py)?;
    let records: Vec<_> = reports
        .waiting
        .iter()
        .map(|report| report.record(py))
        .collect::<PyResult<_>>()?;
    let caller = helpers.call_method0("caller")?;
    let arguments = (PyList::new(py, records)?, reports.dropped, caller);
    helpers.call_method1("handle", arguments).map(drop)
}

/// Looks whether anybody wants records: the program has imported `logging`, and a handler would see them. Handles what
/// has been reported in the background. Called when a client is made, when a call begins, and when results are handed
/// out.
pub(crate) fn look(py: Python<'_>) -> PyResult<()> {
    match threshold(py) {
        Ok(threshold) => set_threshold(threshold),
        // A program's own logger class may raise; a call is not to fail because of that.
        Err(error) if error.is_instance_of::<PyException>(py) => error.write_unraisable(py, None),
        Err(error) => return Err(error),
    }
    flush_logs(py)
}

/// The package's logger, and the root; a name without a dot has no others above it.
struct Loggers {
    own: Py<PyAny>,
    root: Py<PyAny>,
}

fn threshold(py: Python<'_>) -> PyResult<usize> {
    static LOGGERS: PerProcess<Loggers> = PerProcess::new();
    let loggers = if let Some(loggers) = LOGGERS.get() {
        loggers
    } else {
        let Some(loggers) = Loggers::find(py)? else {
            return Ok(OFF);
        };
        // After `logging` has registered its own: the handlers still work when this runs.
        helpers(py)?.call_method0("flush_at_exit")?;
        LOGGERS.get_or_try_init(|| PyResult::Ok(loggers))?
    };
    let (own, root) = (loggers.own.bind(py), loggers.root.bind(py));
    let has_handler = |logger: &Bound<'_, PyAny>| {
        let handlers = logger.getattr("handlers")?;
        PyResult::Ok(!handlers.cast::<PyList>()?.is_empty())
    };
    let is_heard = has_handler(own)? || (has_handler(root)? && own.getattr("propagate")?.is_truthy()?);
    if !is_heard || own.getattr("disabled")?.is_truthy()? {
        return Ok(OFF);
    }
    match own.getattr("level")?.extract()? {
        0 => root.getattr("level")?.extract(),
        level => Ok(level),
    }
}

impl Loggers {
    /// `None` where the program has not imported `logging`.
    fn find(py: Python<'_>) -> PyResult<Option<Self>> {
        let Some(logging) = modules(py)?.get_item("logging")? else {
            return Ok(None);
        };
        // Another thread may be half-way through importing it: the function comes after all it needs.
        let Some(get_logger) = logging.getattr_opt("getLogger")? else {
            return Ok(None);
        };
        Ok(Some(Self {
            own: get_logger.call1(("feishu_feed_card",))?.unbind(),
            root: get_logger.call0()?.unbind(),
        }))
    }
}

fn set_threshold(threshold: usize) {
    if threshold == OFF && LOG.get().is_none() {
        return;
    }
    log().change(|log| log.threshold.swap(threshold, Ordering::AcqRel) != threshold);
}

/// Has `tracing` ask anew which reports are wanted.
fn listen() {
    static IS_LISTENING: AtomicBool = AtomicBool::new(false);
    if IS_LISTENING.swap(true, Ordering::AcqRel) {
        tracing::callsite::rebuild_interest_cache();
    } else {
        // Nobody else sets one for this library's own copy of `tracing`.
        let _ = tracing::subscriber::set_global_default(Subscriber(Tap));
    }
}

impl Log {
    /// Changes what is wanted. `change` returns whether `tracing` has to ask anew.
    fn change(&self, change: impl FnOnce(&Self) -> bool) {
        // Two threads at once: the last to ask must see what both have changed.
        let _changing = lock(&self.changing);
        if change(self) {
            listen();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
