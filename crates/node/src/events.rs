//! What the core reports of one client's calls, handed to that client's `onEvent` and to the calls' own.
//!
//! A subscriber for each client that asks, set around those of its calls that someone listens to: where no client
//! asks there is none in the process, and each trace is a look at one number.
//!
//! A span of this crate around each call, or around many, has the number of its context in the facade. The spans within
//! and the events inherit it, also in tasks that the core starts, so that the facade runs callbacks in the async
//! context of the call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use feishu_feed_card::binding::reports::{Listener, Spans, Subscriber, TraceReport, Value, What};
use serde_json::{Map, json};
use tracing::dispatcher::{get_default, with_default};
use tracing::instrument::{Instrumented, WithDispatch, WithSubscriber};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, Instrument, Span};

use crate::environment::Queue;
use crate::names::camel_case;

/// Pushes one client's events onto the queue of the environment that the client was made in.
pub(crate) struct Events {
    queue: Arc<Queue>,
    /// Gets what happens outside of calls, while the client is made.
    client: Option<i64>,
    spans: Spans,
    /// How many spans of each context are open.
    open: Mutex<HashMap<i64, usize>>,
}

/// What a call, or many, runs within if someone listens or provides tokens.
#[derive(Clone)]
pub(crate) struct CallContext {
    events: Dispatch,
    span: Span,
}

/// While a process has a single subscriber, tracing asks whoever passes a place in the code first whether
/// that place is of interest, and keeps the answer: a client that does not ask would silence it for the one
/// that does. With a second one, both are asked.
static SECOND: OnceLock<Dispatch> = OnceLock::new();

/// What hears of one client's calls.
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
    /// With the facade's number of it. Without `tells` nobody wants its events, only its token provider the context.
    pub(crate) fn new(events: Dispatch, id: i64, tells: bool) -> Self {
        let span = with_default(
            &events,
            || tracing::debug_span!(target: "feishu_feed_card::node", CONTEXT, context = id, tells),
        );
        Self { events, span }
    }

    pub(crate) fn around<F: Future>(&self, future: F) -> WithDispatch<Instrumented<F>> {
        future
            .instrument(self.span.clone())
            .with_subscriber(self.events.clone())
    }
}

/// Name of the span, and of its field with the number.
const CONTEXT: &str = "context";

/// The context of the code that runs now.
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

    /// Once no span of it is open, the facade can forget the context: a fetch of a token may outlive its call.
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

    fn hear(&self, mut report: TraceReport<'_>) {
        let mut context = None;
        let mut tells = true;
        report.fields.retain(|(name, value)| match (*name, value) {
            (CONTEXT, Value::Whole(id)) => {
                context = Some(*id);
                false
            }
            ("tells", Value::Flag(flag)) => {
                tells = *flag;
                false
            }
            _ => true,
        });
        let ended = matches!(report.what, What::Ended(..));
        if let (What::Begins(_), Some(context)) = (&report.what, context) {
            self.begun(context);
        }
        if let (true, Some(listener)) = (tells, context.or(self.client)) {
            self.tell(listener, report);
        }
        if let (true, Some(context)) = (ended, context) {
            self.ended(context);
        }
    }
}

impl Events {
    /// A span is told when it has ended, with how long it took.
    fn tell(&self, listener: i64, report: TraceReport<'_>) {
        let mut told = Map::new();
        match report.what {
            What::Begins(_) | What::Ended(CONTEXT, _) => return,
            What::Event(message) => told.insert("name".to_owned(), message.into()),
            What::Ended(name, took) => {
                told.insert("durationMs".to_owned(), json!(took.as_secs_f64() * 1000.0));
                told.insert("name".to_owned(), name.into())
            }
        };
        let level = report.level.as_str().to_ascii_lowercase();
        told.insert("level".to_owned(), level.into());
        for (name, value) in report.fields {
            // Seconds, which JavaScript counts in milliseconds.
            let scale: u16 = if name.ends_with("_s") { 1000 } else { 1 };
            let value = match value {
                Value::Text(text) => json!(text),
                Value::Flag(flag) => json!(flag),
                Value::Whole(number) => json!(number.saturating_mul(scale.into())),
                Value::Count(number) => json!(number.saturating_mul(scale.into())),
                Value::Number(number) => json!(number * f64::from(scale)),
            };
            told.insert(in_javascript(name), value);
        }
        self.queue.tell(listener, told.into());
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
            tracing::warn!(target: reports::TARGET, "not told");
            tracing::debug_span!(target: reports::TARGET, "token_fetch")
        });
        let outlives = inner.now_or_never().unwrap();
        assert_eq!(current_context(), None);
        drop(context);
        assert_eq!(queue.told(), "");
        drop(outlives);
        assert_eq!(queue.told(), r#"[{"id":7,"over":true}"#);
    }

    /// One test, as what is traced is a setting of the whole process.
    #[test]
    fn nothing_is_traced_until_a_client_asks() {
        assert_eq!(LevelFilter::current(), LevelFilter::OFF);
        let asked = events(Arc::default(), Some(1));
        assert_eq!(LevelFilter::current(), LevelFilter::TRACE);
        // Around that client's calls alone.
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
