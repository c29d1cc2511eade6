//! The quota: 50 calls a second and 1,000 a minute, for each of the two calls (the platform's page).
//!
//! A request takes a slot in both windows before it leaves. The slot comes free one window after the
//! platform's **answer**: the arrival lies before it, so the platform never counts more than its limit,
//! whatever the latency. Waiters form one line for each of the two calls; only its head has a timer.

use std::collections::VecDeque;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::error::{Error, ErrorKind, Station};

/// How many calls the platform allows.
///
/// ```
/// use feishu_feed_card::{Client, RateLimit};
///
/// assert_eq!(RateLimit::default(), RateLimit::new(50, 1000));
/// // Half of it for this process, and the rest for another one.
/// let client = Client::builder().app("cli_…", "secret").rate_limit(RateLimit::new(25, 500)).build()?;
/// # Ok::<(), feishu_feed_card::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimit {
    /// Calls in any second.
    pub per_second: u32,
    /// Calls in any minute.
    pub per_minute: u32,
}

impl RateLimit {
    /// The platform's own limit: 50 a second, 1,000 a minute (the platform's page).
    pub const PLATFORM: Self = Self::new(50, 1000);

    /// A limit of `per_second` calls in any second and `per_minute` in any minute.
    pub const fn new(per_second: u32, per_minute: u32) -> Self {
        Self {
            per_second,
            per_minute,
        }
    }
}

impl Default for RateLimit {
    fn default() -> Self {
        Self::PLATFORM
    }
}

/// A client's quota, to share it with another client of the same app.
///
/// ```
/// use feishu_feed_card::Client;
///
/// let first = Client::builder().app("cli_…", "secret").build()?;
/// let mut builder = Client::builder().tenant_access_token("t-7f1bcd13fc57d46bac21793a18e560");
/// if let Some(quota) = first.quota() {
///     builder = builder.quota(quota);
/// }
/// let second = builder.build()?;
/// # Ok::<(), feishu_feed_card::Error>(())
/// ```
#[derive(Clone)]
pub struct QuotaHandle(pub(crate) Arc<Quota>);

impl QuotaHandle {
    pub(crate) fn new(limit: RateLimit) -> Self {
        Self(Arc::new(Quota::new(limit)))
    }

    #[cfg(test)]
    pub(crate) fn with_rule(self, rule: Rule) -> Self {
        *self.0.rule.lock().unwrap_or_else(PoisonError::into_inner) = rule;
        self
    }

    pub(crate) fn lane(&self, lane: Lane) -> LaneHandle {
        LaneHandle {
            quota: self.0.clone(),
            lane,
        }
    }
}

impl fmt::Debug for QuotaHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state();
        f.debug_struct("QuotaHandle")
            .field("limit", &state.limit)
            .finish_non_exhaustive()
    }
}

/// The limit is per interface: the group call and the bot call have windows of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Chat,
    Bot,
}

/// For how long a used-up monthly quota is believed before one call asks again: an administrator may
/// raise it.
const EXHAUSTED_FOR: Duration = Duration::from_secs(60);

/// No window of the platform is longer than a minute: a reset beyond this is a mistake, and must not
/// stop the client for a day.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// How long a told limit is believed: the next refusal tells it again.
const LOWERED_FOR: Duration = Duration::from_secs(600);

/// What the clocks of two machines may differ by over a window: NTP slews at most 0.05 %, so 0.2 % is
/// safe.
const SLEW: f64 = 1.002;

#[derive(Debug)]
pub(crate) struct Quota {
    state: Mutex<State>,
    lines: [Line; 2],
    #[cfg(test)]
    rule: Mutex<Rule>,
}

/// When a slot comes free: as promised, and two ways that the simulation must find wanting.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rule {
    #[default]
    Answer,
    Sending,
    Cancelling,
}

/// The waiters of one lane, first come, first served.
#[derive(Debug)]
struct Line {
    turn: Semaphore,
    waiting: AtomicUsize,
    /// For the head: a slot was given back, or is about to come free sooner.
    freed: Notify,
    /// For everyone in line: the platform made us pause or stop.
    told: Notify,
}

#[derive(Debug)]
struct State {
    limit: RateLimit,
    windows: [[Window; 2]; 2],
    paused_until: Option<Instant>,
    /// The pace after a pause; `None` when the windows alone decide.
    pace: Option<Pace>,
    exhausted: Option<(Instant, Error)>,
}

