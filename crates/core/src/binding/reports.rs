//! What the core says with `tracing`, put together for a binding: a report is an event, or the begin or end of a
//! span, with the fields of the spans around it.

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

/// What the core's modules begin with; a library below it may say what nobody has looked at for secrets.
pub const TARGET: &str = "feishu_feed_card";

/// Of all subscribers, so that one does not take another's span for its own.
static LAST_SPAN: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The spans that this thread is in, the innermost last.
    static INSIDE: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Hears reports, on whatever thread they are made.
pub trait Listener: Send + Sync + 'static {
    /// The least level that is wanted. Asked once for each place in the code, until
    /// [`tracing::callsite::rebuild_interest_cache`].
    fn level(&self) -> LevelFilter;

    /// Where the spans are kept: not here, as after a fork a lock may be held by a thread that is gone.
    fn spans(&self) -> &Spans;

    /// Hears one report.
    fn hear(&self, report: TraceReport<'_>);
}

/// The spans that are open.
#[derive(Debug, Default)]
pub struct Spans(Mutex<HashMap<u64, Span>>);

#[derive(Debug)]
struct Span {
    /// Its own, and those of the spans around it.
    fields: Fields,
    holders: usize,
    began: Instant,
    metadata: &'static Metadata<'static>,
}

/// Something that happened.
#[derive(Debug)]
pub struct TraceReport<'a> {
    /// How much it matters.
    pub level: Level,
    /// What happened.
    pub what: What<'a>,
    /// Its own fields, and those of the spans around it; `call` is the number of the call it belongs to.
    pub fields: Fields,
}

/// What happened.
#[derive(Debug)]
pub enum What<'a> {
    /// What the message says.
    Event(String),
    /// This span began.
    Begins(&'a str),
    /// This span ended, after so long.
    Ended(&'a str, Duration),
}

/// Names, as the core has them, and values.
pub type Fields = Vec<(&'static str, Value)>;

/// A field's value.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "what tracing has, by its type")]
pub enum Value {
    Text(String),
    Flag(bool),
    Whole(i64),
    Count(u64),
    Number(f64),
}

/// A subscriber that has a [`Listener`] hear the core's reports, and nobody else's.
#[derive(Debug)]
pub struct Subscriber<L>(pub L);

impl<L: Listener> Subscriber<L> {
    fn hears(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.0.level()
    }

    fn tell(&self, metadata: &Metadata<'_>, what: What<'_>, fields: Fields) {
        self.0.hear(TraceReport {
            level: *metadata.level(),
            what,
            fields,
        });
    }
}

impl Spans {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Span>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Value of a field of the spans that this thread is in.
    pub fn value(&self, field: &str) -> Option<Value> {
        let fields = self.around(Vec::new());
        fields
            .into_iter()
            .find_map(|(name, value)| (name == field).then_some(value))
    }

    /// Adds the fields of the innermost span that this thread is in; a nearer one of the same name counts.
    fn around(&self, mut fields: Fields) -> Fields {
        let spans = self.lock();
        let span = INSIDE.with_borrow(|inside| inside.iter().rev().find_map(|number| spans.get(number)));
        for (name, value) in span.into_iter().flat_map(|span| &span.fields) {
            if fields.iter().all(|(known, _)| known != name) {
                fields.push((name, value.clone()));
            }
        }
        fields
    }
}

impl<L: Listener> tracing::Subscriber for Subscriber<L> {
    /// A span says to which call a report belongs, whatever the report's level.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let rest = metadata.target().strip_prefix(TARGET);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            && self.0.level() != LevelFilter::OFF
            && (metadata.is_span() || self.hears(metadata))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.0.level() {
            LevelFilter::OFF => LevelFilter::OFF,
            _ => LevelFilter::TRACE,
        })
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let metadata = attributes.metadata();
        let mut seen = Seen::default();
        attributes.record(&mut seen);
        let fields = self.0.spans().around(seen.fields);
        let number = LAST_SPAN.fetch_add(1, Ordering::Relaxed) + 1;
        if self.hears(metadata) {
            self.tell(metadata, What::Begins(metadata.name()), fields.clone());
        }
        let span = Span {
            fields,
            holders: 1,
            began: Instant::now(),
            metadata,
        };
        self.0.spans().lock().insert(number, span);
        Id::from_u64(number)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let mut seen = Seen::default();
        values.record(&mut seen);
        if let Some(span) = self.0.spans().lock().get_mut(&id.into_u64()) {
            span.fields.append(&mut seen.fields);
        }
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        // A thread may still have the interest of before the level was raised.
        if !self.hears(event.metadata()) {
            return;
        }
        let mut seen = Seen::default();
        event.record(&mut seen);
        let fields = self.0.spans().around(seen.fields);
        self.tell(event.metadata(), What::Event(seen.message), fields);
    }

    fn enter(&self, id: &Id) {
        INSIDE.with_borrow_mut(|inside| inside.push(id.into_u64()));
    }

    fn exit(&self, id: &Id) {
        INSIDE.with_borrow_mut(|inside| {
            if let Some(place) = inside.iter().rposition(|number| *number == id.into_u64()) {
                inside.remove(place);
            }
        });
    }

    fn clone_span(&self, id: &Id) -> Id {
        if let Some(span) = self.0.spans().lock().get_mut(&id.into_u64()) {
            span.holders += 1;
        }
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let closed = {
            let spans = &mut *self.0.spans().lock();
            let Some(span) = spans.get_mut(&id.into_u64()) else {
                return false;
            };
            span.holders -= 1;
            if span.holders > 0 {
                return false;
            }
            spans.remove(&id.into_u64())
        };
        if let Some(Span {
            fields,
            began,
            metadata,
            ..
        }) = closed
            && self.hears(metadata)
        {
            self.tell(metadata, What::Ended(metadata.name(), began.elapsed()), fields);
        }
        true
    }
}

/// The fields of an event or a span, and its message.
#[derive(Default)]
struct Seen {
    message: String,
    fields: Fields,
}

impl Visit for Seen {
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
