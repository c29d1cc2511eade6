//! Tracks the progress of one request of a call, and determines the result for each of its users.

use std::time::Duration;

use super::decide::Pause;
use crate::data::error::{Error, ErrorKind, Station};
use crate::data::input::Target;
use crate::data::outcome::{Outcome, UserIds};
use crate::data::text::text;
use crate::platform::answer::{CallData, Failure, Reading};
use crate::platform::codes::RetryRule;
use crate::transport::Sent;

/// The progress of one request. It is still available after a deadline has dropped the attempt.
pub(super) struct Trace {
    pub(super) station: Station,
    pub(super) attempts: u32,
    /// Whether the attempt in progress was sent.
    pub(super) sent: Sent,
    /// The worst result of the earlier attempts.
    fate: Fate,
}

/// What the attempts may have done to the users of a request, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Unsent,
    Refused,
    Unknown,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            station: Station::Quota,
            attempts: 0,
            sent: Sent::default(),
            fate: Fate::Unsent,
        }
    }
}

impl Trace {
    pub(super) fn station_now(&self) -> Station {
        if self.station == Station::Connect && self.sent.is_raised() {
            Station::Answer
        } else {
            self.station
        }
    }

    /// Records what an attempt that has ended may have done.
    pub(super) fn record(&mut self, reading: &Reading<CallData>) {
        if let Reading::Failure(failure) = reading {
            self.fate = self.fate.max(self.fate_of(failure));
            self.sent = Sent::default();
        }
    }

    fn fate_of(&self, failure: &Failure) -> Fate {
        let is_refusal = failure.is_answer
            && !matches!(
                failure.error.kind(),
                ErrorKind::Server | ErrorKind::UnexpectedResponse
            );
        if !self.sent.is_raised() {
            Fate::Unsent
        } else if is_refusal {
            Fate::Refused
        } else {
            Fate::Unknown
        }
    }

    pub(super) fn attempt_timed_out(&self) -> Failure {
        let station = self.station_now();
        let error = Error::new(
            ErrorKind::DeadlineExceeded,
            text!("the {attempt_timeout} passed ({})", doing(station)),
        )
        .with_station(station)
        .with_hint(text!(
            "Call again, or use a longer {attempt_timeout}: setting the same state twice does no harm"
        ));
        Failure {
            error,
            retry: RetryRule::Backoff,
            wait: None,
            limit: None,
            is_answer: false,
        }
    }

    /// Adds the number of attempts, and the result for each user, to the error that ends the request.
    pub(super) fn account_for(&self, error: Error, user_ids: Vec<String>) -> Error {
        // The error of a failed token fetch has its own number of attempts.
        let attempts = if self.attempts > 0 {
            self.attempts
        } else {
            error.attempts()
        };
        // If the flag is still set, the deadline ended the attempt before `record` could reset it.
        let fate = if self.sent.is_raised() {
            Fate::Unknown
        } else {
            self.fate
        };
        let users = match fate {
            Fate::Unsent => UserIds::not_attempted(user_ids),
            Fate::Refused => UserIds {
                failed: user_ids,
                ..UserIds::default()
            },
            Fate::Unknown => UserIds {
                unknown: user_ids,
                ..UserIds::default()
            },
        };
        error.with_attempts(attempts).with_users(users)
    }

    pub(super) fn log_new_token(&self, error: &Error, target: &Target) {
        tracing::info!(
            feed_card_id = target.segment(),
            code = error.platform_code(),
            status = error.http_status(),
            log_id = error.log_id(),
            attempt = self.attempts,
            "the token was refused: taking another one"
        );
    }

    pub(super) fn log_retry(&self, error: &Error, wait: Duration, target: &Target) {
        tracing::info!(
            feed_card_id = target.segment(),
            kind = %error.kind(),
            code = error.platform_code(),
            status = error.http_status(),
            log_id = error.log_id(),
            attempt = self.attempts,
            wait_s = wait.as_secs_f64(),
            "retrying"
        );
    }
}

pub(super) fn log_pause(pause: &Pause, target: &Target) {
    tracing::warn!(
        feed_card_id = target.segment(),
        wait_s = pause.wait.as_secs_f64(),
        limit = pause.limit,
        "the platform asks to slow down: all calls of the client pause"
    );
}

