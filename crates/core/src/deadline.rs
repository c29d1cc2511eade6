//! How long a call may take, and what bounds its waits.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::{Either, select};
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
    OfMany { timeout: Duration, end: End },
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

    /// What a future gives, unless the caller wants no more.
    pub(crate) async fn unless_stopped<F: Future + Unpin>(&self, future: F) -> Option<F::Output> {
        let Self::OfMany { end, .. } = self else {
            return Some(future.await);
        };
        let mut stop = end.stop.clone();
        // Boxed, as every call would have to hold it, and few are of many.
        let stopped = Box::pin(async move { drop(stop.wait_for(|stopped| *stopped).await) });
        match select(future, stopped).await {
            Either::Left((result, _)) => Some(result),
            Either::Right(_) => None,
        }
    }
}

/// One part's time.
pub(crate) struct Time<'a> {
    limit: &'a TimeLimit,
    /// None before the first slot of one of many.
    pub(crate) deadline: Option<Instant>,
}

impl<'a> Time<'a> {
    pub(crate) fn new(limit: &'a TimeLimit) -> Self {
        let deadline = match limit {
            TimeLimit::At(deadline) => Some(*deadline),
            TimeLimit::OfMany { .. } => None,
        };
        Self { limit, deadline }
    }

    pub(crate) fn for_a_slot(&self) -> Option<Instant> {
        self.limit.for_a_turn()
    }

    /// When it was asked for, where waiting for it does not count.
    pub(crate) fn asked_for_a_slot(&self) -> Option<Instant> {
        matches!(self.limit, TimeLimit::OfMany { .. }).then(Instant::now)
    }

    pub(crate) fn has_slot(&mut self, asked: Option<Instant>) {
        if let (TimeLimit::OfMany { timeout, end }, Some(asked)) = (self.limit, asked) {
            let own = match self.deadline {
                None => after(*timeout),
                Some(deadline) => deadline + asked.elapsed(),
            };
            self.deadline = Some(end.at.map_or(own, |end| end.min(own)));
        }
    }
}

/// What a future gives in time; `None` when the time is over.
pub(crate) fn in_time<F: Future>(deadline: Option<Instant>, future: F) -> InTime<F> {
    InTime {
        future,
        deadline,
        sleep: None,
    }
}

pin_project! {
    /// Unlike tokio's, it has no timer before it has to wait: of a call's waits, most are none.
    pub(crate) struct InTime<F> {
        #[pin]
        future: F,
        deadline: Option<Instant>,
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl<F: Future> Future for InTime<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(output) = this.future.poll(context) {
            return Poll::Ready(Some(output));
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
