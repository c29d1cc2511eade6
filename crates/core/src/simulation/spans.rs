//! A call reports to the subscriber that is active when the call is first polled.

use std::future::IntoFuture;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use feishu_feed_card_sandbox::{Switches, World};
use tracing::instrument::WithSubscriber;
use tracing::level_filters::LevelFilter;

use super::{USER, client, round_trip, stage};
use crate::binding::reports::{Listener, Spans, Subscriber, TraceReport};

#[derive(Clone, Default)]
struct RecordingListener {
    spans: Arc<Spans>,
    reports: Arc<Mutex<Vec<String>>>,
}

impl Listener for RecordingListener {
    fn level(&self) -> LevelFilter {
        LevelFilter::DEBUG
    }

    fn spans(&self) -> &Spans {
        &self.spans
    }

    fn receive(&self, report: TraceReport<'_>) {
        self.reports.lock().unwrap().push(format!("{report:?}"));
    }
}

/// The Node.js binding wraps every call like this.
#[tokio::test(start_paused = true)]
async fn a_subscriber_around_a_call_receives_all_its_reports() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(50)))
        .build()
        .unwrap();
    let listener = RecordingListener::default();
    let call = client
        .set_time_sensitive(World::EXAMPLE_CHAT, [USER], true)
        .into_future();
    let outcome = call.with_subscriber(Subscriber(listener.clone())).await.unwrap();
    assert!(outcome.ok());
    let reports = listener.reports.lock().unwrap();
    assert!(
        reports.iter().any(|report| report.contains("done")),
        "{reports:?}"
    );
    assert!(
        reports.iter().all(|report| report.contains(World::EXAMPLE_CHAT)),
        "{reports:?}"
    );
}
