//! One call's way: order, quota, token, send, read, decide. Read from top to bottom.

#![expect(
    clippy::manual_async_fn,
    reason = "an `async fn` holds its arguments twice: so written, a call fits into what malloc has at hand"
)]

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use http::Method;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;

use crate::answer::{self, CallData, Failure, Reading};
use crate::base_url::BaseUrl;
use crate::codes::{QUOTA_USED_UP, Replay};
use crate::deadline::{Time, TimeLimit};
use crate::error::{Error, ErrorKind, Station};
use crate::flight::Flight;
use crate::input::{Call, Target, UserIdType};
use crate::options::{Limits, MOST_USERS};
use crate::order::{Order, Pass, Place};
use crate::outcome::{Outcome, UserIds};
use crate::quota::{Lane, LaneHandle, NoSlot, QuotaHandle};
use crate::retry::Replays;
use crate::token::{Token, Tokens};
use crate::transport::{Outgoing, Sent, Transport};

/// What all calls of a client share.
pub(crate) struct Core {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) tokens: Tokens,
    pub(crate) quota: Option<QuotaHandle>,
    pub(crate) order: Order,
    pub(crate) limits: Limits,
    pub(crate) base_url: BaseUrl,
}

/// A call on its way: checked, and with its place among the calls on its chat.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) call: Call,
    place: Place,
    limit: TimeLimit,
}

/// A token that was accepted before may be revoked again while the call is replayed; more than this
/// in one call is no accident.
const MOST_HEALINGS: u32 = 3;

/// How many requests of one split call are on their way at a time: when one is refused, so would be
/// all that follow.
const PARTS_AT_ONCE: usize = 10;

impl Core {
    /// Takes the call's place on its chat.
    pub(crate) fn begin(&self, call: Call, limit: TimeLimit) -> Begun {
        let place = self.order.line_up(&call.target, call.time_sensitive);
        Begun { call, place, limit }
    }

    /// Makes the call: in one request, or in several where it has more users than one may carry.
    pub(crate) fn run(
        self: Arc<Self>,
        mut begun: Begun,
    ) -> impl Future<Output = Result<Outcome, Error>> + Send + 'static {
        async move {
            // When it is first polled: until then a subscriber, or a span, may be put around it.
            let span = tracing::debug_span!(
                "call",
                feed_card_id = begun.call.target.segment(),
                users = begun.call.user_ids.len(),
                time_sensitive = begun.call.time_sensitive,
            );
            let going = self.go(&mut begun.call, begun.place, &begun.limit);
            going.inspect(tell).instrument(span).await
        }
    }

    fn go<'a>(
        &'a self,
        call: &'a mut Call,
        place: Place,
        limit: &'a TimeLimit,
    ) -> impl Future<Output = Result<Outcome, Error>> + Send + 'a {
        async move {
            let pass = match enter(place, limit).await {
                Ok(pass) => pass,
                Err(error) => {
                    let user_ids = std::mem::take(&mut call.user_ids);
                    return Err(error.with_users(UserIds::not_attempted(user_ids)));
                }
            };
            let (lane, most) = match call.target {
                Target::Chat(_) => (Lane::Chat, self.limits.max_users_per_request),
                Target::Bot => (Lane::Bot, self.limits.max_users_per_request.min(MOST_USERS)),
            };
            let way = Way {
                core: self,
                lane: self.lane(lane),
                target: &call.target,
                time_sensitive: call.time_sensitive,
                user_id_type: call.user_id_type,
                pass: &pass,
                time: Time::new(limit),
            };
            let user_ids = &mut call.user_ids;
            if user_ids.len() <= most {
                way.go(user_ids).await
            } else {
                Box::pin(way.go_in_parts(user_ids, most)).await
            }
        }
    }

    pub(crate) fn lane(&self, lane: Lane) -> Option<LaneHandle> {
        self.quota.as_ref().map(|quota| quota.lane(lane))
    }
}

