//! One request, from its slot until its answer, and what its end means for the quota and for the order of calls.

use std::time::Duration;

use tokio::time::Instant;

use crate::data::error::ErrorKind;
use crate::platform::answer::{CallData, Reading};
use crate::stations::order::Pass;
use crate::stations::quota::Slot;
use crate::transport::Sent;

/// A request that has its slot. If it is dropped before [`land`](Self::land), by a deadline or by a caller
/// that gives up, and may have been sent, it counts as unanswered: closing a connection does not recall what
/// was sent. If it was never sent, its slot is free again.
pub(crate) struct Flight<'a> {
    slot: Option<Slot>,
    pass: &'a Pass,
    late_arrival: Duration,
    sent: Sent,
    is_over: bool,
}

impl<'a> Flight<'a> {
    pub(crate) fn new(slot: Option<Slot>, pass: &'a Pass, late_arrival: Duration, sent: Sent) -> Self {
        Self {
            slot,
            pass,
            late_arrival,
            sent,
            is_over: false,
        }
    }

    /// When the request took its slot. `None` without a quota, or after [`land`](Self::land).
    pub(crate) fn taken_at(&self) -> Option<Instant> {
        self.slot.as_ref().map(Slot::taken_at)
    }

    /// The attempt has ended. If the platform has answered, the request has arrived, so nothing more is to come.
    pub(crate) fn land(&mut self, reading: &Reading<CallData>) {
        let is_within_the_limit = match reading {
            Reading::Success { .. } => true,
            Reading::Failure(failure) if failure.is_answer => failure.error.kind() != ErrorKind::RateLimited,
            Reading::Failure(_) => return,
        };
        self.is_over = true;
        if let Some(slot) = self.slot.take() {
            slot.answered(is_within_the_limit);
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if self.is_over || !self.sent.give_up() {
            return;
        }
        self.pass.late_until(Instant::now() + self.late_arrival);
        if let Some(slot) = self.slot.take() {
            slot.unanswered(self.late_arrival);
        }
    }
}
