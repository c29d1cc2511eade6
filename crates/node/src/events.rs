//! Passes the core's reports of a client's calls to the `onEvent` of the client and of the calls.
//!
//! Each client with a listener has a subscriber, which is set only around its calls with a listener. Without a listener
//! there is no subscriber in the process, and a trace costs the check of one number.
//!
//! A span around each call, or around many calls, has the id of its context in the facade. Inner spans and events inherit
//! the id, also in tasks that the core starts, so that the facade runs callbacks in the call's async context.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use feishu_feed_card::binding::reports::{Listener, Spans, Subscriber, TraceKind, TraceReport, Value};
use serde_json::{Map, json};
use tracing::dispatcher::{get_default, with_default};
use tracing::instrument::{Instrumented, WithDispatch, WithSubscriber};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, Instrument, Span};

use crate::environment::Queue;
use crate::names::camel_case;

/// Pushes a client's events onto the queue of the client's environment.
pub(crate) struct Events {
    queue: Arc<Queue>,
    /// The client's listener, for events outside of calls, while the client is created.
    client: Option<i64>,
    spans: Spans,
    /// Number of open spans of each context.
    open: Mutex<HashMap<i64, usize>>,
}

/// The span and subscriber of a call, or of many calls, with a listener or token provider.
#[derive(Clone)]
pub(crate) struct CallContext {
    events: Dispatch,
    span: Span,
}

/// A second subscriber. With a single subscriber in the process, tracing caches for each trace whether the first thread
/// that reaches it wants it, so a client without a listener would disable the trace for others. With two subscribers,
/// tracing asks both.
static SECOND: OnceLock<Dispatch> = OnceLock::new();

/// Creates a client's subscriber.
pub(crate) fn events(queue: Arc<Queue>, client: Option<i64>) -> Dispatch {
    SECOND.get_or_init(|| Dispatch::new(NoSubscriber::new()));
    Dispatch::new(Subscriber(Events {
        queue,
        client,
        spans: Spans::default(),
        open: Mutex::default(),
    }))
}

impl CallContext {
    /// `id` is the facade's id of the context. Without `wants_events`, the context is only for the token provider.
    pub(crate) fn new(events: Dispatch, id: i64, wants_events: bool) -> Self {
        let span = with_default(
            &events,
            || tracing::debug_span!(target: "feishu_feed_card::node", CONTEXT, context = id, wants_events),
        );
        Self { events, span }
    }

    pub(crate) fn around<F: Future>(&self, future: F) -> WithDispatch<Instrumented<F>> {
        future
            .instrument(self.span.clone())
            .with_subscriber(self.events.clone())
    }
}

/// Name of the span, and of its field with the id.
const CONTEXT: &str = "context";

/// Returns the id of the current context.
pub(crate) fn current_context() -> Option<i64> {
    get_default(|dispatch| {
        let Subscriber(events) = dispatch.downcast_ref::<Subscriber<Events>>()?;
        match events.spans.value(CONTEXT)? {
            Value::Whole(id) => Some(id),
            _ => None,
        }
    })
}

impl Events {
    fn begun(&self, context: i64) {
        *self.open().entry(context).or_default() += 1;
    }

