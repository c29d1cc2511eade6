//! The quota: 50 calls a second and 1,000 a minute, for each of the two interfaces (docs/platform.md#limits).
//!
//! A request takes a slot in both windows before it is sent. The slot becomes free one window after the
//! platform's **answer**. The request arrived before that, so the platform never counts more than its limit,
//! regardless of latency. Waiters form one line for each interface, and only the first one has a timer.

use std::collections::VecDeque;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::select;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::data::error::{Error, ErrorKind, Station};
use crate::data::text::text;

/// A limit of calls per second and per minute.
///
/// ```
/// use feishu_feed_card::{Client, Error, RateLimit};
///
/// /// Half of the platform's limit, because another process uses the other half.
/// fn client_with_half(app_id: &str, app_secret: &str) -> Result<Client, Error> {
///     let RateLimit { per_second, per_minute, .. } = RateLimit::PLATFORM;
///     let half = RateLimit::new(per_second / 2, per_minute / 2);
///     Client::builder().app(app_id, app_secret).rate_limit(half).build()
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RateLimit {
    /// Calls in any second.
    pub per_second: u32,
    /// Calls in any minute.
    pub per_minute: u32,
}

impl RateLimit {
    /// The platform's own limit: 50 a second, 1,000 a minute (docs/platform.md#limits).
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
/// use feishu_feed_card::{Client, Error};
///
/// fn second_client(first: &Client, token: &str) -> Result<Client, Error> {
///     let mut builder = Client::builder().tenant_access_token(token);
///     if let Some(quota) = first.quota() {
///         builder = builder.quota(quota);
///     }
///     builder.build()
/// }
/// # fn main() -> Result<(), Error> {
/// #     let first = Client::builder().app("cli_…", "secret").build()?;
/// #     second_client(&first, "t-7f1bcd13fc57d46bac21793a18e560").map(drop)
/// # }
/// ```
#[derive(Clone)]
pub struct QuotaHandle(pub(crate) Arc<Quota>);

impl QuotaHandle {
    pub(crate) fn new(limit: RateLimit) -> Self {
        Self(Arc::new(Quota::new(limit)))
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

/// One of the two interfaces. The platform's limit is per interface, so each has its own windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Chat,
    Bot,
}

/// How long calls fail without being sent after the monthly quota is exhausted. After that, calls are sent again,
/// because an administrator may have raised the quota.
const EXHAUSTED_FOR: Duration = Duration::from_secs(60);

/// Longest pause that the client accepts. The platform's windows have a minute at most, so a much longer
/// `x-ogw-ratelimit-reset` is a mistake, and must not stop the client for a day.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// How long a limit from a 429 response applies. Safe to forget: the next 429 repeats it.
const LOWERED_FOR: Duration = Duration::from_secs(600);

/// How much longer a window is than the platform's, because two clocks may run at different speeds. NTP changes the
/// speed of a clock by 0.05 % at most, so 0.2 % is safe.
const CLOCK_DRIFT: f64 = 1.002;

#[derive(Debug)]
pub(crate) struct Quota {
    state: Mutex<QuotaState>,
    lines: [Line; 2],
}

/// The waiters of one lane, first come, first served.
#[derive(Debug)]
struct Line {
    /// Held by the first waiter. tokio's mutex is fair, and a waiter leaves its queue in O(1).
    first: tokio::sync::Mutex<()>,
    /// Number of calls without a slot, including the first one.
    waiting: AtomicUsize,
    /// Notifies the first waiter that the time of its slot may have changed.
    freed: Notify,
    /// Notifies all waiters that the platform has paused the client, or that the monthly quota is exhausted.
    slowed_down: Notify,
}

#[derive(Debug)]
struct QuotaState {
    limit: RateLimit,
    /// The windows of a second and of a minute, for each lane.
    windows: [[Window; 2]; 2],
    paused_until: Option<Instant>,
    /// The pace after a pause; `None` if only the windows limit the calls.
    pace: Option<Pace>,
    /// When to probe again after the monthly quota was exhausted, and the platform's error.
    exhausted: Option<(Instant, Error)>,
}

/// The slots of one window. Each is free, in use by a request, or becomes free at a known time.
#[derive(Debug)]
struct Window {
    span: Duration,
    slots: usize,
    /// Limit reported by the platform, and when to stop trusting it.
    lowered: Option<(usize, Instant)>,
    in_use: usize,
    /// When used slots become free, soonest first.
    freeing: VecDeque<Instant>,
}

/// The pace of calls after a pause. If the platform refuses calls although the client stays within its limit, someone
/// else uses the same quota. Calls are then sent one by one, first at half the rate that was too high, and faster with
/// each call that the platform accepts.
#[derive(Debug)]
struct Pace {
    per_second: f64,
    /// When the next call may be sent.
    next: Instant,
    /// When the platform asked for the pause.
    since: Instant,
}

/// The reason why a call gets no slot.
#[derive(Debug)]
pub(crate) enum NoSlot {
    /// No slot becomes free before the deadline. The shortest time that the call would have to wait.
    TooLate(Duration),
    /// The monthly quota is exhausted.
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
            .with_hint(text!(
                "Give the call a longer timeout, or call again after {retry_after}"
            )),
            NoSlot::Exhausted(error) => error.with_station(Station::Quota),
        }
    }
}

