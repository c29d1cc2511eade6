//! One call's way: order, quota, token, send, read, decide. Read from top to bottom.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{Method, Request, Uri, header};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::Instrument;

use crate::answer::{self, CallData, Failure, Reading};
use crate::codes::{QUOTA_USED_UP, Replay};
use crate::error::{Error, ErrorKind, Station};
use crate::flight::Flight;
use crate::input::{Call, Target};
use crate::options::{Limits, MOST_USERS};
use crate::order::{Order, Pass, Place};
use crate::outcome::{Outcome, UserIds};
use crate::quota::{Lane, LaneHandle, NoSlot, QuotaHandle, Slot};
use crate::retry::Replays;
use crate::token::{Token, Tokens};
use crate::transport::{Sent, Transport};

/// What all calls of a client share.
pub(crate) struct Core {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) tokens: Tokens,
    pub(crate) quota: Option<QuotaHandle>,
    pub(crate) order: Order,
    pub(crate) limits: Limits,
    /// Without a trailing slash.
    pub(crate) base_url: String,
}

/// A call on its way: checked, and with its place among the calls on its chat.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) call: Call,
    place: Place,
    limit: TimeLimit,
}

/// How long a call may take.
#[derive(Debug)]
pub(crate) enum TimeLimit {
    /// Until then.
    At(Instant),
    /// From its first slot of the quota on, as one of many that wait their turn.
    FirstSlot { timeout: Duration, end: End },
}

/// What ends many calls before their own time.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) at: Option<Instant>,
    /// Raised when the caller wants no more.
    pub(crate) stop: watch::Receiver<bool>,
}

/// A call's bound as its stations see it.
#[derive(Debug)]
struct Bound {
    deadline: Option<Instant>,
    stop: Option<watch::Receiver<bool>>,
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
    pub(crate) async fn run(&self, begun: Begun) -> Result<Outcome, Error> {
        let call = &begun.call;
        let span = tracing::debug_span!(
            "call",
            feed_card_id = call.target.segment(),
            users = call.user_ids.len(),
            time_sensitive = call.time_sensitive,
        );
        async {
            let result = self.go(begun).await;
            match &result {
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
            result
        }
        .instrument(span)
        .await
    }

    async fn go(&self, begun: Begun) -> Result<Outcome, Error> {
        let Begun { call, place, limit } = begun;
        let mut bound = limit.bound();
        let pass = match bound.within(place.enter(bound.deadline)).await {
            Some(Ok(pass)) => pass,
            Some(Err(error)) => return Err(error.with_users(UserIds::not_attempted(call.user_ids))),
            None => return Err(timed_out(Station::Order).with_users(UserIds::not_attempted(call.user_ids))),
        };
        let lane = self.lane(&call.target);
        let mut first_slot = None;
        if let TimeLimit::FirstSlot { timeout, .. } = limit {
            match bound.within(self.slot(lane.as_ref(), bound.deadline)).await {
                Some(Ok(slot)) => first_slot = slot,
                Some(Err(reason)) => {
                    return Err(Error::from(reason).with_users(UserIds::not_attempted(call.user_ids)));
                }
                None => {
                    return Err(timed_out(Station::Quota).with_users(UserIds::not_attempted(call.user_ids)));
                }
            }
            let own = after(timeout);
            bound.deadline = Some(bound.deadline.map_or(own, |end| end.min(own)));
        }
        let way = Way {
            core: self,
            lane,
            pass: &pass,
            bound,
        };
        let mut parts = self.parts(call)?;
        if parts.len() == 1
            && let Some(part) = parts.pop()
        {
            return way.go(part, first_slot).await;
        }
        way.go_in_parts(parts, first_slot).await
    }

    fn lane(&self, target: &Target) -> Option<LaneHandle> {
        let lane = match target {
            Target::Chat(_) => Lane::Chat,
            Target::Bot => Lane::Bot,
        };
        self.quota.as_ref().map(|quota| quota.lane(lane))
    }

    /// The lane of the group call, which many calls share.
    pub(crate) fn group_lane(&self) -> Option<LaneHandle> {
        self.quota.as_ref().map(|quota| quota.lane(Lane::Chat))
    }

    async fn slot(
        &self,
        lane: Option<&LaneHandle>,
        deadline: Option<Instant>,
    ) -> Result<Option<Slot>, NoSlot> {
        match lane {
            Some(lane) => lane.take(deadline).await.map(Some),
            None => Ok(None),
        }
    }

    /// The requests that make up a call.
    fn parts(&self, call: Call) -> Result<Vec<Part>, Error> {
        let segment = call.target.segment();
        let kind = call.user_id_type;
        let uri = format!(
            "{}/open-apis/im/v2/feed_cards/{segment}?user_id_type={kind}",
            self.base_url
        );
        let uri = Uri::try_from(uri).map_err(|_| unsendable())?;
        let most = match call.target {
            Target::Chat(_) => self.limits.max_users_per_request,
            Target::Bot => self.limits.max_users_per_request.min(MOST_USERS),
        };
        let mut parts = Vec::with_capacity(call.user_ids.len().div_ceil(most));
        let mut rest = call.user_ids.into_iter();
        while rest.len() > 0 {
            let user_ids: Vec<String> = rest.by_ref().take(most).collect();
            let body = Body {
                time_sensitive: call.time_sensitive,
                user_ids: &user_ids,
            };
            let body = serde_json::to_vec(&body).map_err(|_| unsendable())?;
            parts.push(Part {
                uri: uri.clone(),
                body: body.into(),
                user_ids,
            });
        }
        Ok(parts)
    }
}

/// One request, to be sent once or more.
struct Part {
    uri: Uri,
    body: Bytes,
    user_ids: Vec<String>,
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

/// What the parts of one call have in common.
struct Way<'a> {
    core: &'a Core,
    lane: Option<LaneHandle>,
    pass: &'a Pass,
    bound: Bound,
}

impl Way<'_> {
    /// Sends one part until it has an answer, its deadline passes, or nothing more is to be hoped for.
    async fn go(&self, part: Part, first_slot: Option<Slot>) -> Result<Outcome, Error> {
        let mut trace = Trace {
            station: Station::Quota,
            attempts: 0,
            fate: Fate::Unsent,
            sent: Sent::default(),
        };
        let result = self
            .bound
            .within(self.attempts(&part, first_slot, &mut trace))
            .await;
        match result {
            Some(Ok((data, log_id))) => Ok(Outcome::of_answer(
                part.user_ids,
                data.into_reasons(),
                log_id,
                trace.attempts,
            )),
            Some(Err(error)) => Err(trace.end(error, part.user_ids)),
            None => {
                let error = self.timed_out(&mut trace);
                Err(trace.end(error, part.user_ids))
            }
        }
    }

