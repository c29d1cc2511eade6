//! What the core traces on one client's calls, handed to that client's `onEvent`.
//!
//! A subscriber for each client that asks, set around that client's calls alone: where no client asks
//! there is none in the process, and each trace is a look at one number.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::environment::Queue;

/// What the core's modules begin with; a library below it may trace what nobody has looked at for secrets.
const OURS: &str = "feishu_feed_card";

/// Of all subscribers, so that one does not take another's span for its own.
static LAST_SPAN: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The spans this thread is in, innermost last.
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Pushes one client's events onto the queue of the environment that the client was made in.
pub(crate) struct Events {
    queue: Arc<Queue>,
    client: i64,
    spans: Mutex<HashMap<u64, Span>>,
}

struct Span {
    /// Its own and those of the spans around it.
    fields: Fields,
    references: usize,
    began: Instant,
    metadata: &'static Metadata<'static>,
}

/// One event as the facade shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    name: &'a str,
    level: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<f64>,
    #[serde(flatten)]
    fields: &'a Map<String, Value>,
}

#[derive(Clone, Default)]
struct Fields {
    /// The event's text.
    message: String,
    named: Map<String, Value>,
}

impl Events {
    pub(crate) fn new(queue: Arc<Queue>, client: i64) -> Self {
        Self {
            queue,
            client,
            spans: Mutex::default(),
        }
    }

    fn spans(&self) -> MutexGuard<'_, HashMap<u64, Span>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fields of the innermost span that this thread is in.
    fn around(&self) -> Fields {
        let spans = self.spans();
        ENTERED.with_borrow(|entered| {
            let span = entered.iter().rev().find_map(|id| spans.get(id));
            span.map(|span| span.fields.clone()).unwrap_or_default()
        })
    }

    fn tell(
        &self,
        name: &str,
        metadata: &Metadata<'_>,
        duration_ms: Option<f64>,
        fields: &Map<String, Value>,
    ) {
        let told = Told {
            name,
            level: metadata.level().as_str().to_ascii_lowercase(),
            duration_ms,
            fields,
        };
        if let Ok(json) = serde_json::to_string(&told) {
            self.queue.tell(self.client, json);
        }
    }
}

impl Subscriber for Events {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with(OURS)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = self.around();
        span.record(&mut fields);
        let id = LAST_SPAN.fetch_add(1, Ordering::Relaxed) + 1;
        // The outermost is the call: by its number what belongs together is found.
        fields.named.entry("call").or_insert(id.into());
        let span = Span {
            fields,
            references: 1,
            began: Instant::now(),
            metadata: span.metadata(),
        };
        self.spans().insert(id, span);
        Id::from_u64(id)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        if let Some(span) = self.spans().get_mut(&id.into_u64()) {
            values.record(&mut span.fields);
        }
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = self.around();
        event.record(&mut fields);
        self.tell(&fields.message, event.metadata(), None, &fields.named);
    }

    fn enter(&self, id: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(id.into_u64()));
    }

    fn exit(&self, id: &Id) {
        ENTERED.with_borrow_mut(|entered| {
            if let Some(place) = entered.iter().rposition(|entered| *entered == id.into_u64()) {
                entered.remove(place);
            }
        });
    }

    fn clone_span(&self, id: &Id) -> Id {
        if let Some(span) = self.spans().get_mut(&id.into_u64()) {
            span.references += 1;
        }
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let closed = {
            let spans = &mut *self.spans();
            let Some(span) = spans.get_mut(&id.into_u64()) else {
                return false;
            };
            span.references -= 1;
            if span.references > 0 {
                return false;
            }
            spans.remove(&id.into_u64())
        };
        if let Some(span) = closed {
            let duration_ms = span.began.elapsed().as_secs_f64() * 1000.0;
            let name = span.metadata.name();
            self.tell(name, span.metadata, Some(duration_ms), &span.fields.named);
        }
        true
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.named.insert(in_javascript(field.name()), value);
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // Seconds, which JavaScript counts in milliseconds.
        let value = if field.name().ends_with("_s") {
            value * 1000.0
        } else {
            value
        };
        self.put(field, json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name().ends_with("_s") {
            self.put(field, json!(value * 1000));
        } else {
            self.put(field, value.into());
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.put(field, text.into());
        }
    }
}

/// `log_id` → `logId`, `wait_s` → `waitMs`.
fn in_javascript(name: &str) -> String {
    let name = name
        .strip_suffix("_s")
        .map_or_else(|| name.to_owned(), |name| format!("{name}_ms"));
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut text, word| {
        let mut letters = word.chars();
        text.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        text + letters.as_str()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing::Dispatch;
    use tracing::level_filters::LevelFilter;

    use super::{Events, in_javascript};

    #[test]
    fn nothing_is_traced_until_a_client_asks() {
        assert_eq!(LevelFilter::current(), LevelFilter::OFF);
        let asked = Dispatch::new(Events::new(Arc::default(), 1));
        assert_eq!(LevelFilter::current(), LevelFilter::TRACE);
        // Around that client's calls alone.
        assert!(!tracing::enabled!(target: super::OURS, tracing::Level::ERROR));
        tracing::dispatcher::with_default(&asked, || {
            assert!(tracing::enabled!(target: super::OURS, tracing::Level::TRACE));
            assert!(!tracing::enabled!(target: "hyper", tracing::Level::ERROR));
        });
    }

    #[test]
    fn names_are_those_of_javascript() {
        for (name, expected) in [
            ("attempt", "attempt"),
            ("log_id", "logId"),
            ("feed_card_id", "feedCardId"),
            ("wait_s", "waitMs"),
        ] {
            assert_eq!(in_javascript(name), expected);
        }
    }
}