impl Window {
    fn new(seconds: u64, slots: u32) -> Self {
        Self {
            span: Duration::from_secs(seconds).mul_f64(CLOCK_DRIFT),
            slots: slots as usize,
            lowered: None,
            in_use: 0,
            freeing: VecDeque::new(),
        }
    }

    fn remove_expired(&mut self, now: Instant) {
        while self.freeing.front().is_some_and(|at| *at <= now) {
            self.freeing.pop_front();
        }
        if self.lowered.is_some_and(|(_, until)| until <= now) {
            self.lowered = None;
        }
    }

    fn capacity(&self) -> usize {
        self.lowered
            .map_or(self.slots, |(lowered, _)| self.slots.min(lowered))
    }

    fn taken(&self) -> usize {
        self.in_use + self.freeing.len()
    }

    fn free(&self) -> usize {
        self.capacity().saturating_sub(self.taken())
    }

    /// A lower bound for the time at which a call with `ahead` calls before it can have a slot.
    fn soonest(&self, now: Instant, ahead: usize) -> Instant {
        let rounds = ahead / self.capacity();
        let index = ahead % self.capacity();
        // Slots taken in excess of a limit that was lowered. These must become free first.
        let excess = self.taken().saturating_sub(self.capacity());
        let first = match index.checked_sub(self.free()) {
            None => now,
            Some(nth) => self.freeing.get(nth + excess).copied().unwrap_or(now + self.span),
        };
        let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
        first + self.span.saturating_mul(rounds)
    }

    fn give_back(&mut self) {
        self.in_use = self.in_use.saturating_sub(1);
    }

    fn free_at(&mut self, at: Instant) {
        self.give_back();
        // Nearly always the end of the queue. Only slots of unanswered requests may become free later than slots of
        // requests that were sent after them.
        let later = self.freeing.iter().rev().take_while(|other| **other > at).count();
        self.freeing.insert(self.freeing.len() - later, at);
    }
}

impl QuotaState {
    /// A lower bound for the time at which a call with `ahead` calls before it can have a slot.
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
            window.remove_expired(now);
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

    fn take_slot(&mut self, lane: Lane, now: Instant) {
        for window in &mut self.windows[lane as usize] {
            window.in_use += 1;
        }
        if let Some(pace) = &mut self.pace {
            pace.next = now + Duration::from_secs_f64(1.0 / pace.per_second);
        }
    }

    /// Raises the pace after the platform has accepted a call: by about one call a second, every second.
    fn speed_up(&mut self) {
        if let Some(pace) = &mut self.pace {
            pace.per_second += 1.0 / pace.per_second.max(1.0);
            if pace.per_second >= f64::from(self.limit.per_second) {
                self.pace = None;
            }
        }
    }

