//! One call, from its turn on the chat to its outcome. Each attempt takes a slot of the quota and a token, sends the
//! request, reads the answer, and decides what to do next.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{Instrument, Span};

use crate::data::error::{Error, Station};
use crate::data::input::{Call, Target};
use crate::data::outcome::{Outcome, UserIds};
use crate::platform::answer::{self, CallData, Reading};
use crate::platform::base_url::BaseUrl;
use crate::platform::codes::{QUOTA_USED_UP, RetryRule};
use crate::platform::no_answer::no_answer;
use crate::platform::request::{self, MAX_USERS};
use crate::stations::closing::{Closing, InProgress};
use crate::stations::deadline::{CallTime, TimeLimit, after};
use crate::stations::order::{Order, Pass, Place, Waiter};
use crate::stations::quota::{Lane, LaneHandle, NoSlot, QuotaHandle};
use crate::stations::token::{Token, Tokens};
use crate::transport::{Answering, Transport};

mod decide;
mod flight;
mod parts;
mod trace;

use decide::{Decision, Facts, History, Next, Success};
use flight::Flight;
use trace::Trace;

/// The state that all calls of a client share.
pub(crate) struct Core {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) tokens: Tokens,
    pub(crate) quota: Option<QuotaHandle>,
    pub(crate) order: Order,
    pub(crate) closing: Closing,
    pub(crate) limits: Limits,
    pub(crate) base_url: BaseUrl,
}

/// The options that limit a call.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) timeout: Duration,
    pub(crate) attempt_timeout: Option<Duration>,
    pub(crate) max_retries: u32,
    pub(crate) late_arrival: Duration,
    pub(crate) max_users_per_request: usize,
}

/// Number of the last call of any client in this process.
static LAST_CALL: AtomicU64 = AtomicU64::new(0);

/// A checked call that has its place in the order of calls on its chat.
#[derive(Debug)]
pub(crate) struct QueuedCall {
    number: u64,
    pub(crate) call: Call,
    place: Place,
    limit: TimeLimit,
    in_progress: InProgress,
}

impl QueuedCall {
    pub(crate) fn span(&self) -> Span {
        tracing::debug_span!(
            "call",
            call = self.number,
            feed_card_id = self.call.target.segment(),
            users = self.call.user_ids.len(),
            time_sensitive = self.call.time_sensitive,
        )
    }
}

impl Core {
    /// Takes the call's place in the order of calls on its chat.
    pub(crate) fn queue(&self, call: Call, limit: TimeLimit, in_progress: InProgress) -> QueuedCall {
        let place = self.order.line_up(&call.target, call.time_sensitive);
        let number = LAST_CALL.fetch_add(1, Ordering::Relaxed) + 1;
        QueuedCall {
            number,
            call,
            place,
            limit,
            in_progress,
        }
    }

    /// Makes the call: in one request, or in several if it has more users than one may carry.
    pub(crate) async fn run(self: Arc<Self>, queued: QueuedCall) -> Result<Outcome, Error> {
        let span = queued.span();
        self.run_within(span, queued).await
    }

    /// Like [`run`](Self::run), with the call's span. Create the span before the task that runs the call, so that it
    /// becomes a child of the caller's span.
    pub(crate) fn run_within(
        self: Arc<Self>,
        span: Span,
        queued: QueuedCall,
    ) -> impl Future<Output = Result<Outcome, Error>> {
        let QueuedCall {
            number,
            mut call,
            place,
            limit,
            in_progress,
        } = queued;
        async move {
            let mut result = self.make(&mut call, place, &limit).await;
            match &mut result {
                Ok(outcome) => outcome.call = Some(number),
                Err(error) => error.set_call(number),
            }
            trace::log(&result, &call.target);
            drop(in_progress);
            result
        }
        .instrument(span)
    }

    async fn make(&self, call: &mut Call, place: Place, limit: &TimeLimit) -> Result<Outcome, Error> {
        let user_ids = std::mem::take(&mut call.user_ids);
        let time = CallTime::new(limit, &self.closing);
        let pass = match self.wait_for_turn(place, &time).await {
            Ok(pass) => pass,
            Err(error) => return Err(error.with_users(UserIds::not_attempted(user_ids))),
        };
        let (lane, most_users) = match call.target {
            Target::Chat(_) => (Lane::Chat, self.limits.max_users_per_request),
            Target::Bot => (Lane::Bot, self.limits.max_users_per_request.min(MAX_USERS)),
        };
        let running = RunningCall {
            core: self,
            lane: self.lane(lane),
            call,
            pass: &pass,
            time,
        };
        // Boxed, because one allocation for the whole call would be too large for the caches of most allocators.
        if user_ids.len() <= most_users {
            Box::pin(running.send_part(user_ids)).await
        } else {
            Box::pin(parts::send_all(&running, user_ids, most_users)).await
        }
    }