/// The slots of one window: given out, or coming free at a known time, or free.
#[derive(Debug)]
struct Window {
    span: Duration,
    most: usize,
    /// What the platform told, and until when it is believed.
    lowered: Option<(usize, Instant)>,
    given: usize,
    /// When the slots that were used come free, soonest first.
    freeing: VecDeque<Instant>,
}

/// Someone else uses the quota too. After a pause the calls leave one by one, at half the rate that was
/// too much, a little faster with each that is taken.
#[derive(Debug)]
struct Pace {
    per_second: f64,
    next: Instant,
    since: Instant,
}

/// Why there is no slot.
#[derive(Debug)]
pub(crate) enum NoSlot {
    /// None before the deadline; how long one would have to wait.
    TooLate(Duration),
    /// The month's quota is used up.
    Exhausted(Error),
}

impl From<NoSlot> for Error {
    fn from(reason: NoSlot) -> Self {
        match reason {
            NoSlot::TooLate(wait) => Self::new(
                ErrorKind::RateLimited,
                "the quota has no slot before the deadline",
            )
            .with_retry_after(Some(wait))
            .with_station(Station::Quota)
            .with_hint("Give the call a longer timeout, or call again after retry_after"),
            NoSlot::Exhausted(error) => error.with_station(Station::Quota),
        }
    }
}

impl Window {
    fn new(seconds: u64, capacity: u32) -> Self {
        Self {
            span: Duration::from_secs(seconds).mul_f64(SLEW),
            most: capacity as usize,
            lowered: None,
            given: 0,
            freeing: VecDeque::new(),
        }
    }

    fn purge(&mut self, now: Instant) {
        while self.freeing.front().is_some_and(|at| *at <= now) {
            self.freeing.pop_front();
        }
        if self.lowered.is_some_and(|(_, until)| until <= now) {
            self.lowered = None;
        }
    }

    fn capacity(&self) -> usize {
        self.lowered
            .map_or(self.most, |(lowered, _)| self.most.min(lowered))
    }

    fn free(&self) -> usize {
        self.capacity().saturating_sub(self.given + self.freeing.len())
    }

    /// The soonest that the next one but `ahead` may have a slot. Never later than what comes true.
    fn soonest(&self, now: Instant, ahead: usize) -> Instant {
        let rounds = ahead / self.capacity();
        let index = ahead % self.capacity();
        let over = (self.given + self.freeing.len()).saturating_sub(self.capacity());
        let first = match index.checked_sub(self.free()) {
            None => now,
            Some(nth) => self.freeing.get(nth + over).copied().unwrap_or(now + self.span),
        };
        first
            + self
                .span
                .saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
    }
}

impl State {
    /// The soonest that the next one but `ahead` may go, or why never.
    fn soonest(&mut self, lane: Lane, now: Instant, ahead: usize) -> Result<Instant, NoSlot> {
        if let Some((until, error)) = &self.exhausted {
            if now < *until {
                return Err(NoSlot::Exhausted(error.clone()));
            }
            self.exhausted = None;
        }
        let mut soonest = self.paused_until.map_or(now, |until| until.max(now));
        if let Some(pace) = &self.pace {
            soonest = soonest.max(pace.next);
        }
        for window in &mut self.windows[lane as usize] {
            window.purge(now);
            soonest = soonest.max(window.soonest(now, ahead));
        }
        Ok(soonest)
    }

    fn soonest_within(
        &mut self,
        lane: Lane,
        now: Instant,
        ahead: usize,
        deadline: Option<Instant>,
    ) -> Result<Instant, NoSlot> {
        let soonest = self.soonest(lane, now, ahead)?;
        if deadline.is_some_and(|deadline| soonest >= deadline) {
            return Err(NoSlot::TooLate(soonest.duration_since(now)));
        }
        Ok(soonest)
    }

    /// Takes a slot where one is free now. Most calls find one, and need not know when.
    fn try_take(&mut self, lane: Lane, now: Instant) -> bool {
        let is_exhausted = self.exhausted.as_ref().is_some_and(|(until, _)| now < *until);
        let is_held = is_exhausted || self.paused_until.is_some_and(|until| now < until);
        if is_held || self.pace.as_ref().is_some_and(|pace| now < pace.next) {
            return false;
        }
        let windows = &mut self.windows[lane as usize];
        for window in &mut *windows {
            window.purge(now);
        }
        if windows.iter().any(|window| window.free() == 0) {
            return false;
        }
        for window in windows {
            window.given += 1;
        }
        if let Some(pace) = &mut self.pace {
            pace.next = now + Duration::from_secs_f64(1.0 / pace.per_second);
        }
        true
    }
}