/// Waits for the call's turn on its chat.
async fn enter(place: Place, limit: &TimeLimit) -> Result<Pass, Error> {
    let until = limit.for_a_turn();
    let entered = limit.bound(until, pin!(place.enter(until))).await;
    entered.unwrap_or_else(|| Err(timed_out(Station::Order)))
}

fn tell(result: &Result<Outcome, Error>) {
    match result {
        Ok(outcome) => tracing::debug!(
            requests = outcome.requests,
            failed_users = outcome.failed_user_reasons.len(),
            log_id = outcome.log_id(),
            "done"
        ),
        Err(error) => tracing::warn!(
            kind = %error.kind(),
            code = error.platform_code(),
            status = error.http_status(),
            attempts = error.attempts(),
            log_id = error.log_id(),
            "failed"
        ),
    }
}

#[derive(Serialize)]
struct Body<'a> {
    time_sensitive: bool,
    user_ids: &'a [String],
}

/// What one part knows of its way, also when its deadline cuts it off.
struct Trace {
    station: Station,
    attempts: u32,
    fate: Fate,
    /// Of the request that is on its way.
    sent: Sent,
}

/// What may have become of a part's users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Unsent,
    Refused,
    Unknown,
}

impl Fate {
    fn of(self, user_ids: Vec<String>) -> UserIds {
        match self {
            Self::Unsent => UserIds::not_attempted(user_ids),
            Self::Refused => UserIds {
                failed: user_ids,
                ..UserIds::default()
            },
            Self::Unknown => UserIds {
                unknown: user_ids,
                ..UserIds::default()
            },
        }
    }
}

/// What the parts of one call, a request each, have in common.
struct Way<'a> {
    core: &'a Core,
    lane: Option<LaneHandle>,
    target: &'a Target,
    time_sensitive: bool,
    user_id_type: UserIdType,
    pass: &'a Pass,
    time: Time<'a>,
}