    /// Halves the pace for calls after `paused_until`. Ignores the refusal of a request that was sent before the last
    /// pause, because the pace was higher then.
    fn slow_down(&mut self, now: Instant, paused_until: Instant, sent_at: Instant) {
        let current = self.pace.as_ref();
        if current.is_some_and(|pace| sent_at < pace.since) {
            return;
        }
        let allowed = f64::from(self.limit.per_second);
        let per_second = (current.map_or(allowed, |pace| pace.per_second) / 2.0).max(0.5);
        let next = paused_until + Duration::from_secs_f64(1.0 / per_second);
        let next = current.map_or(next, |pace| pace.next.max(next));
        self.pace = Some(Pace {
            per_second,
            next,
            since: now,
        });
    }

    /// Applies a lower limit reported by the platform. The header does not name the window, so infer it from
    /// the value.
    fn lower(&mut self, lane: Lane, limit: u32, until: Instant) {
        let [second, minute] = &mut self.windows[lane as usize];
        let window = if limit <= RateLimit::PLATFORM.per_second {
            second
        } else {
            minute
        };
        window.lowered = Some((limit as usize, until));
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
            first: tokio::sync::Mutex::default(),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
            slowed_down: Notify::new(),
        };
        let state = QuotaState {
            limit,
            windows: [windows(), windows()],
            paused_until: None,
            pace: None,
            exhausted: None,
        };
        Self {
            state: Mutex::new(state),
            lines: [line(), line()],
        }
    }

    fn state(&self) -> MutexGuard<'_, QuotaState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One lane of a quota.
#[derive(Clone, Debug)]
pub(crate) struct LaneHandle {
    quota: Arc<Quota>,
    lane: Lane,
}

/// The result of trying to take a slot without waiting.
enum Taking {
    Taken(Slot),
    NotBefore(Instant),
}

/// Counts a waiter until it is dropped.
struct CountedWaiter<'a>(&'a AtomicUsize);

impl Drop for CountedWaiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl LaneHandle {
    fn line(&self) -> &Line {
        &self.quota.lines[self.lane as usize]
    }

    /// Returns an error if the last of `count` more requests cannot have its slot before the deadline.
    pub(crate) fn check(&self, count: usize, deadline: Option<Instant>) -> Result<(), NoSlot> {
        let ahead = self.waiting() + count.saturating_sub(1);
        self.check_wait(ahead, deadline)
    }

    /// The number of calls without a slot.
    pub(crate) fn waiting(&self) -> usize {
        self.line().waiting.load(Ordering::Relaxed)
    }

    /// The shortest time that a call with `ahead` calls before it has to wait.
    pub(crate) fn estimate(&self, ahead: usize) -> Duration {
        let now = Instant::now();
        let soonest = self.quota.state().soonest(self.lane, now, ahead);
        soonest.map_or(EXHAUSTED_FOR, |at| at.duration_since(now))
    }

    fn check_wait(&self, ahead: usize, deadline: Option<Instant>) -> Result<(), NoSlot> {
        let state = &mut *self.quota.state();
        state
            .soonest_within(self.lane, Instant::now(), ahead, deadline)
            .map(drop)
    }

    /// Takes a slot, immediately if one is free and no call waits, otherwise in line. Returns an error as soon as no slot
    /// can become free before the deadline, which a pause by the platform may cause. Dropping the future leaves the
    /// line.
    pub(crate) async fn take(&self, deadline: Option<Instant>) -> Result<Slot, NoSlot> {
        let line = self.line();
        let ahead = line.waiting.fetch_add(1, Ordering::Relaxed);
        let _counted = CountedWaiter(&line.waiting);
        if ahead == 0
            && let Taking::Taken(slot) = self.try_take(deadline)?
        {
            return Ok(slot);
        }
        tracing::debug!(ahead, "waiting for a slot of the quota");
        // Boxed, because most calls do not wait, and need no room for it.
        Box::pin(self.take_in_line(ahead, deadline)).await
    }

    async fn take_in_line(&self, ahead: usize, deadline: Option<Instant>) -> Result<Slot, NoSlot> {
        let _first_in_line = self.wait_in_line(ahead, deadline).await?;
        loop {
            let mut freed = pin!(self.line().freed.notified());
            freed.as_mut().enable();
            match self.try_take(deadline)? {
                Taking::Taken(slot) => return Ok(slot),
                Taking::NotBefore(soonest) => {
                    let _ = timeout_at(soonest, freed).await;
                }
            }
        }
    }

