//! The order of calls on one chat: calls of opposite state run in the order they were made and never
//! overlap. Otherwise a pin's late arrival or replay lands after the unpin, and nobody can dismiss it:
//! people cannot cancel an app's reminder themselves (FACTS: the call).

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::error::{Error, ErrorKind, Station};
use crate::input::Target;

/// The lines of all chats. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    chats: Mutex<Chats>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Chats {
    /// By the target's hash: two targets with one hash wait for each other, which does no harm.
    by_target: HashMap<u64, Chat, BuildHasherDefault<Hashed>>,
    /// When a chat may be forgotten although a request without an answer was last seen on it.
    late: VecDeque<(Instant, u64)>,
}

/// The keys are hashes already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        debug_assert!(false, "a key that is no u64: {bytes:?}");
    }
}

/// One chat, while calls run on it or a request of theirs may still arrive.
#[derive(Debug, Default)]
struct Chat {
    /// How many calls run, by their state.
    running: [usize; 2],
    /// Until when a request without an answer may arrive, by its state.
    late_until: [Option<Instant>; 2],
    line: VecDeque<Arc<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    state: bool,
    wake: Notify,
}

impl Chat {
    /// Whether a call of this state may start, or until when a late request keeps it from that.
    fn admits(&self, state: bool) -> Result<(), Option<Instant>> {
        let opposite = usize::from(!state);
        if self.running[opposite] > 0 {
            return Err(None);
        }
        match self.late_until[opposite] {
            Some(until) if until > Instant::now() => Err(Some(until)),
            _ => Ok(()),
        }
    }

    /// The clock is asked last: it costs more than all the rest, and hardly any chat has a late request.
    fn is_idle(&self) -> bool {
        self.running == [0, 0]
            && self.line.is_empty()
            && self
                .late_until
                .iter()
                .flatten()
                .all(|until| *until <= Instant::now())
    }

    fn wake_head(&self) {
        if let Some(head) = self.line.front() {
            head.wake.notify_one();
        }
    }
}

impl Order {
    fn chats(&self) -> MutexGuard<'_, Chats> {
        self.0.chats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many chats are kept.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.chats().by_target.len()
    }

    /// Takes a place at once, so that calls run in the order in which they were made and not in the
    /// one in which a runtime comes round to them.
    pub(crate) fn line_up(&self, target: &Target, state: bool) -> Place {
        let key = self.0.hasher.hash_one(target);
        let chats = &mut *self.chats();
        chats.forget();
        let chat = chats.by_target.entry(key).or_default();
        if chat.line.is_empty() && chat.admits(state).is_ok() {
            chat.running[usize::from(state)] += 1;
            return Place::Running(Pass {
                order: self.clone(),
                key,
                state,
            });
        }
        let waiter = Arc::new(Waiter {
            state,
            wake: Notify::new(),
        });
        chat.line.push_back(waiter.clone());
        Place::Waiting(Waiting {
            order: self.clone(),
            key,
            waiter,
        })
    }
}

/// Where a call stands on its chat.
#[derive(Debug)]
pub(crate) enum Place {
    Running(Pass),
    Waiting(Waiting),
}

fn too_late(until: Instant) -> Error {
    let wait = until.duration_since(Instant::now());
    Error::new(
        ErrorKind::DeadlineExceeded,
        "an earlier call of the opposite state on this chat has no answer and may still arrive",
    )
    .with_station(Station::Order)
    .with_retry_after(Some(wait))
    .with_hint("Give the call a longer timeout, or call again after retry_after")
}

impl Chats {
    /// Drops chats that were kept only for a request that may arrive late.
    fn forget(&mut self) {
        while let Some((until, key)) = self.late.front().copied()
            && until <= Instant::now()
        {
            self.late.pop_front();
            self.drop_if_idle(key);
        }
    }

    fn drop_if_idle(&mut self, key: u64) {
        if self.by_target.get(&key).is_some_and(Chat::is_idle) {
            self.by_target.remove(&key);
        }
    }
}

enum Turn {
    Mine,
    /// With the time at which it is worth looking again, if there is one.
    NotYet(Option<Instant>),
}

/// A place in line, given up when dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    order: Order,
    key: u64,
    waiter: Arc<Waiter>,
}

impl Waiting {
    /// Waits until no call of the opposite state runs on the chat, nor a request of one may still
    /// arrive. Fails at once where that is known to last longer than the deadline.
    pub(crate) async fn enter(self, deadline: Option<Instant>) -> Result<Pass, Error> {
        loop {
            match self.try_enter() {
                Turn::Mine => {
                    return Ok(Pass {
                        order: self.order.clone(),
                        key: self.key,
                        state: self.waiter.state,
                    });
                }
                Turn::NotYet(Some(until)) if deadline.is_some_and(|deadline| until >= deadline) => {
                    return Err(too_late(until));
                }
                Turn::NotYet(Some(until)) => tokio::select! {
                    () = self.waiter.wake.notified() => {}
                    () = sleep_until(until) => {}
                },
                Turn::NotYet(None) => self.waiter.wake.notified().await,
            }
        }
    }

    fn try_enter(&self) -> Turn {
        let chats = &mut *self.order.chats();
        let Some(chat) = chats.by_target.get_mut(&self.key) else {
            return Turn::NotYet(None);
        };
        if !chat
            .line
            .front()
            .is_some_and(|head| Arc::ptr_eq(head, &self.waiter))
        {
            return Turn::NotYet(None);
        }
        match chat.admits(self.waiter.state) {
            Ok(()) => {
                chat.line.pop_front();
                chat.running[usize::from(self.waiter.state)] += 1;
                // The next one may be of the same state.
                chat.wake_head();
                Turn::Mine
            }
            Err(until) => Turn::NotYet(until),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let chats = &mut *self.order.chats();
        if let Some(chat) = chats.by_target.get_mut(&self.key) {
            let before = chat.line.len();
            chat.line.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
            if chat.line.len() < before {
                chat.wake_head();
            }
        }
        chats.drop_if_idle(self.key);
    }
}

/// A call's permission to run on its chat. Dropping it ends the call.
#[derive(Debug)]
pub(crate) struct Pass {
    order: Order,
    key: u64,
    state: bool,
}

impl Pass {
    /// A request of this call has no answer and may arrive until then.
    pub(crate) fn late_until(&self, until: Instant) {
        let chats = &mut *self.order.chats();
        let Some(chat) = chats.by_target.get_mut(&self.key) else {
            return;
        };
        let late = &mut chat.late_until[usize::from(self.state)];
        if late.is_none_or(|earlier| earlier < until) {
            *late = Some(until);
            chats.late.push_back((until, self.key));
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let chats = &mut *self.order.chats();
        if let Some(chat) = chats.by_target.get_mut(&self.key) {
            chat.running[usize::from(self.state)] -= 1;
            chat.wake_head();
        }
        chats.drop_if_idle(self.key);
    }
}