impl Way<'_> {
    /// Sends one part until it has an answer, its deadline passes, or nothing more is to be hoped for. What becomes
    /// of the users is told in the end, and takes them.
    fn go<'a>(
        &'a self,
        user_ids: &'a mut Vec<String>,
    ) -> impl Future<Output = Result<Outcome, Error>> + Send + 'a {
        async move {
            let mut trace = Trace {
                station: Station::Quota,
                attempts: 0,
                fate: Fate::Unsent,
                sent: Sent::default(),
            };
            let result = self.attempts(user_ids, &mut trace).await;
            let user_ids = std::mem::take(user_ids);
            match result {
                Ok((data, log_id)) => Ok(Outcome::of_answer(
                    user_ids,
                    data.into_reasons(),
                    log_id,
                    trace.attempts,
                )),
                Err(error) => Err(trace.end(error, user_ids)),
            }
        }
    }

    fn attempts<'a>(
        &'a self,
        user_ids: &'a [String],
        trace: &'a mut Trace,
    ) -> impl Future<Output = Result<(CallData, Option<String>), Error>> + Send + 'a {
        async move {
            let mut replays = Replays::new(self.core.limits.max_retries, self.time.limit.counts_pauses());
            let mut healings = 0;
            let mut refused: Option<(Arc<Token>, Error)> = None;
            let mut last: Option<Error> = None;
            loop {
                trace.station = Station::Quota;
                let mut flight = match self.take_off(trace).await {
                    Some(Ok(flight)) => flight,
                    Some(Err(NoSlot::TooLate(wait))) if last.is_some() => {
                        return Err(last.unwrap_or_else(unsendable).with_retry_after(Some(wait)));
                    }
                    Some(Err(reason)) => return Err(reason.into()),
                    None => return Err(self.timed_out(trace)),
                };
                let taken_at = flight.taken_at();

                trace.station = Station::Token;
                let token = match self.token().await {
                    Some(token) => token?,
                    None => return Err(self.timed_out(trace)),
                };
                if let Some((old, error)) = refused.take()
                    && old.is_same_as(&token)
                {
                    return Err(error);
                }

                trace.station = Station::Connect;
                trace.attempts += 1;
                let request = self.request(user_ids, &token)?;
                let attempt = tracing::debug_span!("attempt", attempt = trace.attempts);
                let sending = self.send(request, &token, &mut flight, trace).instrument(attempt);
                let ended = self.time.limit.bound(self.time.deadline(), pin!(sending)).await;
                // From here on nothing of the request leaves: whether it did is settled.
                drop(flight);
                let failure = match ended {
                    Some(Reading::Success { data, log_id }) => {
                        token.accept();
                        return Ok((data, log_id));
                    }
                    Some(Reading::Failure(failure)) => failure,
                    None => return Err(self.timed_out(trace)),
                };
                trace.note(&failure);

                if failure.replay == Replay::NewToken {
                    if !self.core.tokens.source().can_replace() {
                        return Err(failure.error.with_hint(CANNOT_REPLACE));
                    }
                    self.core.tokens.refuse(&token);
                    if healings >= MOST_HEALINGS || (healings > 0 && !token.was_accepted()) {
                        return Err(failure.error);
                    }
                    healings += 1;
                    tracing::info!(
                        code = failure.error.platform_code(),
                        status = failure.error.http_status(),
                        log_id = failure.error.log_id(),
                        attempt = trace.attempts,
                        "the token was refused: taking another"
                    );
                    refused = Some((token, failure.error));
                    continue;
                }
                if failure.is_answer {
                    token.accept();
                }
                let wait = replays.next(failure.replay, failure.wait);
                self.tell_everyone(&failure, wait.or(failure.wait), taken_at);
                let Some(wait) = wait else {
                    return Err(failure.error);
                };
                let waits_in_line = failure.replay == Replay::Pause && self.lane.is_some();
                let until = if waits_in_line {
                    self.time.limit.for_a_turn()
                } else {
                    self.time.deadline()
                };
                if until.is_some_and(|until| Instant::now() + wait >= until) {
                    return Err(failure.error.with_retry_after(Some(wait)));
                }
                tracing::info!(
                    kind = %failure.error.kind(),
                    code = failure.error.platform_code(),
                    status = failure.error.http_status(),
                    log_id = failure.error.log_id(),
                    attempt = trace.attempts,
                    wait_s = wait.as_secs_f64(),
                    "replaying"
                );
                last = Some(failure.error);
                if !waits_in_line {
                    let pause = Box::pin(self.time.limit.bound(None, sleep(wait)));
                    if pause.await.is_none() {
                        return Err(self.timed_out(trace));
                    }
                }
            }
        }
    }

    /// Waits for a slot, where there is a quota; `None` when the time is over first.
    async fn take_off(&self, trace: &Trace) -> Option<Result<Flight<'_>, NoSlot>> {
        let until = self.time.limit.for_a_turn();
        let slot = pin!(async {
            match &self.lane {
                Some(lane) => lane.take(until).await.map(Some),
                None => Ok(None),
            }
        });
        let slot = pin!(self.time.limit.bound(until, slot));
        let slot = self.time.for_a_slot(slot).await?;
        let flight = |slot| Flight::new(slot, self.pass, self.core.limits.late_arrival, trace.sent.clone());
        Some(slot.map(flight))
    }

    /// Waits for the token; `None` when the time is over first.
    async fn token(&self) -> Option<Result<Arc<Token>, Error>> {
        let deadline = self.time.deadline();
        let token = self.core.tokens.get(deadline);
        self.time.limit.bound(deadline, pin!(token)).await
    }

    /// The request of one part. Made anew for each attempt, as a replay is rare and a clone of all of it costs
    /// every call.
    fn request(&self, user_ids: &[String], token: &Token) -> Result<Outgoing, Error> {
        let url = self.core.base_url.call(self.target, self.user_id_type);
        let body = self.body(user_ids).map_err(|_| unsendable())?;
        Ok(Outgoing {
            method: Method::PATCH,
            url,
            authorization: Some(token.header()),
            body,
        })
    }

    fn body(&self, user_ids: &[String]) -> serde_json::Result<Bytes> {
        // What it comes to where no id has to be escaped: filled to its end it becomes `Bytes` as it is.
        let quotes_and_comma = 3;
        let size = r#"{"time_sensitive":true,"user_ids":[]"#.len() + usize::from(!self.time_sensitive);
        let ids: usize = user_ids.iter().map(|id| id.len() + quotes_and_comma).sum();
        let mut bytes = Vec::with_capacity(size + ids);
        let body = Body {
            time_sensitive: self.time_sensitive,
            user_ids,
        };
        serde_json::to_writer(&mut bytes, &body)?;
        Ok(bytes.into())
    }

    /// What one call's refusal means for all calls of the client.
    fn tell_everyone(&self, failure: &Failure, wait: Option<Duration>, taken_at: Option<Instant>) {
        let (Some(lane), Some(taken_at)) = (&self.lane, taken_at) else {
            return;
        };
        if failure.error.platform_code() == Some(QUOTA_USED_UP) {
            lane.exhaust(failure.error.clone());
        }
        if failure.replay == Replay::Pause {
            lane.pause(wait.unwrap_or_default(), failure.limit, taken_at);
        }
    }

    fn send<'a>(
        &'a self,
        request: Outgoing,
        token: &'a Token,
        flight: &'a mut Flight<'_>,
        trace: &'a Trace,
    ) -> impl Future<Output = Reading<CallData>> + Send + 'a {
        let Core {
            transport,
            tokens,
            limits,
            ..
        } = self.core;
        let sending = transport.send(request, trace.sent.clone());
        async move {
            let answered = match limits.attempt_timeout {
                None => sending.await,
                Some(most) => match Box::pin(timeout(most, sending)).await {
                    Ok(answered) => answered,
                    Err(_) => return Reading::Failure(trace.attempt_timed_out()),
                },
            };
            let mask = |text: &mut String| {
                token.mask(text);
                tokens.source().mask(text);
            };
            let reading = match answered {
                Ok(response) => answer::read::<CallData>(&response, &mask),
                Err(error) => Reading::Failure(answer::no_answer(error, trace.sent.is_raised())),
            };
            match &reading {
                Reading::Success { .. } => flight.landed(true),
                Reading::Failure(failure) if failure.is_answer => {
                    flight.landed(failure.error.kind() != ErrorKind::RateLimited);
                }
                Reading::Failure(_) => {}
            }
            reading
        }
    }

    fn timed_out(&self, trace: &mut Trace) -> Error {
        let station = trace.station_now();
        if station == Station::Quota {
            let wait = self
                .lane
                .as_ref()
                .map_or(Duration::ZERO, |lane| lane.estimate(lane.waiting()));
            return NoSlot::TooLate(wait).into();
        }
        if trace.sent.is_raised() {
            trace.fate = Fate::Unknown;
        }
        Error::new(
            ErrorKind::DeadlineExceeded,
            format!("the deadline passed ({})", doing(station)),
        )
        .with_station(station)
        .with_hint("Give the call a longer timeout, or call again")
    }

    /// Sends the parts within the quota, a few at a time. When one fails, those not yet begun are left.
    async fn go_in_parts(&self, user_ids: &mut Vec<String>, most: usize) -> Result<Outcome, Error> {
        let user_ids = std::mem::take(user_ids);
        let count = user_ids.len().div_ceil(most);
        if let Some(lane) = &self.lane
            && let Err(reason) = lane.check(count, self.time.limit.for_a_turn())
        {
            return Err(Error::from(reason).with_users(UserIds::not_attempted(user_ids)));
        }
        let mut user_ids = user_ids.into_iter();
        let mut waiting = (0..count).map(|_| user_ids.by_ref().take(most).collect::<Vec<_>>());
        let mut running = FuturesUnordered::new();
        let mut ended: Vec<Option<Result<Outcome, Error>>> = Vec::new();
        ended.resize_with(count, || None);
        let mut begun = 0;
        let mut failed = None;
        loop {
            while failed.is_none() && running.len() < PARTS_AT_ONCE {
                let Some(mut part) = waiting.next() else {
                    break;
                };
                let index = begun;
                begun += 1;
                running.push(async move { (index, self.go(&mut part).await) });
            }
            let Some((index, result)) = running.next().await else {
                break;
            };
            if result.is_err() && failed.is_none() {
                failed = Some(index);
            }
            ended[index] = Some(result);
        }
        sum_up(ended, failed, user_ids.collect())
    }
}