impl State {
    /// A call came within the platform's limit: the pace may rise, by about one call a second every second.
    fn quicken(&mut self) {
        if let Some(pace) = &mut self.pace {
            pace.per_second += 1.0 / pace.per_second.max(1.0);
            if pace.per_second >= f64::from(self.limit.per_second) {
                self.pace = None;
            }
        }
    }
}

impl Quota {
    fn new(limit: RateLimit) -> Self {
        let windows = || {
            [
                Window::new(1, limit.per_second),
                Window::new(60, limit.per_minute),
            ]
        };
        let line = || Line {
            turn: Semaphore::new(1),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
            told: Notify::new(),
        };
        let state = State {
            limit,
            windows: [windows(), windows()],
            paused_until: None,
            pace: None,
            exhausted: None,
        };
        Self {
            state: Mutex::new(state),
            lines: [line(), line()],
            #[cfg(test)]
            rule: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One lane of a quota.
#[derive(Clone, Debug)]
pub(crate) struct LaneHandle {
    quota: Arc<Quota>,
    lane: Lane,
}

/// Counts one waiter while it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl LaneHandle {
    fn line(&self) -> &Line {
        &self.quota.lines[self.lane as usize]
    }

    /// Whether the last of `count` requests can have its slot before the deadline.
    pub(crate) fn check(&self, count: usize, deadline: Option<Instant>) -> Result<(), NoSlot> {
        let ahead = self.line().waiting.load(Ordering::Relaxed) + count.saturating_sub(1);
        self.soonest_within(Instant::now(), ahead, deadline).map(drop)
    }

    /// How many wait in line.
    pub(crate) fn waiting(&self) -> usize {
        self.line().waiting.load(Ordering::Relaxed)
    }

    /// How long the next one but `ahead` waits at least.
    pub(crate) fn estimate(&self, ahead: usize) -> Duration {
        let now = Instant::now();
        let soonest = self.quota.state().soonest(self.lane, now, ahead);
        soonest.map_or(EXHAUSTED_FOR, |at| at.duration_since(now))
    }

    fn soonest_within(
        &self,
        now: Instant,
        ahead: usize,
        deadline: Option<Instant>,
    ) -> Result<Instant, NoSlot> {
        self.quota.state().soonest_within(self.lane, now, ahead, deadline)
    }

    /// A slot that is free now, where nobody waits for one. Fails where none can come before the deadline.
    pub(crate) fn take_at_once(&self, deadline: Option<Instant>) -> Result<Option<Slot>, NoSlot> {
        // Whoever stands in line, its head too, is counted until it has its slot.
        if self.waiting() > 0 {
            return Ok(None);
        }
        Ok(self.take_at_head(deadline)?.ok())
    }

    /// Waits in line for a slot. Fails at once where none can come before the deadline. Dropping the
    /// future gives the place in line up.
    pub(crate) async fn take(&self, deadline: Option<Instant>) -> Result<Slot, NoSlot> {
        let line = self.line();
        let mut ahead = line.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&line.waiting);
        tracing::debug!(ahead, "waiting for a slot of the quota");
        let mut turn = pin!(line.turn.acquire());
        let _turn = loop {
            let mut told = pin!(line.told.notified());
            told.as_mut().enable();
            self.soonest_within(Instant::now(), ahead, deadline)?;
            tokio::select! {
                biased;
                turn = &mut turn => break turn,
                () = told => {}
            }
            // Those before us may have gone meanwhile.
            ahead = 0;
        };
        loop {
            let mut freed = pin!(line.freed.notified());
            freed.as_mut().enable();
            match self.take_at_head(deadline)? {
                Ok(slot) => return Ok(slot),
                Err(soonest) => tokio::select! {
                    () = sleep_until(soonest) => {}
                    () = freed => {}
                },
            }
        }
    }

    fn take_at_head(&self, deadline: Option<Instant>) -> Result<Result<Slot, Instant>, NoSlot> {
        let now = Instant::now();
        let state = &mut *self.quota.state();
        if deadline.is_none_or(|deadline| now < deadline) && state.try_take(self.lane, now) {
            return Ok(Ok(Slot {
                lane: self.clone(),
                taken_at: now,
                given_back: false,
            }));
        }
        state.soonest_within(self.lane, now, 0, deadline).map(Err)
    }

    /// The platform said that the frequency limit is passed: everyone waits as long as it says, and
    /// then comes back gently. `sent_at` is when the refused request had its slot: those that left
    /// before the last pause say nothing new of the pace.
    pub(crate) fn pause(&self, wait: Duration, limit: Option<u32>, sent_at: Instant) {
        let now = Instant::now();
        tracing::warn!(
            wait_s = wait.as_secs_f64(),
            limit,
            "the platform says to slow down: the client pauses"
        );
        {
            let state = &mut *self.quota.state();
            if let Some(limit) = limit {
                lower(state, self.lane, limit, now + LOWERED_FOR);
            }
            let until = now + wait.min(LONGEST_PAUSE);
            state.paused_until = Some(state.paused_until.map_or(until, |earlier| earlier.max(until)));
            let allowed = f64::from(state.limit.per_second);
            let current = state.pace.as_ref();
            if current.is_none_or(|pace| sent_at >= pace.since) {
                let per_second = (current.map_or(allowed, |pace| pace.per_second) / 2.0).max(0.5);
                let next = until + Duration::from_secs_f64(1.0 / per_second);
                let next = current.map_or(next, |pace| pace.next.max(next));
                state.pace = Some(Pace {
                    per_second,
                    next,
                    since: now,
                });
            }
        }
        self.tell();
    }

    /// The month's quota is used up: everyone stops.
    pub(crate) fn exhaust(&self, error: Error) {
        self.quota.state().exhausted = Some((Instant::now() + EXHAUSTED_FOR, error));
        self.tell();
    }

    fn tell(&self) {
        for line in &self.quota.lines {
            line.freed.notify_one();
            line.told.notify_waiters();
        }
    }
}

/// A told limit below ours is the truth for a while; which window it is for, its size says.
fn lower(state: &mut State, lane: Lane, limit: u32, until: Instant) {
    let [second, minute] = &mut state.windows[lane as usize];
    let window = if limit <= RateLimit::PLATFORM.per_second {
        second
    } else {
        minute
    };
    window.lowered = Some((limit as usize, until));
}

/// The right to send one request. Dropped without an end it was not used.
#[derive(Debug)]
pub(crate) struct Slot {
    lane: LaneHandle,
    taken_at: Instant,
    given_back: bool,
}

impl Slot {
    pub(crate) fn taken_at(&self) -> Instant {
        self.taken_at
    }

