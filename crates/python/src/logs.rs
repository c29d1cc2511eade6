//! Passes the core's `tracing` reports to Python's `logging` and to a call's `on_event`.
//!
//! The runtime's thread never takes the GIL, so it queues reports for their caller. A blocking call handles its reports
//! while it waits and before it returns; an event loop handles them when it is woken. Reports without a call, and reports
//! of a call that has ended, go to the background queue and wait until the next call or [`flush_logs`]. Unhandled reports
//! of a cancelled call are dropped. Without a log handler or `on_event` there is no subscriber, and so no overhead: see
//! [`refresh`].

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use feishu_feed_card::binding::reports::{
    Fields, Listener, Spans, Subscriber, TraceKind, TraceReport, Value,
};
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

/// Maximum number of waiting reports, for each blocking call and for the background queue. Further reports are dropped
/// and counted. One call makes about ten at most. The mailbox of an event loop has no limit.
const MOST_WAITING: usize = 10_000;

/// A threshold above all levels of `logging`.
const OFF: usize = usize::MAX;

/// Name of the span around a call with a listener, and of the span's field with the listener's number.
const CONTEXT: &str = "context";

static LOG: PerProcess<Log> = PerProcess::new();

fn log() -> &'static Log {
    let log = LOG.get_or_try_init(|| Ok::<_, Infallible>(Log::default()));
    match log {
        Ok(log) => log,
    }
}

struct Log {
    /// Lowest level that `logging` handles now.
    threshold: AtomicUsize,
    /// Number of calls in progress with an `on_event`.
    events_wanted: AtomicUsize,
    /// Locked while one of the two changes.
    changing: Mutex<()>,
    spans: Spans,
    last_listener: AtomicU64,
    /// Destinations of the reports of calls in progress, by the number of their listener.
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
    /// The queue of a thread that waits for a call.
    Thread(Arc<Mutex<Reports>>),
    /// The mailbox of an event loop, and the number of the call.
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
    kind: ReportKind,
    fields: Fields,
    /// False for a report below the level of `logging`, which goes to `on_event` only.
    is_logged: bool,
}

enum ReportKind {
    Event(String),
    Begun(String),
    /// The span's name, and its duration in seconds.
    Ended(String, f64),
}

/// Converts a level to that of `logging`, which has none below DEBUG.
fn level_of(level: Level) -> usize {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG | Level::TRACE => 10,
    }
}

/// The listener of the core's reports. It has no state, because it also exists in forked children.
struct ReportQueue;

impl Listener for ReportQueue {
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

