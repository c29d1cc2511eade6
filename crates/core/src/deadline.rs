//! How long a call may take, and what bounds its waits.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a call may take.
#[derive(Debug)]
pub(crate) enum TimeLimit {
    /// Until then.
    At(Instant),
    /// As one of many that wait their turn: from its first slot of the quota on, and without the wait for
    /// further ones, as those before it in line may take a minute.
    OfMany { timeout: Duration, end: Box<End> },
}

/// What ends many calls before their own time.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) at: Option<Instant>,
    /// Raised when the caller wants no more.
    pub(crate) stop: watch::Receiver<bool>,
}

/// The time after a wait, or one that never comes where the clock cannot say.
pub(crate) fn after(wait: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    Instant::now() + wait.min(FAR)
}

impl TimeLimit {
    /// Until when a call may wait for its turn on its chat, or for its first slot.
    pub(crate) fn for_a_turn(&self) -> Option<Instant> {
        match self {
            Self::At(deadline) => Some(*deadline),
            Self::OfMany { end, .. } => end.at,
        }
    }

    /// Whether the platform's pauses cost replays: where only their end bounds the waits for slots, a refusal
    /// that is repeated for ever would be asked for as long.
    pub(crate) fn counts_pauses(&self) -> bool {
        matches!(self, Self::OfMany { .. })
    }

    /// What a future gives in time; `None` when the time is over, or the caller wants no more.
    pub(crate) fn bound<F: Future>(&self, deadline: Option<Instant>, future: F) -> InTime<'_, F> {
        let stop = match self {
            Self::At(_) => None,
            Self::OfMany { end, .. } => Some(&end.stop),
        };
        InTime {
            future,
            deadline,
            sleep: None,
            stop,
            stopped: None,
        }
    }
}

/// One call's time, which its parts share.
pub(crate) struct Time<'a> {
    pub(crate) limit: &'a TimeLimit,
    /// Of one of many; none before its first slot.
    own: Mutex<Option<Instant>>,
}

impl<'a> Time<'a> {
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

    /// A slot was there at once: the first one begins the time of one of many.
    pub(crate) fn has_a_slot(&self) {
        if let TimeLimit::OfMany { timeout, end } = self.limit
            && self.deadline().is_none()
        {
            self.extend(after(*timeout), end);
        }
    }

    /// Waits for a slot; where that does not count, the deadline moves by as much.
    pub(crate) async fn for_a_slot<T>(&self, slot: impl Future<Output = Option<T>>) -> Option<T> {
        let TimeLimit::OfMany { timeout, end } = self.limit else {
            return slot.await;
        };
        let (asked, deadline) = (Instant::now(), self.deadline());
        let slot = slot.await?;
        let moved = deadline.map_or_else(|| after(*timeout), |deadline| deadline + asked.elapsed());
        self.extend(moved, end);
        Some(slot)
    }

    fn extend(&self, moved: Instant, end: &End) {
        let moved = end.at.map_or(moved, |end| end.min(moved));
        // Parts that wait at the same time wait once.
        let own = &mut *self.own();
        *own = Some(own.map_or(moved, |other| other.max(moved)));
    }

    fn own(&self) -> MutexGuard<'_, Option<Instant>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pin_project! {
    /// Unlike tokio's, it has no timer before it has to wait: of a call's waits, most are none.
    pub(crate) struct InTime<'a, F> {
        #[pin]
        future: F,
        deadline: Option<Instant>,
        #[pin]
        sleep: Option<Sleep>,
        stop: Option<&'a watch::Receiver<bool>>,
        // Boxed, as every call would have to hold it, and few are of many.
        stopped: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    }
}

impl<F: Future> Future for InTime<'_, F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.stopped.is_none() && this.stop.is_some_and(|stop| *stop.borrow()) {
            // What has not begun does not: a request would leave that nobody waits for.
            return Poll::Ready(None);
        }
        if let Poll::Ready(output) = this.future.poll(context) {
            return Poll::Ready(Some(output));
        }
        if let Some(stop) = *this.stop {
            let stopped = this.stopped.get_or_insert_with(|| {
                let mut stop = stop.clone();
                Box::pin(async move { drop(stop.wait_for(|stopped| *stopped).await) })
            });
            if stopped.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
        }
        let Some(deadline) = *this.deadline else {
            return Poll::Pending;
        };
        if this.sleep.is_none() {
            this.sleep.set(Some(sleep_until(deadline)));
        }
        if let Some(sleep) = this.sleep.as_pin_mut() {
            ready!(sleep.poll(context));
        }
        Poll::Ready(None)
    }
}
