//! How long a call may take, and what ends its waits.

use std::future::pending;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

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

/// What ends all of many calls, whatever time each of them has left.
#[derive(Clone, Debug)]
pub(crate) struct BatchLimit {
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
    /// Deadline for waiting in line, on a chat or for a slot. `None`: as long as it takes.
    pub(crate) fn for_a_turn(&self) -> Option<Instant> {
        match self {
            Self::At(deadline) => Some(*deadline),
            Self::OfMany { batch, .. } => batch.deadline,
        }
    }

    /// Whether a pause that the platform asks for counts as a retry. It must where waiting for a slot is not
    /// limited by the call's own timeout: a 429 response that repeats forever would be retried forever.
    pub(crate) fn counts_pauses(&self) -> bool {
        matches!(self, Self::OfMany { .. })
    }

    /// Awaits `future`. Returns `None` if the deadline passes first, or if the caller of many calls stops
    /// them.
    pub(crate) async fn bound<F: Future>(&self, deadline: Option<Instant>, future: F) -> Option<F::Output> {
        if self.is_stopped() {
            // Do not start queued requests: nobody waits for their results.
            return None;
        }
        select! {
            // A result that is there counts, also at the deadline. The timer starts only if there is none.
            biased;
            output = future => Some(output),
            () = self.stopped() => None,
            () = reached(deadline) => None,
        }
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
                // An error says that the caller has dropped the sender: nobody waits any more either.
                drop(stop.wait_for(|is_stopped| *is_stopped).await);
            }
        }
    }
}

async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

/// The time of one call. Its parts share it.
pub(crate) struct CallTime<'a> {
    pub(crate) limit: &'a TimeLimit,
    /// Deadline of one of many calls; `None` before its first slot.
    own: Mutex<Option<Instant>>,
}

impl<'a> CallTime<'a> {
    pub(crate) fn new(limit: &'a TimeLimit) -> Self {
        let own = Mutex::new(None);
        Self { limit, own }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.limit {
            TimeLimit::At(deadline) => Some(*deadline),
            TimeLimit::OfMany { .. } => *self.own(),
        }
    }

    /// Waits for a slot. For one of many calls the first slot starts the timeout, and the wait for a further
    /// one extends the deadline.
    pub(crate) async fn for_a_slot<T>(&self, slot: impl Future<Output = Option<T>>) -> Option<T> {
        let (asked, deadline) = (Instant::now(), self.deadline());
        let slot = slot.await?;
        if let TimeLimit::OfMany { timeout, batch } = self.limit {
            let extended = deadline.map_or_else(|| after(*timeout), |deadline| deadline + asked.elapsed());
            let extended = batch.deadline.map_or(extended, |end| end.min(extended));
            let own = &mut *self.own();
            // The longest of the waits counts, not their sum: parts wait at the same time.
            *own = Some(own.map_or(extended, |other| other.max(extended)));
        }
        Some(slot)
    }

    fn own(&self) -> MutexGuard<'_, Option<Instant>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