    fn receive(&self, mut report: TraceReport<'_>) {
        let kind = match report.kind {
            TraceKind::SpanStarted(CONTEXT) | TraceKind::SpanEnded(CONTEXT, _) => return,
            TraceKind::Event(message) => ReportKind::Event(message),
            TraceKind::SpanStarted(name) => ReportKind::Begun(name.to_owned()),
            TraceKind::SpanEnded(name, took) => ReportKind::Ended(name.to_owned(), took.as_secs_f64()),
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
        // The end of a span is not logged, because the span's last event reports the result.
        let is_logged = level_of(report.level) >= log.threshold.load(Ordering::Relaxed)
            && !matches!(kind, ReportKind::Ended(..));
        let destination = listener.and_then(|listener| lock(&log.destinations).get(&listener).cloned());
        if destination.is_none() && !is_logged {
            return;
        }
        let report = Report {
            level: report.level,
            at: SystemTime::now(),
            kind,
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

/// Handles the reports of a call, for `logging` or the call's `on_event`.
pub(crate) struct CallListener {
    process: u64,
    number: u64,
    /// The queue of reports, or `None` if the reports go to an event loop.
    reports: Option<Arc<Mutex<Reports>>>,
    /// The caller's file, line and function.
    caller: Py<PyAny>,
    /// The context for the handlers, or `None` for the context of the waiting thread.
    context: Option<Py<PyAny>>,
    on_event: Option<Py<PyAny>>,
}

impl CallListener {
    /// Creates the listener of a blocking call. Returns `None` if there is neither a log handler nor `on_event`.
    pub(crate) fn of_thread(py: Python<'_>, on_event: Option<Py<PyAny>>) -> PyResult<Option<Self>> {
        if !is_listened_to(on_event.as_ref()) {
            return Ok(None);
        }
        let reports = Arc::<Mutex<Reports>>::default();
        let destination = Destination::Thread(reports.clone());
        Self::new(py, destination, Some(reports), None, on_event).map(Some)
    }

    /// Creates the listener of a call on an event loop. Returns `None` if there is neither a log handler nor `on_event`.
    /// The reports are handled in a copy of the current context.
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

    /// Wraps a call in a span with this listener's number, so that its reports go to this listener.
    pub(crate) fn around<F: Future>(&self, call: F) -> Instrumented<F> {
        call.instrument(tracing::debug_span!(
            target: "feishu_feed_card::python",
            CONTEXT,
            context = self.number
        ))
    }

    /// Handles the queued reports of a blocking call. Returns exceptions outside `Exception`, such as
    /// `KeyboardInterrupt`, which must end the call.
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

impl Drop for CallListener {
    fn drop(&mut self) {
        // A forked child has a separate log.
        if let Some(log) = LOG.get().filter(|_| self.process == crate::process::id()) {
            lock(&log.destinations).remove(&self.number);
            if self.on_event.is_some() {
                log.change(|log| log.events_wanted.fetch_sub(1, Ordering::AcqRel) == 1);
            }
        }
    }
}

impl Report {
    /// Converts a report to a record for `_logging.handle`.
    fn record<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let message = match &self.kind {
            ReportKind::Event(message) => message.clone(),
            ReportKind::Begun(name) => format!("{name} begins"),
            ReportKind::Ended(name, _) => format!("{name} ended"),
        };
        let at = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let record = (level_of(self.level), at.as_secs_f64(), message, self.fields(py)?);
        Ok(record.into_pyobject(py)?.into_any())
    }

    /// Converts a report to an event for `on_event`. Returns `None` for the beginning of a span, because the end of the
    /// span is reported, with its duration.
    fn event<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let event = self.fields(py)?;
        match &self.kind {
            ReportKind::Begun(_) => return Ok(None),
            ReportKind::Event(message) => event.set_item("name", message)?,
            ReportKind::Ended(name, took) => {
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

/// Returns the module `feishu_feed_card._logging`, which is imported together with the package.
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

/// Returns a copy of the current context.
pub(crate) fn copy_context(py: Python<'_>) -> PyResult<Py<PyAny>> {
    static CONTEXTVARS: PerProcess<Py<PyModule>> = PerProcess::new();
    let context = CONTEXTVARS
        .import(py, "contextvars")?
        .call_method0("copy_context")?;
    Ok(context.unbind())
}

/// Handles the reports in the background queue.
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

/// Updates the threshold: log records are wanted if the program has imported `logging` and a handler would get them. Then
/// handles the reports in the background queue. Called when a client is created, when a call starts, and when results of
/// many calls are taken.
pub(crate) fn refresh(py: Python<'_>) -> PyResult<()> {
    match threshold(py) {
        Ok(threshold) => set_threshold(threshold),
        // The program's logger class may raise an exception. The call must not fail because of it.
        Err(error) if error.is_instance_of::<PyException>(py) => error.write_unraisable(py, None),
        Err(error) => return Err(error),
    }
    flush_logs(py)
}

/// The package's logger and the root logger. There is no logger between them, because the name has no dot.
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
        // Registered after the `atexit` handler of `logging`, so it runs before it, while log handlers still work.
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
    /// Returns `None` if the program has not imported `logging`.
    fn find(py: Python<'_>) -> PyResult<Option<Self>> {
        let Some(logging) = modules(py)?.get_item("logging")? else {
            return Ok(None);
        };
        // Another thread may still be importing `logging`. `getLogger` is defined after everything that it needs.
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

/// Makes `tracing` evaluate again which reports are wanted.
fn listen() {
    static IS_LISTENING: AtomicBool = AtomicBool::new(false);
    if IS_LISTENING.swap(true, Ordering::AcqRel) {
        tracing::callsite::rebuild_interest_cache();
    } else {
        // Cannot fail: no other code sets a subscriber in this library's copy of `tracing`.
        let _ = tracing::subscriber::set_global_default(Subscriber(ReportQueue));
    }
}

impl Log {
    /// Changes which reports are wanted. `change` returns whether `tracing` must evaluate this again.
    fn change(&self, change: impl FnOnce(&Self) -> bool) {
        // If two threads change it at the same time, the last evaluation must see both changes.
        let _changing = lock(&self.changing);
        if change(self) {
            listen();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
