//! The deadlines of a call, and how they and a stop end its waits.

use std::future::pending;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::stations::closing::Closing;

/// How long a call may take.
#[derive(Debug)]
pub(crate) enum TimeLimit {
    /// Until this deadline.
    At(Instant),
    /// For one of many calls: `timeout` starts with its first slot of the quota and excludes the waits for
    /// further slots, because the calls before it in line may take a minute.
    OfMany {
        timeout: Duration,
        batch: Box<BatchLimit>,
    },
}

/// The limits for all of many calls together.
#[derive(Clone, Debug)]
pub(crate) struct BatchLimit {
    /// The end of `total_timeout`.
    pub(crate) deadline: Option<Instant>,
    /// Set to `true` when the caller stops early.
    pub(crate) stop: watch::Receiver<bool>,
}

/// The time `wait` from now, or 30 years from now if that is sooner: `Instant` cannot hold every `Duration`.
pub(crate) fn after(wait: Duration) -> Instant {
    const LONGEST: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    Instant::now() + wait.min(LONGEST)
}

impl TimeLimit {
    /// Deadline for waiting in line, for the turn on a chat or for a slot. `None`: no limit.
    pub(crate) fn for_a_turn(&self) -> Option<Instant> {
        match self {
            Self::At(deadline) => Some(*deadline),
            Self::OfMany { batch, .. } => batch.deadline,
        }
    }

    /// Whether a pause that the platform asks for counts as a retry. It must count for one of many calls, because its own
    /// timeout does not limit its waits for slots: a 429 response that is repeated forever would be retried forever.
    pub(crate) fn counts_pauses(&self) -> bool {
        matches!(self, Self::OfMany { .. })
    }

    fn is_stopped(&self) -> bool {
        match self {
            Self::At(_) => false,
            Self::OfMany { batch, .. } => *batch.stop.borrow(),
        }
    }

    async fn stopped(&self) {
        match self {
            Self::At(_) => pending().await,
            Self::OfMany { batch, .. } => {
                let mut stop = batch.stop.clone();
                // An error means that the sender was dropped, which also stops the calls. Boxed, because single calls
                // do not need this future.
                drop(Box::pin(stop.wait_for(|is_stopped| *is_stopped)).await);
            }
        }
    }
}

/// Waits until the deadline, or forever without one.
pub(crate) async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

/// The deadline of one call, shared by its parts.
pub(crate) struct CallTime<'a> {
    pub(crate) limit: &'a TimeLimit,
    closing: &'a Closing,
    /// Deadline of this call if it is one of many. `None` before its first slot.
    own: Mutex<Option<Instant>>,
}

impl<'a> CallTime<'a> {
    pub(crate) fn new(limit: &'a TimeLimit, closing: &'a Closing) -> Self {
        let own = Mutex::new(None);
        Self { limit, closing, own }
    }

    /// Awaits `future`. Returns `None` if the deadline passes first, if the caller of many calls stops them, or if a close
    /// of the client stops its calls. Takes a pinned future, because an async function stores a future that it takes by
    /// value twice.
    pub(crate) async fn bound<F: Future>(
        &self,
        deadline: Option<Instant>,
        future: Pin<&mut F>,
    ) -> Option<F::Output> {
        if self.is_stopped() {
            // Do not start queued requests: nobody waits for their results.
            return None;
        }
        select! {
            // A result that is ready counts, also at the deadline. The timer starts only if it is not ready.
            biased;
            output = future => Some(output),
            () = self.limit.stopped() => None,
            () = self.closing.stopped() => None,
            () = reached(deadline) => None,
        }
    }

    /// Whether the call was stopped, by the caller of many calls or by a close of the client.
    pub(crate) fn is_stopped(&self) -> bool {
        self.limit.is_stopped() || self.closing.is_stopped()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.limit {
            TimeLimit::At(deadline) => Some(*deadline),
            TimeLimit::OfMany { .. } => *self.own(),
        }
    }

    /// Waits for a slot until the deadline for waiting in line. If this is one of many calls, its first slot starts the
    /// timeout, and waits for further slots extend its deadline.
    pub(crate) async fn for_a_slot<F: Future>(&self, slot: Pin<&mut F>) -> Option<F::Output> {
        let until = self.limit.for_a_turn();
        let TimeLimit::OfMany { timeout, batch } = self.limit else {
            return self.bound(until, slot).await;
        };
        let (began, deadline) = (Instant::now(), self.deadline());
        let slot = self.bound(until, slot).await?;
        let extended = deadline.map_or_else(|| after(*timeout), |deadline| deadline + began.elapsed());
        let extended = batch.deadline.map_or(extended, |end| end.min(extended));
        let own = &mut *self.own();
        // The longest wait counts and not the sum, because the parts wait at the same time.
        *own = Some(own.map_or(extended, |other| other.max(extended)));
        Some(slot)
    }

