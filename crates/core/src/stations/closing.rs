//! Closing a client. A closed client refuses new calls. Calls in progress end by themselves or are stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::select;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::data::error::{Error, ErrorKind};
use crate::stations::deadline::{after, reached};

/// How long a close waits for calls after it has stopped them. A stopped call ends when it is polled next, but its caller
/// may never poll it.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether a client is open, and its calls in progress. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct Closing(Arc<Shared>);

// Atomics instead of a lock, because every call uses them several times.
#[derive(Debug, Default)]
struct Shared {
    /// A [`Phase`].
    phase: AtomicU8,
    /// The number of calls in progress.
    calls: AtomicUsize,
    /// Notifies of a new phase, and of the end of a closed client's last call.
    changed: Notify,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Open,
    /// Calls in progress go on.
    Closed,
    /// Calls in progress are stopped.
    Stopped,
}

/// Counts a call as in progress until it is dropped.
#[derive(Debug)]
pub(crate) struct InProgress(Closing);

impl Closing {
    /// Closes the client immediately, not when the future is first polled. The future ends when no call is in progress.
    /// It stops the calls that are still in progress after `longest_wait`.
    pub fn close(&self, longest_wait: Option<Duration>) -> impl Future<Output = ()> + Send + use<> {
        self.advance_to(Phase::Closed);
        let until = longest_wait.map(after);
        let closing = self.clone();
        async move {
            select! {
                biased;
                () = closing.idle() => {}
                // Another close with a shorter wait has stopped the calls.
                () = closing.stopped() => {}
                () = reached(until) => {}
            }
            closing.advance_to(Phase::Stopped);
            // The error means that the timeout has passed.
            drop(timeout(STOP_TIMEOUT, closing.idle()).await);
        }
    }

    /// Counts a call, or returns `None` if the client is closed.
    pub(crate) fn enter(&self) -> Option<InProgress> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        let call = InProgress(self.clone());
        // Check after counting: a close after this check sees the call in the count.
        (!self.is_closed()).then_some(call)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.phase.load(Ordering::SeqCst) > Phase::Open as u8
    }

    /// Whether calls in progress are stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.0.phase.load(Ordering::SeqCst) == Phase::Stopped as u8
    }

    pub(crate) async fn closed(&self) {
        self.until(Self::is_closed).await;
    }

    pub(crate) async fn stopped(&self) {
        self.until(Self::is_stopped).await;
    }

    async fn idle(&self) {
        self.until(|closing| closing.0.calls.load(Ordering::SeqCst) == 0)
            .await;
    }

    async fn until(&self, condition: fn(&Self) -> bool) {
        loop {
            // Created before the check, so that it receives every later notification.
            let changed = self.0.changed.notified();
            if condition(self) {
                return;
            }
            changed.await;
        }
    }

    fn advance_to(&self, phase: Phase) {
        self.0.phase.fetch_max(phase as u8, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let Self(closing) = self;
        if closing.0.calls.fetch_sub(1, Ordering::SeqCst) == 1 && closing.is_closed() {
            closing.0.changed.notify_waiters();
        }
    }
}

/// The error of a call on a closed client.
pub(crate) fn client_closed() -> Error {
    Error::new(ErrorKind::ClientClosed, "the client is closed").with_hint("Create another client")
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_close_takes_effect_before_it_is_awaited() {
        let closing = Closing::default();
        let call = closing.enter().unwrap();
        let close = closing.close(None);
        assert!(closing.is_closed() && !closing.is_stopped());
        assert!(closing.enter().is_none());
        drop((call, close));
        assert!(
            closing.enter().is_none(),
            "dropping the future does not open the client again"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_waits_for_calls_until_its_timeout() {
        for (timeout, ends_after) in [(None, 10), (Some(3), 3), (Some(0), 0), (Some(20), 10)] {
            let closing = Closing::default();
            let call = closing.enter().unwrap();
            let own = closing.clone();
            tokio::spawn(async move {
                select! {
                    () = own.stopped() => {}
                    () = sleep(10 * SECOND) => {}
                }
                drop(call);
            });
            let began = Instant::now();
            closing.close(timeout.map(Duration::from_secs)).await;
            assert_eq!(began.elapsed().as_secs(), ends_after, "{timeout:?}");
            assert!(closing.is_stopped());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_close_with_the_shortest_timeout_stops_the_calls() {
        let closing = Closing::default();
        let call = closing.enter().unwrap();
        let [first, second] = [None, Some(3 * SECOND)].map(|timeout| closing.close(timeout));
        let began = Instant::now();
        let own = closing.clone();
        tokio::spawn(async move {
            own.stopped().await;
            drop(call);
        });
        tokio::join!(first, second);
        assert_eq!(began.elapsed(), 3 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_never_polled_delays_a_close_by_a_second_at_most() {
        let closing = Closing::default();
        let _unpolled = closing.enter().unwrap();
        let began = Instant::now();
        closing.close(Some(SECOND)).await;
        assert_eq!(began.elapsed(), SECOND + STOP_TIMEOUT);
    }
}