    async fn attempts(
        &self,
        part: &Part,
        mut first_slot: Option<Slot>,
        trace: &mut Trace,
    ) -> Result<(CallData, Option<String>), Error> {
        let Core { tokens, limits, .. } = self.core;
        let mut replays = Replays::new(limits.max_retries);
        let mut healings = 0;
        let mut refused: Option<(Arc<Token>, Error)> = None;
        let mut last: Option<Error> = None;
        loop {
            trace.station = Station::Quota;
            let slot = match first_slot.take() {
                Some(slot) => Some(slot),
                None => match self.core.slot(self.lane.as_ref(), self.bound.deadline).await {
                    Ok(slot) => slot,
                    Err(NoSlot::TooLate(wait)) if last.is_some() => {
                        return Err(last.unwrap_or_else(unsendable).with_retry_after(Some(wait)));
                    }
                    Err(reason) => return Err(reason.into()),
                },
            };
            let taken_at = slot.as_ref().map(Slot::taken_at);

            trace.station = Station::Token;
            let token = tokens.get(self.bound.deadline).await?;
            if let Some((old, error)) = refused.take()
                && old.is_same_as(&token)
            {
                return Err(error);
            }

            trace.station = Station::Connect;
            trace.attempts += 1;
            let attempt = tracing::debug_span!("attempt", attempt = trace.attempts);
            let failure = match self.send(part, &token, slot, trace).instrument(attempt).await {
                Reading::Success { data, log_id } => {
                    token.accept();
                    return Ok((data, log_id));
                }
                Reading::Failure(failure) => failure,
            };
            trace.note(&failure);

            if failure.replay == Replay::NewToken {
                if !tokens.source().can_replace() {
                    return Err(failure.error.with_hint(CANNOT_REPLACE));
                }
                tokens.refuse(&token);
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
            if failure.from_platform {
                token.accept();
            }
            let wait = replays.next(failure.replay, failure.wait);
            self.tell_everyone(&failure, wait.or(failure.wait), taken_at);
            let Some(wait) = wait else {
                return Err(failure.error);
            };
            if self
                .bound
                .deadline
                .is_some_and(|deadline| Instant::now() + wait >= deadline)
            {
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
            if failure.replay != Replay::Pause || self.lane.is_none() {
                sleep(wait).await;
            }
        }
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

    async fn send(
        &self,
        part: &Part,
        token: &Token,
        slot: Option<Slot>,
        trace: &mut Trace,
    ) -> Reading<CallData> {
        let mut request = Request::new(part.body.clone());
        *request.method_mut() = Method::PATCH;
        *request.uri_mut() = part.uri.clone();
        request.headers_mut().insert(header::CONTENT_TYPE, answer::JSON);
        request
            .headers_mut()
            .insert(header::AUTHORIZATION, token.header());

        let Core {
            transport,
            tokens,
            limits,
            ..
        } = self.core;
        let sent = Sent::default();
        trace.sent = sent.clone();
        let flight = Flight::new(slot, self.pass, limits.late_arrival, sent.clone());
        let sending = transport.send(request, sent);
        let answered = match limits.attempt_timeout {
            None => sending.await,
            Some(most) => match timeout(most, sending).await {
                Ok(answered) => answered,
                Err(_) => return Reading::Failure(trace.attempt_timed_out()),
            },
        };
        let mask = |text: &mut String| {
            token.mask(text);
            tokens.source().mask(text);
        };
        let reading = match answered {
            Ok(response) => answer::read::<CallData>(&response, &mask).masked(&mask),
            Err(error) => Reading::Failure(answer::no_answer(error, trace.sent.is_raised())),
        };
        match &reading {
            Reading::Success { .. } => flight.landed(true),
            Reading::Failure(failure) if failure.from_platform => {
                flight.landed(failure.error.kind() != ErrorKind::RateLimited);
            }
            Reading::Failure(_) => drop(flight),
        }
        reading
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
    async fn go_in_parts(&self, parts: Vec<Part>, mut first_slot: Option<Slot>) -> Result<Outcome, Error> {
        let count = parts.len();
        if let Some(lane) = &self.lane
            && let Err(reason) = lane.check(count - usize::from(first_slot.is_some()), self.bound.deadline)
        {
            let user_ids = parts.into_iter().flat_map(|part| part.user_ids).collect();
            return Err(Error::from(reason).with_users(UserIds::not_attempted(user_ids)));
        }
        let mut waiting = parts.into_iter().enumerate();
        let mut running = FuturesUnordered::new();
        let mut ended: Vec<Option<Result<Outcome, Error>>> = Vec::new();
        ended.resize_with(count, || None);
        let mut failed = None;
        loop {
            while failed.is_none() && running.len() < PARTS_AT_ONCE {
                let Some((index, part)) = waiting.next() else {
                    break;
                };
                let slot = first_slot.take();
                running.push(async move { (index, self.go(part, slot).await) });
            }
            let Some((index, result)) = running.next().await else {
                break;
            };
            if result.is_err() && failed.is_none() {
                failed = Some(index);
            }
            ended[index] = Some(result);
        }
        let left = waiting.flat_map(|(_, part)| part.user_ids).collect();
        sum_up(ended, failed, left)
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
        } else if failure.from_platform
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
        .with_station(station);
        Failure {
            error,
            replay: Replay::Backoff,
            wait: None,
            limit: None,
            from_platform: false,
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

/// The time after a wait, or one that never comes where the clock cannot say.
pub(crate) fn after(wait: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    Instant::now() + wait.min(FAR)
}

impl TimeLimit {
    fn bound(&self) -> Bound {
        match self {
            Self::At(deadline) => Bound {
                deadline: Some(*deadline),
                stop: None,
            },
            Self::FirstSlot { end, .. } => Bound {
                deadline: end.at,
                stop: Some(end.stop.clone()),
            },
        }
    }
}

impl Bound {
    /// What a future gives in time; it is dropped when the time is over.
    async fn within<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let Some(stop) = &self.stop else {
            return in_time(self.deadline, future).await;
        };
        let mut stop = stop.clone();
        tokio::select! {
            biased;
            result = in_time(self.deadline, future) => result,
            _ = stop.wait_for(|stopped| *stopped) => None,
        }
    }
}

async fn in_time<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}