    fn own(&self) -> MutexGuard<'_, Option<Instant>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::pin::pin;

    use tokio::join;
    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn of_many(timeout: Duration, deadline: Option<Instant>) -> (watch::Sender<bool>, TimeLimit) {
        let (stop, stopped) = watch::channel(false);
        let batch = Box::new(BatchLimit {
            deadline,
            stop: stopped,
        });
        (stop, TimeLimit::OfMany { timeout, batch })
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_very_long_wait_is_bounded() {
        let now = Instant::now();
        assert_eq!(after(SECOND), now + SECOND);
        let years = after(Duration::MAX).duration_since(now).as_secs() / (365 * 24 * 60 * 60);
        assert_eq!(years, 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_that_is_ready_at_the_deadline_counts() {
        let now = Instant::now();
        let (limit, closing) = (TimeLimit::At(now), Closing::default());
        let time = CallTime::new(&limit, &closing);
        assert_eq!(time.bound(Some(now), pin!(ready(1))).await, Some(1));
        assert_eq!(time.bound(Some(now + SECOND), pin!(pending::<()>())).await, None);
        assert_eq!(now.elapsed(), SECOND);
        assert_eq!(time.bound(None, pin!(sleep(SECOND))).await, Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_running_futures_and_starts_none() {
        let now = Instant::now();
        let (stop, limit) = of_many(SECOND, None);
        let closing = Closing::default();
        let time = CallTime::new(&limit, &closing);
        let running = pin!(pending::<()>());
        let running = time.bound(None, running);
        let stopping = async {
            sleep(SECOND).await;
            stop.send_replace(true);
        };
        assert_eq!(join!(running, stopping).0, None);
        assert_eq!(now.elapsed(), SECOND);
        assert_eq!(time.bound(None, pin!(ready(()))).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_ends_running_futures_and_starts_none() {
        let now = Instant::now();
        let (limit, closing) = (TimeLimit::At(now + 100 * SECOND), Closing::default());
        let time = CallTime::new(&limit, &closing);
        let _in_progress = closing.enter();
        let running = pin!(pending::<()>());
        let running = time.bound(None, running);
        assert_eq!(join!(running, closing.close(Some(SECOND))).0, None);
        assert_eq!(
            now.elapsed(),
            2 * SECOND,
            "1 s, and 1 s of waiting for the call in progress, which is not dropped before"
        );
        assert_eq!(time.bound(None, pin!(ready(()))).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn only_one_of_many_calls_starts_its_timeout_with_its_first_slot() {
        let now = Instant::now();
        let end = now + 100 * SECOND;
        let single = TimeLimit::At(end);
        assert_eq!((single.for_a_turn(), single.counts_pauses()), (Some(end), false));
        let (stop, many) = of_many(SECOND, Some(end));
        assert_eq!((many.for_a_turn(), many.counts_pauses()), (Some(end), true));

        let closing = Closing::default();
        let time = CallTime::new(&single, &closing);
        time.for_a_slot(pin!(sleep(SECOND))).await;
        assert_eq!(time.deadline(), Some(end));

        let time = CallTime::new(&many, &closing);
        assert_eq!(time.deadline(), None);
        stop.send_replace(true);
        assert_eq!(time.for_a_slot(pin!(sleep(SECOND))).await, None);
        assert_eq!(time.deadline(), None, "no slot was taken");
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_for_a_slot_extends_the_deadline() {
        let (_stop, limit) = of_many(5 * SECOND, Some(Instant::now() + 20 * SECOND));
        let closing = Closing::default();
        let time = CallTime::new(&limit, &closing);
        let began = Instant::now();
        time.for_a_slot(pin!(sleep(SECOND))).await;
        assert_eq!(time.deadline(), Some(began + 6 * SECOND));
        // Both parts wait at the same time.
        let (first, second) = (pin!(sleep(4 * SECOND)), pin!(sleep(3 * SECOND)));
        join!(time.for_a_slot(first), time.for_a_slot(second));
        assert_eq!(time.deadline(), Some(began + 10 * SECOND));
        time.for_a_slot(pin!(sleep(14 * SECOND))).await;
        assert_eq!(
            time.deadline(),
            Some(began + 20 * SECOND),
            "the end of total_timeout"
        );
    }
}
