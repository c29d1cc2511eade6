//! What the core reports with `tracing`, on its way to Python's `logging`.
//!
//! The runtime's threads never take the GIL: they put records into a queue, which one thread of Python's
//! empties. There is no subscriber, and so no cost, until somebody wants records: see [`look`].

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use feishu_feed_card::binding::reports::{Fields, Listener, Spans, Subscriber, TraceReport, Value, What};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList};
use tracing::Level;
use tracing::level_filters::LevelFilter;

use crate::process::PerProcess;

/// Records that wait for Python at most; more are dropped, and counted. A call at its most talkative
/// makes ten.
const MOST_WAITING: usize = 10_000;

/// Above every level of `logging`.
const OFF: usize = usize::MAX;

static LOG: PerProcess<Log> = PerProcess::new();

fn log() -> &'static Log {
    let log = LOG.get_or_try_init(|| Ok::<_, std::convert::Infallible>(Log::default()));
    match log {
        Ok(log) => log,
    }
}

struct Log {
    /// What `logging` lets through now.
    threshold: AtomicUsize,
    has_thread: AtomicBool,
    queue: Mutex<LogQueue>,
    filled: Condvar,
    spans: Spans,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            threshold: AtomicUsize::new(OFF),
            has_thread: AtomicBool::new(false),
            queue: Mutex::default(),
            filled: Condvar::new(),
            spans: Spans::default(),
        }
    }
}

#[derive(Default)]
struct LogQueue {
    records: VecDeque<LogRecord>,
    dropped: usize,
    is_closed: bool,
    /// The handlers have had every record.
    is_done: bool,
}

