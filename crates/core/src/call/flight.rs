//! One request, from its slot to its answer. Its end updates the quota and the order of calls.

use std::time::Duration;

use tokio::time::Instant;

use crate::data::error::ErrorKind;
use crate::platform::answer::{CallData, Reading};
use crate::stations::order::Pass;
use crate::stations::quota::Slot;
use crate::transport::Sent;

/// A request that has its slot. A deadline, or a caller that gives up, may drop it before [`land`](Self::land). A
/// request that may have been sent by then counts as unanswered, because closing a connection does not recall what was
/// sent. The slot of a request that was not sent is free again.
pub(crate) struct Flight<'a> {
    slot: Option<Slot>,
    pass: &'a Pass,
    late_arrival: Duration,
    sent: Sent,
    is_answered: bool,
}

impl<'a> Flight<'a> {
    pub(crate) fn new(slot: Option<Slot>, pass: &'a Pass, late_arrival: Duration, sent: Sent) -> Self {
        Self {
            slot,
            pass,
            late_arrival,
            sent,
            is_answered: false,
        }
    }

    /// When the request took its slot. `None` without a quota, or after [`land`](Self::land).
    pub(crate) fn taken_at(&self) -> Option<Instant> {
        self.slot.as_ref().map(Slot::taken_at)
    }

    /// Ends the flight if the platform has answered: its answer proves that the request has arrived and cannot arrive
    /// later.
    pub(crate) fn land(&mut self, reading: &Reading<CallData>) {
        let is_within_the_limit = match reading {
            Reading::Success { .. } => true,
            Reading::Failure(failure) if failure.is_answer => failure.error.kind() != ErrorKind::RateLimited,
            Reading::Failure(_) => return,
        };
        self.is_answered = true;
        if let Some(slot) = self.slot.take() {
            slot.answered(is_within_the_limit);
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if self.is_answered || !self.sent.give_up() {
            return;
        }
        self.pass.late_until(Instant::now() + self.late_arrival);
        if let Some(slot) = self.slot.take() {
            slot.unanswered(self.late_arrival);
        }
    }
}
