//! What a call's span belongs to: whatever was put around the call before it was first polled.

use std::future::IntoFuture;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use feishu_feed_card_sandbox::{Switches, World};
use tracing::instrument::WithSubscriber;
use tracing::level_filters::LevelFilter;

use super::{USER, client, round_trip, stage};
use crate::binding::reports::{Listener, Spans, Subscriber, TraceReport};

#[derive(Clone, Default)]
struct Heard {
    spans: Arc<Spans>,
    fields: Arc<Mutex<Vec<String>>>,
}

impl Listener for Heard {
    fn level(&self) -> LevelFilter {
        LevelFilter::DEBUG
    }

    fn spans(&self) -> &Spans {
        &self.spans
    }

    fn hear(&self, report: TraceReport<'_>) {
        self.fields.lock().unwrap().push(format!("{report:?}"));
    }
}

/// As the Node.js binding does for each client.
#[tokio::test(start_paused = true)]
async fn a_subscriber_around_a_call_hears_of_all_of_it() {
    let stage = stage(0, Switches::unlimited());
    let client = client(&stage, round_trip(Duration::from_millis(50)))
        .build()
        .unwrap();
    let heard = Heard::default();
    let call = client
        .set_time_sensitive(World::EXAMPLE_CHAT, [USER], true)
        .into_future();
    let outcome = call.with_subscriber(Subscriber(heard.clone())).await.unwrap();
    assert!(outcome.ok());
    let fields = heard.fields.lock().unwrap();
    assert!(fields.iter().any(|report| report.contains("done")), "{fields:?}");
    assert!(
        fields.iter().all(|report| report.contains(World::EXAMPLE_CHAT)),
        "{fields:?}"
    );
}
