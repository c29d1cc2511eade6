//! The time limit of a fetch that several callers wait for.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Instant, timeout_at};

/// The end of a fetch's time. Callers that join the fetch may extend it. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct FetchTime(Arc<Mutex<Instant>>);

impl FetchTime {
    pub(super) fn new(until: Instant) -> Self {
        Self(Arc::new(Mutex::new(until)))
    }

    fn lock(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Extends the time to `until`, if that is later.
    pub(super) fn extend(&self, until: Instant) {
        let end = &mut *self.lock();
        *end = until.max(*end);
    }

    pub(super) fn until(&self) -> Instant {
        *self.lock()
    }

    pub(super) fn is_over(&self) -> bool {
        self.until() <= Instant::now()
    }

    /// Awaits a future until this time is over, or until `cap` if that is sooner. Returns `None` if the future is not ready
    /// by then. Callers may extend the time during the wait.
    pub(super) async fn bound<F: Future>(&self, cap: Option<Instant>, future: F) -> Option<F::Output> {
        let end = || cap.map_or(self.until(), |cap| cap.min(self.until()));
        let mut future = pin!(future);
        loop {
            let until = end();
            match timeout_at(until, &mut future).await {
                Ok(output) => return Some(output),
                Err(_) if end() > until => {}
                Err(_) => return None,
            }
        }
    }
}