struct LogRecord {
    level: usize,
    at: SystemTime,
    message: String,
    fields: Fields,
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

impl Log {
    fn put(&self, record: LogRecord) {
        let mut queue = lock(&self.queue);
        if queue.is_closed {
            return;
        }
        if queue.records.len() < MOST_WAITING {
            queue.records.push_back(record);
        } else {
            queue.dropped += 1;
        }
        drop(queue);
        self.filled.notify_one();
    }
}

/// It has no state of its own, for the sake of forks.
struct Tap;

impl Listener for Tap {
    fn level(&self) -> LevelFilter {
        match log().threshold.load(Ordering::Relaxed) {
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

    fn hear(&self, report: TraceReport<'_>) {
        let message = match report.what {
            What::Event(message) => message,
            What::Begins(name) => format!("{name} begins"),
            // Its last record said how.
            What::Ended(..) => return,
        };
        log().put(LogRecord {
            level: level_of(report.level),
            at: SystemTime::now(),
            message,
            fields: report.fields,
        });
    }
}

/// Looks whether anybody wants records: the program has imported `logging`, and a handler would see them.
/// Called when a client is made and when a call begins.
pub(crate) fn look(py: Python<'_>) {
    // A program's own logger class may raise; a call is not to fail of that.
    if let Err(error) = threshold(py).and_then(|threshold| set_threshold(py, threshold)) {
        error.write_unraisable(py, None);
    }
}

/// The package's logger, and the root; a name without a dot has no others above it.
struct Loggers {
    own: Py<PyAny>,
    root: Py<PyAny>,
}

fn threshold(py: Python<'_>) -> PyResult<usize> {
    static LOGGERS: PyOnceLock<Loggers> = PyOnceLock::new();
    let loggers = if let Some(loggers) = LOGGERS.get(py) {
        loggers
    } else {
        let Some(loggers) = Loggers::find(py)? else {
            return Ok(OFF);
        };
        LOGGERS.get_or_init(py, || loggers)
    };
    let (own, root) = (loggers.own.bind(py), loggers.root.bind(py));
    let has_handler = |logger: &Bound<'_, PyAny>| {
        let handlers = logger.getattr(intern!(py, "handlers"))?;
        PyResult::Ok(!handlers.cast::<PyList>()?.is_empty())
    };
    let is_heard =
        has_handler(own)? || (has_handler(root)? && own.getattr(intern!(py, "propagate"))?.is_truthy()?);
    if !is_heard || own.getattr(intern!(py, "disabled"))?.is_truthy()? {
        return Ok(OFF);
    }
    match own.getattr(intern!(py, "level"))?.extract()? {
        0 => root.getattr(intern!(py, "level"))?.extract(),
        level => Ok(level),
    }
}

impl Loggers {
    /// `None` where the program has not imported `logging`.
    fn find(py: Python<'_>) -> PyResult<Option<Self>> {
        static MODULES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
        let modules = MODULES.import(py, "sys", "modules")?;
        let Some(logging) = modules.get_item(intern!(py, "logging"))? else {
            return Ok(None);
        };
        // Another thread may be half-way through importing it: the function comes after all it needs.
        let Some(get_logger) = logging.getattr_opt(intern!(py, "getLogger"))? else {
            return Ok(None);
        };
        Ok(Some(Self {
            own: get_logger.call1((intern!(py, "feishu_feed_card"),))?.unbind(),
            root: get_logger.call0()?.unbind(),
        }))
    }
}

fn set_threshold(py: Python<'_>, threshold: usize) -> PyResult<()> {
    static IS_LISTENING: AtomicBool = AtomicBool::new(false);
    if threshold == OFF && LOG.get().is_none() {
        return Ok(());
    }
    let log = log();
    if threshold != OFF && !log.has_thread.swap(true, Ordering::AcqRel) {
        let started = py
            .import("feishu_feed_card._logging")
            .and_then(|logging| logging.call_method0("start"));
        if let Err(error) = started {
            // The system may have no thread or descriptor left: the next call tries again.
            log.has_thread.store(false, Ordering::Release);
            return Err(error);
        }
    }
    if log.threshold.swap(threshold, Ordering::AcqRel) == threshold {
        return Ok(());
    }
    if IS_LISTENING.swap(true, Ordering::AcqRel) {
        tracing::callsite::rebuild_interest_cache();
    } else {
        // Nobody else sets one for this library's own copy of `tracing`.
        let _ = tracing::subscriber::set_global_default(Subscriber(Tap));
    }
    Ok(())
}

/// Waits for records: of each its level, when it was made, its message and its fields; and how many were
/// dropped since the last time. `None` when the log is closed, and nothing is left in it.
#[pyfunction]
#[allow(clippy::type_complexity, reason = "it is what Python unpacks")]
pub(crate) fn next_log_records(py: Python<'_>) -> PyResult<Option<(Bound<'_, PyList>, usize)>> {
    let taken = py.detach(|| {
        let log = log();
        let mut queue = lock(&log.queue);
        loop {
            if !queue.records.is_empty() || queue.dropped > 0 {
                return Some((mem::take(&mut queue.records), mem::take(&mut queue.dropped)));
            }
            if queue.is_closed {
                queue.is_done = true;
                log.filled.notify_all();
                return None;
            }
            queue = log.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    });
    let Some((records, dropped)) = taken else {
        return Ok(None);
    };
    let list = PyList::empty(py);
    for record in records {
        let fields = PyDict::new(py);
        for (name, value) in record.fields {
            match value {
                Value::Text(text) => fields.set_item(name, text)?,
                Value::Flag(flag) => fields.set_item(name, flag)?,
                Value::Whole(number) => fields.set_item(name, number)?,
                Value::Count(number) => fields.set_item(name, number)?,
                Value::Number(number) => fields.set_item(name, number)?,
            }
        }
        let at = record.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        list.append((record.level, at.as_secs_f64(), record.message, fields))?;
    }
    Ok(Some((list, dropped)))
}

/// Takes no more records, as the interpreter is about to end, and waits until the handlers have had those that
/// are there, so many seconds at most. It waits here because under gevent Python's own waits would need the hub.
#[pyfunction]
pub(crate) fn close_log(py: Python<'_>, seconds: f64) {
    py.detach(|| {
        let log = log();
        let mut queue = lock(&log.queue);
        queue.is_closed = true;
        log.filled.notify_all();
        let most = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let waited = log.filled.wait_timeout_while(queue, most, |queue| !queue.is_done);
        drop(waited);
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