    async fn wait_for_turn(&self, place: Place, time: &CallTime<'_>) -> Result<Pass, Error> {
        match place {
            Place::Running(pass) => Ok(pass),
            // Boxed, so that calls that do not wait, which are most, need no space for it.
            Place::Waiting(waiter) => Box::pin(self.wait_in_line(waiter, time)).await,
        }
    }

    async fn wait_in_line(&self, waiter: Waiter, time: &CallTime<'_>) -> Result<Pass, Error> {
        let until = time.limit.for_a_turn();
        let entered = time.bound(until, pin!(waiter.enter(until))).await;
        entered.unwrap_or_else(|| Err(self.out_of_time(Station::Order)))
    }

    /// Error of a call that must stop, because its deadline has passed or the client was closed.
    fn out_of_time(&self, station: Station) -> Error {
        if self.closing.is_stopped() {
            trace::client_closed(station)
        } else {
            trace::deadline_passed(station)
        }
    }

    pub(crate) fn lane(&self, lane: Lane) -> Option<LaneHandle> {
        self.quota.as_ref().map(|quota| quota.lane(lane))
    }
}

/// A call whose turn on the chat has come. The parts of a split call share it.
struct RunningCall<'a> {
    core: &'a Core,
    lane: Option<LaneHandle>,
    /// The call without its user ids: each part has its own.
    call: &'a Call,
    pass: &'a Pass,
    time: CallTime<'a>,
}