    /// Waits until the call is the first in line.
    async fn wait_in_line(
        &self,
        mut ahead: usize,
        deadline: Option<Instant>,
    ) -> Result<tokio::sync::MutexGuard<'_, ()>, NoSlot> {
        let line = self.line();
        let mut first = pin!(line.first.lock());
        loop {
            let mut slowed_down = pin!(line.slowed_down.notified());
            slowed_down.as_mut().enable();
            self.check_wait(ahead, deadline)?;
            select! {
                biased;
                guard = &mut first => return Ok(guard),
                () = slowed_down => {}
            }
            // How many calls are still ahead is unknown, because some may have left. 0 is a lower bound.
            ahead = 0;
        }
    }

    fn try_take(&self, deadline: Option<Instant>) -> Result<Taking, NoSlot> {
        let now = Instant::now();
        let state = &mut *self.quota.state();
        let soonest = state.soonest_within(self.lane, now, 0, deadline)?;
        if soonest > now {
            return Ok(Taking::NotBefore(soonest));
        }
        state.take_slot(self.lane, now);
        Ok(Taking::Taken(Slot {
            lane: self.clone(),
            taken_at: now,
            is_used: false,
        }))
    }

    /// Pauses all calls after the platform has refused a request because of its frequency limit. They wait for `wait`,
    /// and are then sent at a lower pace. `limit` is the limit in the platform's answer. `sent_at` is when the refused
    /// request took its slot.
    pub(crate) fn pause(&self, wait: Duration, limit: Option<u32>, sent_at: Instant) {
        let now = Instant::now();
        {
            let state = &mut *self.quota.state();
            if let Some(limit) = limit {
                state.lower(self.lane, limit, now + LOWERED_FOR);
            }
            let until = now + wait.min(LONGEST_PAUSE);
            state.paused_until = Some(state.paused_until.map_or(until, |earlier| earlier.max(until)));
            state.slow_down(now, until, sent_at);
        }
        self.wake_all();
    }

    /// Makes all calls fail for [`EXHAUSTED_FOR`], because the monthly quota is exhausted.
    pub(crate) fn exhaust(&self, error: Error) {
        self.quota.state().exhausted = Some((Instant::now() + EXHAUSTED_FOR, error));
        self.wake_all();
    }

    fn wake_all(&self) {
        for line in &self.quota.lines {
            line.freed.notify_one();
            line.slowed_down.notify_waiters();
        }
    }
}

/// The permission to send one request. If it is dropped unused, it is free again immediately.
#[derive(Debug)]
pub(crate) struct Slot {
    lane: LaneHandle,
    taken_at: Instant,
    is_used: bool,
}

impl Slot {
    pub(crate) fn taken_at(&self) -> Instant {
        self.taken_at
    }

    /// Frees the slot one window from now, because the platform has answered. `is_accepted` says whether the request was
    /// within the platform's limit.
    pub(crate) fn answered(self, is_accepted: bool) {
        self.free_after(Instant::now(), is_accepted);
    }

    /// Frees the slot one window after `late_arrival`, because the connection closed without an answer. A request that
    /// still arrives does so within `late_arrival`.
    pub(crate) fn unanswered(self, late_arrival: Duration) {
        self.free_after(Instant::now() + late_arrival, false);
    }

