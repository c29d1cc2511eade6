//! One request, from its slot until its answer, and what its end means for the quota and for the order of calls.

use std::time::Duration;

use tokio::time::Instant;

use crate::order::Pass;
use crate::quota::Slot;
use crate::transport::Sent;

/// A request that has its slot. If it is dropped before [`landed`](Self::landed), by a deadline or by a caller
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

    /// When the request took its slot. `None` without a quota, or after [`landed`](Self::landed).
    pub(crate) fn taken_at(&self) -> Option<Instant> {
        self.slot.as_ref().map(Slot::taken_at)
    }

    /// The platform has answered, so the request has arrived. `is_accepted`: within the platform's frequency
    /// limit.
    pub(crate) fn landed(&mut self, is_accepted: bool) {
        self.is_over = true;
        if let Some(slot) = self.slot.take() {
            slot.answered(is_accepted);
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