impl RunningCall<'_> {
    /// Makes one request with these users, and accounts for each of them.
    async fn send_part(&self, user_ids: Vec<String>) -> Result<Outcome, Error> {
        let mut trace = Trace::default();
        match self.attempts(&user_ids, &mut trace).await {
            Ok(Success { data, log_id }) => Ok(Outcome::of_answer(
                user_ids,
                data.into_reasons(),
                log_id,
                trace.attempts,
            )),
            Err(error) => Err(trace.account_for(error, user_ids)),
        }
    }

    /// Sends the request until it succeeds, its deadline passes, or another attempt cannot succeed.
    async fn attempts(&self, user_ids: &[String], trace: &mut Trace) -> Result<Success, Error> {
        let limits = &self.core.limits;
        let mut history = History::new(limits.max_retries, self.time.limit.counts_pauses());
        let mut refused: Option<(Arc<Token>, Error)> = None;
        let mut last: Option<Error> = None;
        loop {
            let mut flight = self.wait_for_slot(trace, last.take()).await?;
            let taken_at = flight.taken_at();
            let token = self.wait_for_token(trace).await?;
            if let Some((old, error)) = refused.take()
                && old.is_same_as(&token)
            {
                return Err(self.core.tokens.source().same_token_again(error));
            }
            let reading = self.send(user_ids, &token, &mut flight, trace).await?;
            drop(flight);
            self.learn(&reading, &token);

            let Decision { next, pause } = decide::decide(reading, &mut history, &self.facts(&token));
            if let (Some(pause), Some(lane), Some(taken_at)) = (pause, &self.lane, taken_at) {
                trace::log_pause(&pause, &self.call.target);
                lane.pause(pause.wait, pause.limit, taken_at);
            }
            match next {
                Next::Done(success) => return Ok(success),
                Next::NewToken(error) => {
                    trace.log_new_token(&error, &self.call.target);
                    refused = Some((token, error));
                }
                Next::Retry { wait, in_line, error } => {
                    trace.log_retry(&error, wait, &self.call.target);
                    last = Some(error);
                    if !in_line {
                        let waited = self.time.bound(None, pin!(sleep(wait))).await;
                        waited.ok_or_else(|| self.timed_out(trace))?;
                    }
                }
                Next::GiveUp(error) => return Err(error),
            }
        }
    }

    /// Waits for a slot, if there is a quota. `last` is the error of the previous attempt. It is returned instead
    /// of the quota's error if no slot is free before the deadline, because it says more.
    async fn wait_for_slot(&self, trace: &mut Trace, last: Option<Error>) -> Result<Flight<'_>, Error> {
        trace.station = Station::Quota;
        let until = self.time.limit.for_a_turn();
        let slot = {
            let slot = pin!(async {
                match &self.lane {
                    Some(lane) => lane.take(until).await.map(Some),
                    None => Ok(None),
                }
            });
            self.time.for_a_slot(slot).await
        };
        match (slot, last) {
            (Some(Ok(slot)), _) => Ok(Flight::new(
                slot,
                self.pass,
                self.core.limits.late_arrival,
                trace.sent.clone(),
            )),
            (Some(Err(NoSlot::TooLate(wait))), Some(last)) => Err(last.with_retry_after(Some(wait))),
            (Some(Err(reason)), _) => Err(reason.into()),
            (None, _) => Err(self.timed_out(trace)),
        }
    }

    async fn wait_for_token(&self, trace: &mut Trace) -> Result<Arc<Token>, Error> {
        trace.station = Station::Token;
        let deadline = self.time.deadline();
        let token = {
            let token = pin!(self.core.tokens.get(deadline));
            self.time.bound(deadline, token).await
        };
        token.unwrap_or_else(|| Err(self.timed_out(trace)))
    }

    /// Sends the request once and reads the answer. When `flight` is dropped, also after an error, it updates the quota
    /// and the order of calls, depending on whether the request may have been sent.
    async fn send(
        &self,
        user_ids: &[String],
        token: &Token,
        flight: &mut Flight<'_>,
        trace: &mut Trace,
    ) -> Result<Reading<CallData>, Error> {
        trace.station = Station::Connect;
        let request = request::set_time_sensitive(&self.core.base_url, self.call, user_ids, token.header())?;
        trace.attempts += 1;
        let attempt = tracing::debug_span!("attempt", attempt = trace.attempts);
        let deadline = self.time.deadline();
        let attempt_deadline = self.attempt_deadline(deadline);
        let reading = {
            let sending = self.core.transport.send(request, trace.sent.clone());
            let exchange = pin!(self.exchange(sending, token, trace).instrument(attempt));
            self.time.bound(attempt_deadline.or(deadline), exchange).await
            // Dropping the exchange here closes its connection: nothing more of the request leaves.
        };
        let reading = match reading {
            Some(reading) => reading,
            None if attempt_deadline.is_some() && !self.time.is_stopped() => {
                Reading::Failure(trace.attempt_timed_out())
            }
            None => return Err(self.timed_out(trace)),
        };
        flight.land(&reading);
        trace.record(&reading);
        Ok(reading)
    }

    /// The time at which `attempt_timeout` passes, if that is before the deadline.
    fn attempt_deadline(&self, deadline: Option<Instant>) -> Option<Instant> {
        let at = after(self.core.limits.attempt_timeout?);
        deadline.is_none_or(|deadline| at < deadline).then_some(at)
    }

    async fn exchange(&self, sending: Answering<'_>, token: &Token, trace: &Trace) -> Reading<CallData> {
        let response = sending.await;
        let mask = |text: &mut String| {
            token.mask(text);
            self.core.tokens.source().mask(text);
        };
        match response {
            Ok(response) => answer::read::<CallData>(&response, &mask),
            Err(error) => Reading::Failure(no_answer(error, trace.sent.is_raised())),
        }
    }

    /// Updates the state that all calls share: whether the platform accepts the token, and whether the monthly quota is
    /// exhausted.
    fn learn(&self, reading: &Reading<CallData>, token: &Arc<Token>) {
        let failure = match reading {
            Reading::Success { .. } => return token.accept(),
            Reading::Failure(failure) => failure,
        };
        if failure.retry == RetryRule::NewToken {
            if self.core.tokens.source().can_replace() {
                self.core.tokens.refuse(token);
            }
        } else if failure.is_answer {
            token.accept();
        }
        if let Some(lane) = &self.lane
            && failure.error.platform_code() == Some(QUOTA_USED_UP)
        {
            lane.exhaust(failure.error.clone());
        }
    }

    fn facts(&self, token: &Token) -> Facts {
        Facts {
            can_replace_token: self.core.tokens.source().can_replace(),
            token_was_accepted: token.was_accepted(),
            has_line: self.lane.is_some(),
            deadline: self.time.deadline(),
            turn_deadline: self.time.limit.for_a_turn(),
        }
    }

    fn timed_out(&self, trace: &Trace) -> Error {
        match (trace.station_now(), &self.lane) {
            (station, _) if self.core.closing.is_stopped() => trace::client_closed(station),
            (Station::Quota, Some(lane)) => NoSlot::TooLate(lane.estimate(lane.waiting())).into(),
            (Station::Quota, None) => NoSlot::TooLate(Duration::ZERO).into(),
            (station, _) => trace::deadline_passed(station),
        }
    }
}