    /// The platform answered, so the request has arrived, within its limit or not.
    pub(crate) fn answered(self, in_time: bool) {
        self.free_after(Instant::now(), in_time);
    }

    /// The connection closed without an answer; the request arrives within `late_arrival` if at all.
    pub(crate) fn unanswered(self, late_arrival: Duration) {
        #[cfg(test)]
        if self.rule() == Rule::Cancelling {
            return;
        }
        self.free_after(Instant::now() + late_arrival, false);
    }

    /// The slot comes free one window after the latest time at which the request may arrive.
    fn free_after(mut self, latest: Instant, in_time: bool) {
        #[cfg(test)]
        let latest = if self.rule() == Rule::Sending {
            self.taken_at
        } else {
            latest
        };
        self.given_back = true;
        let state = &mut *self.lane.quota.state();
        if in_time {
            state.quicken();
        }
        for window in &mut state.windows[self.lane.lane as usize] {
            window.given = window.given.saturating_sub(1);
            let frees_at = latest + window.span;
            let is_last = window.freeing.back().is_none_or(|last| *last <= frees_at);
            if is_last {
                window.freeing.push_back(frees_at);
            } else {
                // Requests without an answer free their slots later than those sent after them.
                let place = window.freeing.partition_point(|other| *other <= frees_at);
                window.freeing.insert(place, frees_at);
            }
        }
    }

    #[cfg(test)]
    fn rule(&self) -> Rule {
        *self
            .lane
            .quota
            .rule
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.given_back {
            return;
        }
        for window in &mut self.lane.quota.state().windows[self.lane.lane as usize] {
            window.given = window.given.saturating_sub(1);
        }
        self.lane.line().freed.notify_one();
    }
}
