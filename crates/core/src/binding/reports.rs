//! Passes the core's `tracing` output to a binding, as reports. A report is an event, or the start or end of a span,
//! with the fields of the spans around it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata};

/// The target of the core's modules. Other targets are left out, because nobody has checked what libraries log for
/// secrets.
pub const TARGET: &str = "feishu_feed_card";

/// Number of the last span of any subscriber. The numbers are shared, so that a subscriber does not take another's span
/// for its own.
static LAST_SPAN: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The spans that this thread has entered, the innermost last.
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Receives reports, on the thread that makes them.
pub trait Listener: Send + Sync + 'static {
    /// The most verbose level to report. tracing caches it for each place in the code, until
    /// [`tracing::callsite::rebuild_interest_cache`].
    fn level(&self) -> LevelFilter;

    /// The open spans. The listener keeps them so that it can replace them after a fork, when a thread that exists only
    /// in the parent may hold their lock.
    fn spans(&self) -> &Spans;

    /// Receives one report.
    fn receive(&self, report: TraceReport<'_>);
}

/// The spans that are open.
#[derive(Debug, Default)]
pub struct Spans(Mutex<HashMap<u64, Span>>);

#[derive(Debug)]
struct Span {
    /// Its own fields, and those of the spans around it.
    fields: Fields,
    /// Number of handles to this span.
    handles: usize,
    started: Instant,
    metadata: &'static Metadata<'static>,
}

/// An event, or the start or end of a span.
#[derive(Debug)]
pub struct TraceReport<'a> {
    /// The level of the event or the span.
    pub level: Level,
    /// An event, or the start or end of a span.
    pub kind: TraceKind<'a>,
    /// The fields of the event or the span, and those of the spans around it. `call` is the number of its call.
    pub fields: Fields,
}

/// The kind of a report.
#[derive(Debug)]
pub enum TraceKind<'a> {
    /// An event with this message.
    Event(String),
    /// The span with this name started.
    SpanStarted(&'a str),
    /// The span with this name ended, after this time.
    SpanEnded(&'a str, Duration),
}

/// Names in the core's spelling, and their values.
pub type Fields = Vec<(&'static str, Value)>;

/// A field's value.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the types of tracing's values")]
pub enum Value {
    Text(String),
    Flag(bool),
    Whole(i64),
    Count(u64),
    Number(f64),
}

/// A subscriber that passes the core's reports to a [`Listener`], and drops all others.
#[derive(Debug)]
pub struct Subscriber<L>(pub L);

impl<L: Listener> Subscriber<L> {
    fn is_reported(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.0.level()
    }

    fn report(&self, metadata: &Metadata<'_>, kind: TraceKind<'_>, fields: Fields) {
        self.0.receive(TraceReport {
            level: *metadata.level(),
            kind,
            fields,
        });
    }
}

impl Spans {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Span>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the value of a field of the spans that this thread has entered.
    pub fn value(&self, field: &str) -> Option<Value> {
        let fields = self.around(Vec::new());
        fields
            .into_iter()
            .find_map(|(name, value)| (name == field).then_some(value))
    }

    /// Adds the fields of the innermost span that this thread has entered. Of several fields of the same name, the
    /// innermost counts.
    fn around(&self, mut fields: Fields) -> Fields {
        let spans = self.lock();
        let span = ENTERED.with_borrow(|entered| entered.iter().rev().find_map(|number| spans.get(number)));
        for (name, value) in span.into_iter().flat_map(|span| &span.fields) {
            if fields.iter().all(|(known, _)| known != name) {
                fields.push((name, value.clone()));
            }
        }
        fields
    }
}

impl<L: Listener> tracing::Subscriber for Subscriber<L> {
    /// Enables spans at every level, because their fields show to which call a report belongs.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let rest = metadata.target().strip_prefix(TARGET);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            && self.0.level() != LevelFilter::OFF
            && (metadata.is_span() || self.is_reported(metadata))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.0.level() {
            LevelFilter::OFF => LevelFilter::OFF,
            _ => LevelFilter::TRACE,
        })
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let metadata = attributes.metadata();
        let mut collected = Collected::default();
        attributes.record(&mut collected);
        let fields = self.0.spans().around(collected.fields);
        let number = LAST_SPAN.fetch_add(1, Ordering::Relaxed) + 1;
        if self.is_reported(metadata) {
            self.report(metadata, TraceKind::SpanStarted(metadata.name()), fields.clone());
        }
        let span = Span {
            fields,
            handles: 1,
            started: Instant::now(),
            metadata,
        };
        self.0.spans().lock().insert(number, span);
        Id::from_u64(number)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let mut collected = Collected::default();
        values.record(&mut collected);
        if let Some(span) = self.0.spans().lock().get_mut(&id.into_u64()) {
            span.fields.append(&mut collected.fields);
        }
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        // A thread may still have the cached interest from before the level changed.
        if !self.is_reported(event.metadata()) {
            return;
        }
        let mut collected = Collected::default();
        event.record(&mut collected);
        let fields = self.0.spans().around(collected.fields);
        self.report(event.metadata(), TraceKind::Event(collected.message), fields);
    }

    fn enter(&self, id: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(id.into_u64()));
    }

    fn exit(&self, id: &Id) {
        ENTERED.with_borrow_mut(|entered| {
            if let Some(place) = entered.iter().rposition(|number| *number == id.into_u64()) {
                entered.remove(place);
            }
        });
    }

    fn clone_span(&self, id: &Id) -> Id {
        if let Some(span) = self.0.spans().lock().get_mut(&id.into_u64()) {
            span.handles += 1;
        }
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let closed = {
            let spans = &mut *self.0.spans().lock();
            let Some(span) = spans.get_mut(&id.into_u64()) else {
                return false;
            };
            span.handles -= 1;
            if span.handles > 0 {
                return false;
            }
            spans.remove(&id.into_u64())
        };
        if let Some(Span {
            fields,
            started,
            metadata,
            ..
        }) = closed
            && self.is_reported(metadata)
        {
            self.report(
                metadata,
                TraceKind::SpanEnded(metadata.name(), started.elapsed()),
                fields,
            );
        }
        true
    }
}

/// Collects the fields of an event or a span, and the message of an event.
#[derive(Default)]
struct Collected {
    message: String,
    fields: Fields,
}

impl Visit for Collected {
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
