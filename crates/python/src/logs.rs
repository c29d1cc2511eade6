//! What the core reports with `tracing`, on its way to Python's `logging`.
//!
//! The runtime's threads never take the GIL: they put records into a queue, which one thread of Python's
//! empties. There is no subscriber, and so no cost, until somebody wants records: see [`look`].

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record as Values};
use tracing::subscriber::{Interest, Subscriber};
use tracing::{Event, Level, Metadata};

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
    queue: Mutex<Queue>,
    filled: Condvar,
    spans: Mutex<HashMap<u64, Span>>,
    last_span: AtomicU64,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            threshold: AtomicUsize::new(OFF),
            has_thread: AtomicBool::new(false),
            queue: Mutex::default(),
            filled: Condvar::new(),
            spans: Mutex::default(),
            last_span: AtomicU64::new(0),
        }
    }
}

#[derive(Default)]
struct Queue {
    records: VecDeque<Record>,
    dropped: usize,
    is_closed: bool,
}

struct Record {
    level: usize,
    at: SystemTime,
    message: String,
    fields: Fields,
}

type Fields = Vec<(&'static str, Value)>;

#[derive(Clone, IntoPyObject)]
enum Value {
    Text(String),
    Flag(bool),
    Whole(i64),
    Count(u64),
    Number(f64),
}

struct Span {
    fields: Fields,
    parent: Option<u64>,
    holders: usize,
}

thread_local! {
    /// The spans that this thread is in, the innermost last.
    static INSIDE: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// A level as `logging` counts; it has nothing below DEBUG.
fn level_of(metadata: &Metadata<'_>) -> usize {
    match *metadata.level() {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG | Level::TRACE => 10,
    }
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    target
        .strip_prefix("feishu_feed_card")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

impl Log {
    fn lets_through(&self, level: usize) -> bool {
        level >= self.threshold.load(Ordering::Relaxed)
    }

    fn put(&self, record: Record) {
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

    /// Adds the fields of a span, and of those around it.
    fn with_context(&self, mut fields: Fields, span: Option<u64>) -> Fields {
        let spans = lock(&self.spans);
        let mut next = span;
        while let Some(span) = next.and_then(|span| spans.get(&span)) {
            for (name, value) in &span.fields {
                if fields.iter().all(|(known, _)| known != name) {
                    fields.push((name, value.clone()));
                }
            }
            next = span.parent;
        }
        fields
    }
}

/// The subscriber: it has no state of its own, for the sake of forks.
struct Tap;

impl Subscriber for Tap {
    /// Asked once for each place in the code, and again when the threshold changes.
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    /// Spans say to which call a record belongs, whatever the record's level.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let threshold = log().threshold.load(Ordering::Relaxed);
        is_ours(metadata) && threshold != OFF && (metadata.is_span() || level_of(metadata) >= threshold)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let is_off = log().threshold.load(Ordering::Relaxed) == OFF;
        Some(if is_off {
            LevelFilter::OFF
        } else {
            LevelFilter::TRACE
        })
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let log = log();
        let metadata = attributes.metadata();
        let mut fields = Reading::default();
        attributes.record(&mut fields);
        let parent = if attributes.is_contextual() {
            current()
        } else {
            attributes.parent().map(Id::into_u64)
        };
        if log.lets_through(level_of(metadata)) {
            log.put(Record {
                level: level_of(metadata),
                at: SystemTime::now(),
                message: format!("{} begins", metadata.name()),
                fields: log.with_context(fields.fields.clone(), parent),
            });
        }
        let number = log.last_span.fetch_add(1, Ordering::Relaxed) + 1;
        let span = Span {
            fields: fields.fields,
            parent,
            holders: 1,
        };
        lock(&log.spans).insert(number, span);
        Id::from_u64(number)
    }

    fn record(&self, span: &Id, values: &Values<'_>) {
        let mut fields = Reading::default();
        values.record(&mut fields);
        if let Some(span) = lock(&log().spans).get_mut(&span.into_u64()) {
            span.fields.extend(fields.fields);
        }
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let log = log();
        let level = level_of(event.metadata());
        if !log.lets_through(level) {
            return;
        }
        let mut fields = Reading::default();
        event.record(&mut fields);
        log.put(Record {
            level,
            at: SystemTime::now(),
            message: fields.message,
            fields: log.with_context(fields.fields, current()),
        });
    }

    fn enter(&self, span: &Id) {
        INSIDE.with_borrow_mut(|inside| inside.push(span.into_u64()));
    }

    fn exit(&self, span: &Id) {
        INSIDE.with_borrow_mut(|inside| {
            if let Some(place) = inside.iter().rposition(|number| *number == span.into_u64()) {
                inside.remove(place);
            }
        });
    }

    fn clone_span(&self, span: &Id) -> Id {
        if let Some(span) = lock(&log().spans).get_mut(&span.into_u64()) {
            span.holders += 1;
        }
        span.clone()
    }

    fn try_close(&self, span: Id) -> bool {
        let mut spans = lock(&log().spans);
        let is_last = spans.get_mut(&span.into_u64()).is_some_and(|span| {
            span.holders -= 1;
            span.holders == 0
        });
        if is_last {
            spans.remove(&span.into_u64());
        }
        is_last
    }
}

fn current() -> Option<u64> {
    INSIDE.with_borrow(|inside| inside.last().copied())
}

/// The fields of an event or a span, and its message.
#[derive(Default)]
struct Reading {
    message: String,
    fields: Fields,
}

impl Visit for Reading {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.fields.push((field.name(), Value::Text(text)));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.push((field.name(), Value::Text(value.to_owned())));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), Value::Flag(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), Value::Whole(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), Value::Count(value)));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.push((field.name(), Value::Number(value)));
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
        py.import("feishu_feed_card._logging")?.call_method0("start")?;
    }
    if log.threshold.swap(threshold, Ordering::AcqRel) == threshold {
        return Ok(());
    }
    if IS_LISTENING.swap(true, Ordering::AcqRel) {
        tracing::callsite::rebuild_interest_cache();
    } else {
        // Nobody else sets one for this library's own copy of `tracing`.
        let _ = tracing::subscriber::set_global_default(Tap);
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
            fields.set_item(name, value)?;
        }
        let at = record.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        list.append((record.level, at.as_secs_f64(), record.message, fields))?;
    }
    Ok(Some((list, dropped)))
}

/// Takes no more records: the interpreter is about to end.
#[pyfunction]
pub(crate) fn close_log() {
    let log = log();
    lock(&log.queue).is_closed = true;
    log.filled.notify_all();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
