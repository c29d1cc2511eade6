//! The order of calls on one chat: calls of opposite state run in the order they were made and never
//! overlap. Otherwise a pin could arrive after the unpin that follows it, late or as a retry, and nobody
//! could remove it: people cannot cancel an app's reminder themselves (docs/platform.md#no-dismissal).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::data::error::{Error, ErrorKind, Station};
use crate::data::input::Target;
use crate::data::text::text;

/// The running and waiting calls of all chats. Clones share their state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order(Arc<Mutex<Chats>>);

#[derive(Debug, Default)]
struct Chats {
    by_target: BTreeMap<Target, Chat>,
    /// When to check whether a chat with an unanswered request can be removed, soonest first.
    unanswered: VecDeque<(Instant, Target)>,
    next_ticket: u64,
}

/// A chat with running or waiting calls, or with an unanswered request that may still arrive.
#[derive(Debug, Default)]
struct Chat {
    /// Number of running calls, per state (unpin, pin).
    running: [usize; 2],
    /// Latest time at which an unanswered request may still arrive, per state (unpin, pin).
    late_until: [Option<Instant>; 2],
    /// The waiting calls by ticket, first come, first served. A map, so that leaving the line does not scan it: with
    /// 64,000 waiters that took seconds, and they missed their deadlines.
    line: BTreeMap<u64, Arc<Notify>>,
}

/// Whether a call may start.
enum Admission {
    Now,
    /// Not before this time, until which an unanswered request of the opposite state may arrive.
    NotBefore(Instant),
    /// Not yet: a call of the opposite state is running, or other calls are ahead in line.
    AfterOthers,
}

impl Chat {
    fn admission(&self, state: bool) -> Admission {
        let opposite = usize::from(!state);
        if self.running[opposite] > 0 {
            return Admission::AfterOthers;
        }
        match self.late_until[opposite] {
            Some(until) if until > Instant::now() => Admission::NotBefore(until),
            _ => Admission::Now,
        }
    }

    fn is_idle(&self) -> bool {
        self.running == [0, 0]
            && self.line.is_empty()
            && self
                .late_until
                .iter()
                .flatten()
                .all(|until| *until <= Instant::now())
    }

    fn wake_first(&self) {
        if let Some((_, first)) = self.line.first_key_value() {
            first.notify_one();
        }
    }
}

impl Chats {
    /// Removes the chats that were kept only for an unanswered request that can no longer arrive.
    fn remove_expired(&mut self) {
        while self
            .unanswered
            .front()
            .is_some_and(|(until, _)| *until <= Instant::now())
            && let Some((_, target)) = self.unanswered.pop_front()
        {
            self.remove_if_idle(&target);
        }
    }

    fn remove_if_idle(&mut self, target: &Target) {
        if self.by_target.get(target).is_some_and(Chat::is_idle) {
            self.by_target.remove(target);
        }
    }
}

impl Order {
    fn chats(&self) -> MutexGuard<'_, Chats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a call its place on the chat. Not `async`, because calls run in the order in which they were made, and not
    /// in which a runtime first polls them.
    pub(crate) fn line_up(&self, target: &Target, state: bool) -> Place {
        let chats = &mut *self.chats();
        chats.remove_expired();
        let chat = chats.by_target.entry(target.clone()).or_default();
        if chat.line.is_empty() && matches!(chat.admission(state), Admission::Now) {
            chat.running[usize::from(state)] += 1;
            return Place::Running(self.pass(target, state));
        }
        let ticket = chats.next_ticket;
        chats.next_ticket += 1;
        let turn = Arc::new(Notify::new());
        chat.line.insert(ticket, turn.clone());
        Place::Waiting(Waiter {
            order: self.clone(),
            target: target.clone(),
            state,
            ticket,
            turn,
        })
    }

    fn pass(&self, target: &Target, state: bool) -> Pass {
        Pass {
            order: self.clone(),
            target: target.clone(),
            state,
        }
    }

    /// The number of chats in memory.
    #[cfg(test)]
    pub(crate) fn chats_kept(&self) -> usize {
        self.chats().by_target.len()
    }
}

/// A call's place on its chat.
#[derive(Debug)]
pub(crate) enum Place {
    Running(Pass),
    Waiting(Waiter),
}

fn too_late(until: Instant) -> Error {
    let wait = until.duration_since(Instant::now());
    Error::new(
        ErrorKind::DeadlineExceeded,
        "an earlier call of the opposite state on this chat has no answer and may still arrive",
    )
    .with_station(Station::Order)
    .with_retry_after(Some(wait))
    .with_hint(text!(
        "Give the call a longer timeout, or call again after {retry_after}"
    ))
}

/// A place in line. Dropping it leaves the line.
#[derive(Debug)]
pub(crate) struct Waiter {
    order: Order,
    target: Target,
    state: bool,
    ticket: u64,
    /// Notified when the waiter is first in line and may be able to run.
    turn: Arc<Notify>,
}

impl Waiter {
    /// Waits until the call may run: no call of the opposite state is running on the chat, and no
    /// unanswered request of one can still arrive. Returns an error immediately if such a request can
    /// arrive until after the deadline.
    pub(crate) async fn enter(self, deadline: Option<Instant>) -> Result<Pass, Error> {
        loop {
            match self.try_enter() {
                Admission::Now => return Ok(self.order.pass(&self.target, self.state)),
                Admission::NotBefore(until) if deadline.is_some_and(|deadline| until >= deadline) => {
                    return Err(too_late(until));
                }
                Admission::NotBefore(until) => {
                    let _ = timeout_at(until, self.turn.notified()).await;
                }
                Admission::AfterOthers => self.turn.notified().await,
            }
        }
    }