/// The outcomes of all parts in the order given, or the first failure with what became of the others.
fn sum_up(
    mut ended: Vec<Option<Result<Outcome, Error>>>,
    failed: Option<usize>,
    left: Vec<String>,
) -> Result<Outcome, Error> {
    let failure = failed.and_then(|index| match &ended[index] {
        Some(Err(error)) => Some(error.clone()),
        _ => None,
    });
    let mut sum = Outcome::default();
    let mut users = UserIds::default();
    for result in ended.drain(..).flatten() {
        match result {
            Ok(outcome) => {
                users.append(outcome.users.clone());
                sum.append(outcome);
            }
            Err(error) => users.append(error.users().clone()),
        }
    }
    let Some(error) = failure else { return Ok(sum) };
    users.append(UserIds::not_attempted(left));
    Err(error.with_users(users).with_outcome(sum))
}

impl Trace {
    fn station_now(&self) -> Station {
        if self.station == Station::Connect && self.sent.is_raised() {
            Station::Answer
        } else {
            self.station
        }
    }

    /// Remembers what a failed attempt may have done.
    fn note(&mut self, failure: &Failure) {
        let fate = if !self.sent.is_raised() {
            Fate::Unsent
        } else if failure.is_answer
            && !matches!(
                failure.error.kind(),
                ErrorKind::Server | ErrorKind::UnexpectedResponse
            )
        {
            Fate::Refused
        } else {
            Fate::Unknown
        };
        self.fate = self.fate.max(fate);
        self.sent = Sent::default();
    }

