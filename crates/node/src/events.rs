//! What the core reports of one client's calls, handed to that client's `onEvent`.
//!
//! A subscriber for each client that asks, set around that client's calls alone: where no client asks
//! there is none in the process, and each trace is a look at one number.

use std::sync::{Arc, OnceLock};

use feishu_feed_card::binding::reports::{Listener, Spans, Subscriber, TraceReport, Value, What};
use serde_json::{Map, json};
use tracing::Dispatch;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::NoSubscriber;

use crate::environment::Queue;
use crate::names::camel_case;

/// Pushes one client's events onto the queue of the environment that the client was made in.
pub(crate) struct Events {
    queue: Arc<Queue>,
    client: i64,
    spans: Spans,
}

/// While a process has a single subscriber, tracing asks whoever passes a place in the code first whether
/// that place is of interest, and keeps the answer: a client that does not ask would silence it for the one
/// that does. With a second one, both are asked.
static SECOND: OnceLock<Dispatch> = OnceLock::new();

/// What one client's calls are made within.
pub(crate) fn events(queue: Arc<Queue>, client: i64) -> Dispatch {
    SECOND.get_or_init(|| Dispatch::new(NoSubscriber::new()));
    Dispatch::new(Subscriber(Events {
        queue,
        client,
        spans: Spans::default(),
    }))
}

impl Listener for Events {
    fn level(&self) -> LevelFilter {
        LevelFilter::TRACE
    }

    fn spans(&self) -> &Spans {
        &self.spans
    }

    /// A span is told when it has ended, with how long it took.
    fn hear(&self, report: TraceReport<'_>) {
        let mut told = Map::new();
        match report.what {
            What::Begins(_) => return,
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
        self.queue.tell(self.client, told.into());
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
    use tracing::level_filters::LevelFilter;

    use super::{events, in_javascript};

    #[test]
    fn nothing_is_traced_until_a_client_asks() {
        assert_eq!(LevelFilter::current(), LevelFilter::OFF);
        let asked = events(Arc::default(), 1);
        assert_eq!(LevelFilter::current(), LevelFilter::TRACE);
        // Around that client's calls alone.
        assert!(!tracing::enabled!(target: reports::TARGET, tracing::Level::ERROR));
        tracing::dispatcher::with_default(&asked, || {
            assert!(tracing::enabled!(target: reports::TARGET, tracing::Level::TRACE));
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