    /// Frees the slot one window after the latest time at which the request may arrive.
    fn free_after(mut self, latest_arrival: Instant, is_accepted: bool) {
        self.is_used = true;
        let state = &mut *self.lane.quota.state();
        if is_accepted {
            state.speed_up();
        }
        for window in &mut state.windows[self.lane.lane as usize] {
            window.free_at(latest_arrival + window.span);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.is_used {
            return;
        }
        for window in &mut self.lane.quota.state().windows[self.lane.lane as usize] {
            window.give_back();
        }
        self.lane.line().freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::task::JoinHandle;
    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn lane(per_second: u32, per_minute: u32) -> LaneHandle {
        QuotaHandle::new(RateLimit::new(per_second, per_minute)).lane(Lane::Chat)
    }

    fn take_now(lane: &LaneHandle) -> Slot {
        let slot = lane.take(None).now_or_never();
        slot.expect("a slot is free").unwrap()
    }

    /// Starts a task that takes a slot. It waits in line when this function returns.
    async fn waiter(lane: &LaneHandle, deadline: Option<Instant>) -> JoinHandle<Result<Slot, NoSlot>> {
        let lane = lane.clone();
        let waiter = tokio::spawn(async move { lane.take(deadline).await });
        tokio::task::yield_now().await;
        waiter
    }

    fn exhausted() -> Error {
        Error::new(ErrorKind::QuotaExhausted, "exhausted")
    }

    #[test]
    fn the_debug_output_of_a_handle_shows_its_limit() {
        let shown = format!("{:?}", QuotaHandle::new(RateLimit::new(25, 500)));
        assert!(shown.contains("25") && shown.contains("500"), "{shown}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_is_free_one_window_after_the_latest_arrival() {
        for (lane, window) in [(lane(2, 1000), ms(1_002)), (lane(1000, 2), ms(60_120))] {
            let [first, second] = [(); 2].map(|()| take_now(&lane));
            assert_eq!(lane.estimate(0), window, "at least a window without an answer");
            sleep(ms(300)).await;
            second.unanswered(5 * SECOND);
            first.answered(true);
            assert_eq!(lane.estimate(0), window);
            assert_eq!(lane.estimate(1), window + 5 * SECOND);
            sleep(window.saturating_sub(ms(1))).await;
            assert_eq!(lane.estimate(0), ms(1));
            sleep(ms(1)).await;
            let third = take_now(&lane);
            assert!(lane.take(None).now_or_never().is_none());
            drop(third);
            take_now(&lane);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_ahead_take_their_slots_first() {
        let lane = lane(2, 1000);
        let waits = |lane: &LaneHandle| [0, 1, 2, 3, 4].map(|ahead| lane.estimate(ahead));
        let window = ms(1_002);
        assert_eq!(waits(&lane), [0, 0, 1, 1, 2].map(|windows| windows * window));
        let slot = take_now(&lane);
        assert_eq!(waits(&lane), [0, 1, 1, 2, 2].map(|windows| windows * window));
        slot.answered(true);
        sleep(ms(500)).await;
        let wait = window.saturating_sub(ms(500));
        assert_eq!(
            waits(&lane),
            [Duration::ZERO, wait, window, wait + window, 2 * window]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_of_several_requests_is_for_the_last_one() {
        let lane = lane(2, 1000);
        let deadline = Some(Instant::now() + SECOND);
        assert!(lane.check(2, deadline).is_ok());
        assert!(matches!(lane.check(3, deadline), Err(NoSlot::TooLate(wait)) if wait == ms(1_002)));
        let slots = [(); 2].map(|()| take_now(&lane));
        let waiting = [waiter(&lane, None).await, waiter(&lane, None).await];
        assert_eq!(lane.waiting(), 2);
        let deadline = |seconds: u32| Some(Instant::now() + seconds * SECOND);
        assert!(matches!(lane.check(1, deadline(2)), Err(NoSlot::TooLate(wait)) if wait == ms(2_004)));
        assert!(lane.check(1, deadline(3)).is_ok());
        drop(slots);
        for waiter in waiting {
            waiter.await.unwrap().unwrap();
        }
        assert_eq!(lane.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_goes_to_the_first_in_line() {
        let lane = lane(1, 1000);
        let slot = take_now(&lane);
        let first = waiter(&lane, None).await;
        drop(slot);
        assert!(
            lane.take(None).now_or_never().is_none(),
            "the slot belongs to the first waiter"
        );
        let began = Instant::now();
        first.await.unwrap().unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_after_its_deadline_takes_no_slot() {
        let result = lane(1, 1).take(Some(Instant::now())).await;
        assert!(matches!(result, Err(NoSlot::TooLate(Duration::ZERO))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_and_an_exhausted_quota_reach_all_waiters() {
        let lane = lane(1, 1000);
        let slot = take_now(&lane);
        let deadline = Some(Instant::now() + 10 * SECOND);
        let waiters = [
            waiter(&lane, None).await,
            waiter(&lane, deadline).await,
            waiter(&lane, None).await,
        ];
        let [first, with_deadline, last] = waiters;
        lane.pause(20 * SECOND, None, slot.taken_at());
        let began = Instant::now();
        let error = with_deadline.await.unwrap().unwrap_err();
        assert!(
            matches!(error, NoSlot::TooLate(wait) if wait == 22 * SECOND),
            "{error:?}"
        );
        lane.exhaust(exhausted());
        for waiter in [first, last] {
            let error = waiter.await.unwrap().unwrap_err();
            assert!(matches!(error, NoSlot::Exhausted(_)), "{error:?}");
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_sent_again_a_minute_after_the_quota_was_exhausted() {
        let lane = lane(1, 1);
        lane.exhaust(exhausted());
        assert_eq!(lane.estimate(0), EXHAUSTED_FOR);
        sleep(EXHAUSTED_FOR.saturating_sub(ms(1))).await;
        assert!(lane.take(None).await.is_err());
        sleep(ms(1)).await;
        assert_eq!(lane.estimate(0), Duration::ZERO);
        take_now(&lane);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_halves_the_pace_and_each_accepted_call_raises_it() {
        let lane = lane(8, 1000);
        let [before, after] = [(); 2].map(|()| take_now(&lane).taken_at());
        sleep(SECOND).await;
        // From here on 4 calls a second.
        lane.pause(10 * SECOND, None, before);
        assert_eq!(lane.estimate(0), ms(10_250));
        sleep(SECOND).await;
        lane.pause(5 * SECOND, None, after);
        assert_eq!(
            lane.estimate(0),
            ms(9_250),
            "a request from before the pause does not count"
        );
        sleep(ms(9_250)).await;
        let slot = take_now(&lane);
        assert_eq!(lane.estimate(0), ms(250));
        slot.answered(true);
        sleep(ms(250)).await;
        let slot = take_now(&lane);
        assert_eq!(lane.estimate(0), Duration::from_secs_f64(1.0 / 4.25));
        // Half of 4.25.
        lane.pause(SECOND, None, slot.taken_at());
        assert_eq!(lane.estimate(0), SECOND + Duration::from_secs_f64(2.0 / 4.25));
    }

    #[tokio::test(start_paused = true)]
    async fn the_pace_is_never_below_one_call_in_two_seconds() {
        let lane = lane(1, 1000);
        for _ in 0..3 {
            lane.pause(Duration::ZERO, None, Instant::now());
            assert_eq!(lane.estimate(0), 2 * SECOND);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_full_pace_only_the_windows_limit_calls() {
        for (is_accepted, wait) in [(true, Duration::ZERO), (false, SECOND)] {
            let lane = lane(2, 1000);
            lane.pause(Duration::ZERO, None, Instant::now());
            sleep(SECOND).await;
            take_now(&lane).answered(is_accepted);
            assert_eq!(lane.estimate(0), wait);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_pause_is_bounded() {
        let lane = lane(1, 1000);
        lane.pause(Duration::MAX, None, Instant::now());
        assert_eq!(lane.estimate(0), LONGEST_PAUSE + 2 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lower_limit_holds_for_ten_minutes() {
        let lane = lane(5, 1000);
        for _ in 0..4 {
            take_now(&lane).answered(true);
            sleep(ms(100)).await;
        }
        lane.pause(Duration::ZERO, Some(2), Instant::now());
        // Three of the four slots must become free before one is free within the limit of 2.
        assert_eq!(
            [0, 1].map(|ahead| lane.estimate(ahead)),
            [ms(1_202 - 400), ms(1_302 - 400)]
        );
        sleep(LOWERED_FOR.saturating_sub(ms(1))).await;
        assert_eq!(lane.estimate(4), 2 * ms(1_002));
        sleep(ms(1)).await;
        assert_eq!(lane.estimate(4), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reported_limit_above_50_is_for_the_minute() {
        for (limit, wait) in [(50, ms(1_002)), (51, ms(60_120))] {
            let lane = lane(500, 1000);
            lane.pause(Duration::ZERO, Some(limit), Instant::now());
            assert_eq!(lane.estimate(limit as usize), wait);
        }
    }
}