    fn attempt_timed_out(&self) -> Failure {
        let station = self.station_now();
        let error = Error::new(
            ErrorKind::DeadlineExceeded,
            format!("the attempt_timeout passed ({})", doing(station)),
        )
        .with_station(station)
        .with_hint("Call again, or give attempts more time: setting the same state twice does no harm");
        Failure {
            error,
            replay: Replay::Backoff,
            wait: None,
            limit: None,
            is_answer: false,
        }
    }

    fn end(&self, error: Error, user_ids: Vec<String>) -> Error {
        let attempts = if self.attempts > 0 {
            self.attempts
        } else {
            error.attempts()
        };
        error.with_attempts(attempts).with_users(self.fate.of(user_ids))
    }
}

const CANNOT_REPLACE: &str = "The given tenant_access_token is not valid any more and cannot be renewed: give app_id and app_secret, or a token_provider";

fn doing(station: Station) -> &'static str {
    match station {
        Station::Order => "waiting for an earlier call of the opposite state on this chat",
        Station::Quota => "waiting for a slot of the quota",
        Station::Token => "fetching the token",
        Station::Connect => "connecting",
        Station::Send | Station::Answer => "waiting for the answer",
    }
}

fn timed_out(station: Station) -> Error {
    Error::new(
        ErrorKind::DeadlineExceeded,
        format!("the deadline passed ({})", doing(station)),
    )
    .with_station(station)
    .with_hint("Give the call a longer timeout, or call again")
}

/// No checked input leads here: the message of a mistake of ours.
fn unsendable() -> Error {
    Error::new(ErrorKind::InvalidInput, "no request can be made of this call")
}