    fn try_enter(&self) -> Admission {
        let chats = &mut *self.order.chats();
        let Some(chat) = chats.by_target.get_mut(&self.target) else {
            return Admission::AfterOthers;
        };
        let is_first = chat
            .line
            .first_key_value()
            .is_some_and(|(ticket, _)| *ticket == self.ticket);
        if !is_first {
            return Admission::AfterOthers;
        }
        let admission = chat.admission(self.state);
        if matches!(admission, Admission::Now) {
            chat.line.pop_first();
            chat.running[usize::from(self.state)] += 1;
            // The next waiter may have the same state.
            chat.wake_first();
        }
        admission
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let chats = &mut *self.order.chats();
        if let Some(chat) = chats.by_target.get_mut(&self.target) {
            // If it is still in line, it may have been notified and not polled since. So notify the next one.
            if chat.line.remove(&self.ticket).is_some() {
                chat.wake_first();
            }
        }
        chats.remove_if_idle(&self.target);
    }
}

/// A call's permission to run on its chat. Dropping it ends the call.
#[derive(Debug)]
pub(crate) struct Pass {
    order: Order,
    target: Target,
    state: bool,
}

impl Pass {
    /// Records that an unanswered request of this call may arrive until `until`.
    pub(crate) fn late_until(&self, until: Instant) {
        let chats = &mut *self.order.chats();
        let Some(chat) = chats.by_target.get_mut(&self.target) else {
            return;
        };
        let late = &mut chat.late_until[usize::from(self.state)];
        *late = (*late).max(Some(until));
        chats.unanswered.push_back((until, self.target.clone()));
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let target = mem::replace(&mut self.target, Target::Bot);
        if let Entry::Occupied(mut chat) = self.order.chats().by_target.entry(target) {
            chat.get_mut().running[usize::from(self.state)] -= 1;
            if chat.get().is_idle() {
                chat.remove();
            } else {
                chat.get().wake_first();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::task::JoinSet;

    use super::*;

    const PIN: bool = true;
    const UNPIN: bool = false;

    fn chat() -> Target {
        Target::Chat("oc_chat".into())
    }

    fn running(place: Place) -> Pass {
        match place {
            Place::Running(pass) => pass,
            Place::Waiting(waiter) => panic!("{waiter:?}"),
        }
    }

    fn waiting(place: Place) -> Waiter {
        match place {
            Place::Waiting(waiter) => waiter,
            Place::Running(pass) => panic!("{pass:?}"),
        }
    }

    /// Returns how long it takes this number of waiters to leave the line.
    async fn time_to_leave(count: usize) -> Duration {
        let order = Order::default();
        let pin = running(order.line_up(&chat(), PIN));
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut waiters = JoinSet::new();
        for _ in 0..count {
            let unpin = waiting(order.line_up(&chat(), UNPIN));
            waiters.spawn(timeout_at(deadline, unpin.enter(Some(deadline))));
        }
        let began = std::time::Instant::now();
        while let Some(ended) = waiters.join_next().await {
            assert!(ended.unwrap().is_err(), "the pin is still running");
        }
        let took = began.elapsed();
        drop(pin);
        assert_eq!(order.chats_kept(), 0);
        took
    }

    /// 64,000 waiters take 1 s in a debug build. They took 166 s when each waiter that left scanned the line. The limit
    /// is relative, so that it also holds on a busy machine: 16 times as many waiters would take 256 times as long.
    #[tokio::test(start_paused = true)]
    async fn leaving_does_not_scan_the_line() {
        let (few, many) = (time_to_leave(4_000).await, time_to_leave(64_000).await);
        assert!(many < 64 * few, "{few:?} and {many:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_dropped_between_its_notification_and_its_poll_wakes_the_next() {
        let order = Order::default();
        let pin = running(order.line_up(&chat(), PIN));
        let mut first = Box::pin(waiting(order.line_up(&chat(), UNPIN)).enter(None));
        assert!(first.as_mut().now_or_never().is_none());
        let second = waiting(order.line_up(&chat(), UNPIN));
        let second = tokio::spawn(second.enter(None));
        tokio::task::yield_now().await;

        drop(pin);
        drop(first);
        let entered = tokio::time::timeout(Duration::from_secs(1), second).await;
        assert!(entered.is_ok(), "the second waiter was not woken");
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_of_the_same_state_enter_together() {
        let order = Order::default();
        let pin = running(order.line_up(&chat(), PIN));
        let unpins = [(); 3].map(|()| tokio::spawn(waiting(order.line_up(&chat(), UNPIN)).enter(None)));
        let second_pin = tokio::spawn(waiting(order.line_up(&chat(), PIN)).enter(None));
        tokio::task::yield_now().await;
        drop(pin);
        let mut passes = Vec::new();
        for unpin in unpins {
            let entered = tokio::time::timeout(Duration::from_secs(1), unpin).await;
            passes.push(entered.unwrap().unwrap().unwrap());
        }
        assert!(!second_pin.is_finished(), "the unpins are still running");
        drop(passes);
        second_pin.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_opposite_call_waits_for_the_latest_of_several_unanswered_requests() {
        let order = Order::default();
        let began = Instant::now();
        let pin = running(order.line_up(&chat(), PIN));
        for late_until in [5, 8, 6] {
            pin.late_until(began + Duration::from_secs(late_until));
        }
        drop(pin);
        let unpin = waiting(order.line_up(&chat(), UNPIN));
        unpin.enter(None).await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 8);
    }
}