    /// Reports the context as over once it has no open span. This may be after the end of the call, because a token fetch
    /// may outlive its call.
    fn ended(&self, context: i64) {
        let is_over = {
            let open = &mut *self.open();
            let count = open.get_mut(&context);
            let left = count.map_or(0, |count| {
                *count -= 1;
                *count
            });
            if left == 0 {
                open.remove(&context);
            }
            left == 0
        };
        if is_over {
            self.queue.over(context);
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<i64, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for Events {
    fn level(&self) -> LevelFilter {
        LevelFilter::TRACE
    }

    fn spans(&self) -> &Spans {
        &self.spans
    }

    fn receive(&self, mut report: TraceReport<'_>) {
        let mut context = None;
        let mut wants_events = true;
        report.fields.retain(|(name, value)| match (*name, value) {
            (CONTEXT, Value::Whole(id)) => {
                context = Some(*id);
                false
            }
            ("wants_events", Value::Flag(flag)) => {
                wants_events = *flag;
                false
            }
            _ => true,
        });
        let ended = matches!(report.kind, TraceKind::SpanEnded(..));
        if let (TraceKind::SpanStarted(_), Some(context)) = (&report.kind, context) {
            self.begun(context);
        }
        if let (true, Some(listener)) = (wants_events, context.or(self.client)) {
            self.send(listener, report);
        }
        if let (true, Some(context)) = (ended, context) {
            self.ended(context);
        }
    }
}

impl Events {
    /// Sends an event to the facade. A span is sent when it ends, with its duration.
    fn send(&self, listener: i64, report: TraceReport<'_>) {
        let mut event = Map::new();
        match report.kind {
            TraceKind::SpanStarted(_) | TraceKind::SpanEnded(CONTEXT, _) => return,
            TraceKind::Event(message) => event.insert("name".to_owned(), message.into()),
            TraceKind::SpanEnded(name, took) => {
                event.insert("durationMs".to_owned(), json!(took.as_secs_f64() * 1000.0));
                event.insert("name".to_owned(), name.into())
            }
        };
        let level = report.level.as_str().to_ascii_lowercase();
        event.insert("level".to_owned(), level.into());
        for (name, value) in report.fields {
            // Convert seconds to milliseconds.
            let scale: u16 = if name.ends_with("_s") { 1000 } else { 1 };
            let value = match value {
                Value::Text(text) => json!(text),
                Value::Flag(flag) => json!(flag),
                Value::Whole(number) => json!(number.saturating_mul(scale.into())),
                Value::Count(number) => json!(number.saturating_mul(scale.into())),
                Value::Number(number) => json!(number * f64::from(scale)),
            };
            event.insert(in_javascript(name), value);
        }
        self.queue.send_event(listener, event.into());
    }
}

/// `log_id` → `logId`, `wait_s` → `waitMs`.
fn in_javascript(name: &str) -> String {
    match name.strip_suffix("_s") {
        Some(name) => camel_case(name) + "Ms",
        None => camel_case(name),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use feishu_feed_card::binding::reports;
    use futures_util::FutureExt;
    use tracing::level_filters::LevelFilter;

    use super::{CallContext, current_context, events, in_javascript};

    fn a_context_is_known_within_its_call_and_over_with_the_last_span_within() {
        let queue: Arc<crate::environment::Queue> = Arc::default();
        let context = CallContext::new(events(queue.clone(), None), 7, false);
        let inner = context.around(async {
            assert_eq!(current_context(), Some(7));
            tracing::warn!(target: reports::TARGET, "not passed on");
            tracing::debug_span!(target: reports::TARGET, "token_fetch")
        });
        let outlives = inner.now_or_never().unwrap();
        assert_eq!(current_context(), None);
        drop(context);
        assert_eq!(queue.messages(), "");
        drop(outlives);
        assert_eq!(queue.messages(), r#"[{"id":7,"over":true}"#);
    }

    /// A single test, because subscribers are a setting of the whole process.
    #[test]
    fn nothing_is_traced_until_a_client_asks() {
        assert_eq!(LevelFilter::current(), LevelFilter::OFF);
        let asked = events(Arc::default(), Some(1));
        assert_eq!(LevelFilter::current(), LevelFilter::TRACE);
        // The subscriber is set only around the client's calls.
        assert!(!tracing::enabled!(target: reports::TARGET, tracing::Level::ERROR));
        tracing::dispatcher::with_default(&asked, || {
            assert!(tracing::enabled!(target: reports::TARGET, tracing::Level::TRACE));
            assert!(!tracing::enabled!(target: "hyper", tracing::Level::ERROR));
        });
        a_context_is_known_within_its_call_and_over_with_the_last_span_within();
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
