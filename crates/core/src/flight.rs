//! One request on its way, and what its end means for the quota and for the order of calls.

use std::time::Duration;

use tokio::time::Instant;

use crate::order::Pass;
use crate::quota::Slot;
use crate::transport::Sent;

/// Dropped before [`landed`](Self::landed), by a deadline or a caller that gave up, a request that may
/// have left counts as one without an answer: closing a connection does not recall what was sent.
pub(crate) struct Flight<'a> {
    slot: Option<Slot>,
    pass: &'a Pass,
    late_arrival: Duration,
    sent: Sent,
    is_over: bool,
}

impl<'a> Flight<'a> {
    /// From its slot on, of which it may make no use yet.
    pub(crate) fn new(slot: Option<Slot>, pass: &'a Pass, late_arrival: Duration, sent: Sent) -> Self {
        Self {
            slot,
            pass,
            late_arrival,
            sent,
            is_over: false,
        }
    }

    /// When it took its slot, until that is given back.
    pub(crate) fn taken_at(&self) -> Option<Instant> {
        self.slot.as_ref().map(Slot::taken_at)
    }

    /// The platform answered, so the request has arrived; `in_time` says that it came within the platform's
    /// frequency limit.
    pub(crate) fn landed(&mut self, in_time: bool) {
        self.is_over = true;
        if let Some(slot) = self.slot.take() {
            slot.answered(in_time);
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