/// Logs the result. It names the chat again, because a listener at level INFO does not receive the call's span.
pub(super) fn log(result: &Result<Outcome, Error>, target: &Target) {
    match result {
        Ok(outcome) => tracing::debug!(
            requests = outcome.requests,
            failed_users = outcome.failed_user_reasons.len(),
            log_id = outcome.log_id(),
            "done"
        ),
        Err(error) => tracing::warn!(
            feed_card_id = target.segment(),
            kind = %error.kind(),
            code = error.platform_code(),
            status = error.http_status(),
            attempts = error.attempts(),
            log_id = error.log_id(),
            "failed"
        ),
    }
}

pub(super) fn deadline_passed(station: Station) -> Error {
    Error::new(
        ErrorKind::DeadlineExceeded,
        format!("the deadline passed ({})", doing(station)),
    )
    .with_station(station)
    .with_hint("Give the call a longer timeout, or call again")
}

pub(super) fn client_closed(station: Station) -> Error {
    Error::new(
        ErrorKind::ClientClosed,
        format!("the client was closed ({})", doing(station)),
    )
    .with_station(station)
    .with_hint("Create another client, and call again")
}

fn doing(station: Station) -> &'static str {
    match station {
        Station::Order => "waiting for an earlier call of the opposite state on this chat",
        Station::Quota => "waiting for a slot of the quota",
        Station::Token => "fetching the token",
        Station::Connect => "connecting",
        Station::Send | Station::Answer => "waiting for the answer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: ErrorKind, is_answer: bool) -> Reading<CallData> {
        Reading::Failure(Failure {
            error: Error::new(kind, "it failed"),
            retry: RetryRule::No,
            wait: None,
            limit: None,
            is_answer,
        })
    }

    fn sent() -> Trace {
        let trace = Trace {
            station: Station::Connect,
            ..Trace::default()
        };
        assert!(trace.sent.raise());
        trace
    }

    fn users(trace: &Trace) -> UserIds {
        let error = Error::new(ErrorKind::Server, "it failed");
        trace.account_for(error, vec!["ou_1".to_owned()]).users().clone()
    }

    #[test]
    fn a_request_that_was_sent_waits_for_its_answer() {
        let connecting = Trace {
            station: Station::Connect,
            ..Trace::default()
        };
        assert_eq!(connecting.station_now(), Station::Connect);
        assert_eq!(sent().station_now(), Station::Answer);
        // The next attempt waits for its slot, also after a request that was sent.
        let waiting = Trace {
            station: Station::Quota,
            ..sent()
        };
        assert_eq!(waiting.station_now(), Station::Quota);
    }

    #[test]
    fn the_error_of_a_deadline_names_the_wait() {
        for (station, doing) in [
            (Station::Order, "opposite state"),
            (Station::Quota, "slot"),
            (Station::Token, "token"),
            (Station::Connect, "connecting"),
            (Station::Answer, "answer"),
        ] {
            let message = deadline_passed(station).message().to_owned();
            assert!(message.contains(doing), "{station}: {message}");
        }
    }

    #[test]
    fn users_are_unknown_once_an_attempt_may_have_reached_them() {
        assert_eq!(users(&Trace::default()).not_attempted, ["ou_1"]);
        assert_eq!(users(&sent()).unknown, ["ou_1"], "no answer yet");
        for (kind, is_answer, is_known) in [
            (ErrorKind::Rejected, true, true),
            (ErrorKind::RateLimited, true, true),
            (ErrorKind::Server, true, false),
            (ErrorKind::UnexpectedResponse, true, false),
            (ErrorKind::Rejected, false, false),
            (ErrorKind::ConnectionFailed, false, false),
        ] {
            let mut trace = sent();
            trace.record(&failed(kind, is_answer));
            let users = users(&trace);
            let expected = if is_known { &users.failed } else { &users.unknown };
            assert_eq!(*expected, ["ou_1"], "{kind}");
        }
    }

    #[test]
    fn a_later_refusal_does_not_make_an_unknown_user_known() {
        let mut trace = sent();
        trace.record(&failed(ErrorKind::ConnectionFailed, false));
        assert!(trace.sent.raise());
        trace.record(&failed(ErrorKind::Rejected, true));
        assert_eq!(users(&trace).unknown, ["ou_1"]);
    }

    #[test]
    fn an_attempt_that_was_not_sent_changes_nothing() {
        let mut trace = Trace::default();
        trace.record(&failed(ErrorKind::ConnectionFailed, false));
        assert_eq!(users(&trace).not_attempted, ["ou_1"]);
    }
}
