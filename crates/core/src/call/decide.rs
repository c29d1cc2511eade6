//! Decides what a call does after an attempt: finish, wait and retry, take a new token, or give up. This module has no
//! side effects: `call.rs` carries out the decision.

use std::time::Duration;

use tokio::time::Instant;

use crate::data::error::Error;
use crate::data::text::{Template, text};
use crate::platform::answer::{CallData, Reading};
use crate::platform::codes::RetryRule;
use crate::stations::retry::Retries;

/// Most new tokens that one call takes. The platform may revoke a token while a call is retried, but hardly this often
/// by chance.
const MAX_NEW_TOKENS: u32 = 3;

const CANNOT_REPLACE: Template = text!(
    "Use {app_id} and {app_secret}, or a {token_provider}: the {tenant_access_token} is no longer valid, and the client cannot renew it"
);

/// The failed attempts of a request so far.
pub(super) struct History {
    retries: Retries,
    new_tokens: u32,
}

impl History {
    pub(super) fn new(max_retries: u32, counts_pauses: bool) -> Self {
        Self {
            retries: Retries::new(max_retries, counts_pauses),
            new_tokens: 0,
        }
    }
}

/// Input of the decision, in addition to the answer and the history.
pub(super) struct Facts {
    pub(super) can_replace_token: bool,
    pub(super) token_was_accepted: bool,
    /// Whether there is a quota, and thus a line in which the call waits for its next slot.
    pub(super) has_line: bool,
    pub(super) deadline: Option<Instant>,
    /// Deadline for waiting in line.
    pub(super) turn_deadline: Option<Instant>,
}

/// A successful answer.
#[derive(Debug)]
pub(super) struct Success {
    pub(super) data: CallData,
    pub(super) log_id: Option<String>,
}

/// The next step of the call, and the pause of all calls if there is one.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) next: Next,
    /// Set if the platform asks all calls of the client to pause.
    pub(super) pause: Option<Pause>,
}

#[derive(Debug)]
pub(super) enum Next {
    Done(Success),
    /// Try again with a token other than the refused one.
    NewToken(Error),
    /// Retry after `wait`. If `in_line` is true, do not sleep, because the lane pauses and the next slot becomes free
    /// after `wait`.
    Retry {
        wait: Duration,
        in_line: bool,
        error: Error,
    },
    GiveUp(Error),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pause {
    pub(super) wait: Duration,
    /// The platform's limit, if it names one.
    pub(super) limit: Option<u32>,
}

impl From<Next> for Decision {
    fn from(next: Next) -> Self {
        Self { next, pause: None }
    }
}

pub(super) fn decide(reading: Reading<CallData>, history: &mut History, facts: &Facts) -> Decision {
    let failure = match reading {
        Reading::Success { data, log_id } => return Next::Done(Success { data, log_id }).into(),
        Reading::Failure(failure) => failure,
    };
    if failure.retry == RetryRule::NewToken {
        return after_refused_token(failure.error, history, facts).into();
    }
    let wait = history.retries.next(failure.retry, failure.wait);
    let pause = (failure.retry == RetryRule::Pause).then(|| Pause {
        wait: wait.or(failure.wait).unwrap_or_default(),
        limit: failure.limit,
    });
    let error = failure.error;
    let Some(wait) = wait else {
        let next = Next::GiveUp(error);
        return Decision { next, pause };
    };
    let in_line = pause.is_some() && facts.has_line;
    let deadline = if in_line {
        facts.turn_deadline
    } else {
        facts.deadline
    };
    let next = if deadline.is_some_and(|deadline| Instant::now() + wait >= deadline) {
        Next::GiveUp(error.with_retry_after(Some(wait)))
    } else {
        Next::Retry { wait, in_line, error }
    };
    Decision { next, pause }
}

fn after_refused_token(error: Error, history: &mut History, facts: &Facts) -> Next {
    if !facts.can_replace_token {
        return Next::GiveUp(error.with_hint(CANNOT_REPLACE));
    }
    // A second token that was never accepted shows that new tokens do not help.
    let is_hopeless = history.new_tokens > 0 && !facts.token_was_accepted;
    if is_hopeless || history.new_tokens >= MAX_NEW_TOKENS {
        return Next::GiveUp(error);
    }
    history.new_tokens += 1;
    Next::NewToken(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::error::ErrorKind;
    use crate::data::text::Text;
    use crate::platform::answer::Failure;

    const SECOND: Duration = Duration::from_secs(1);

    fn facts() -> Facts {
        let now = Instant::now();
        Facts {
            can_replace_token: true,
            token_was_accepted: false,
            has_line: true,
            deadline: Some(now + 10 * SECOND),
            turn_deadline: Some(now + 20 * SECOND),
        }
    }

    fn failed(retry: RetryRule, wait: Option<Duration>) -> Reading<CallData> {
        Reading::Failure(Failure {
            error: Error::new(ErrorKind::Server, "it failed"),
            retry,
            wait,
            limit: Some(7),
            is_answer: true,
        })
    }

    fn next(reading: Reading<CallData>, history: &mut History, facts: &Facts) -> Next {
        decide(reading, history, facts).next
    }

    #[test]
    fn a_success_is_done() {
        let success = Reading::Success {
            data: CallData::default(),
            log_id: Some("1".to_owned()),
        };
        let next = next(success, &mut History::new(0, false), &facts());
        assert!(matches!(next, Next::Done(Success { log_id: Some(id), .. }) if id == "1"));
    }

    #[test]
    fn a_refusal_is_not_retried() {
        let reading = failed(RetryRule::No, None);
        assert!(matches!(
            next(reading, &mut History::new(3, false), &facts()),
            Next::GiveUp(_)
        ));
    }

    #[test]
    fn a_passing_failure_is_retried_as_often_as_allowed() {
        let mut history = History::new(2, false);
        for _ in 0..2 {
            let next = next(failed(RetryRule::Backoff, Some(SECOND)), &mut history, &facts());
            assert!(matches!(
                next,
                Next::Retry {
                    wait: SECOND,
                    in_line: false,
                    ..
                }
            ));
        }
        let next = next(failed(RetryRule::Backoff, None), &mut history, &facts());
        assert!(matches!(next, Next::GiveUp(error) if error.retry_after().is_none()));
    }

    #[test]
    fn a_wait_beyond_the_deadline_ends_the_call() {
        for (seconds, is_retried) in [(9, true), (10, false)] {
            let wait = seconds * SECOND;
            let next = next(
                failed(RetryRule::Backoff, Some(wait)),
                &mut History::new(3, false),
                &facts(),
            );
            match next {
                Next::Retry { .. } => assert!(is_retried),
                Next::GiveUp(error) => assert_eq!((is_retried, error.retry_after()), (false, Some(wait))),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_pause_applies_to_all_calls_and_is_spent_in_line() {
        let mut history = History::new(1, false);
        let decision = decide(
            failed(RetryRule::Pause, Some(15 * SECOND)),
            &mut history,
            &facts(),
        );
        let pause = Pause {
            wait: 15 * SECOND,
            limit: Some(7),
        };
        assert_eq!(decision.pause, Some(pause));
        assert!(matches!(decision.next, Next::Retry { in_line: true, .. }));

        // Without a quota there is no line, and the call's own deadline counts.
        let facts = Facts {
            has_line: false,
            ..facts()
        };
        let decision = decide(failed(RetryRule::Pause, Some(15 * SECOND)), &mut history, &facts);
        assert!(decision.pause.is_some());
        assert!(matches!(decision.next, Next::GiveUp(_)));
    }

    #[test]
    fn all_calls_pause_even_if_the_call_gives_up() {
        let mut history = History::new(0, false);
        let decision = decide(failed(RetryRule::Pause, Some(3 * SECOND)), &mut history, &facts());
        assert!(matches!(decision.next, Next::GiveUp(_)));
        assert_eq!(decision.pause.map(|pause| pause.wait), Some(3 * SECOND));
        let decision = decide(
            failed(RetryRule::Backoff, Some(SECOND)),
            &mut History::new(1, false),
            &facts(),
        );
        assert_eq!(decision.pause, None);
    }

    #[test]
    fn one_new_token_is_taken_and_more_only_after_revocations() {
        let mut history = History::new(0, false);
        let refused = || failed(RetryRule::NewToken, None);
        assert!(matches!(
            next(refused(), &mut history, &facts()),
            Next::NewToken(_)
        ));
        assert!(matches!(next(refused(), &mut history, &facts()), Next::GiveUp(_)));

        let revoked = Facts {
            token_was_accepted: true,
            ..facts()
        };
        let mut history = History::new(0, false);
        for _ in 0..MAX_NEW_TOKENS {
            assert!(matches!(
                next(refused(), &mut history, &revoked),
                Next::NewToken(_)
            ));
        }
        assert!(matches!(next(refused(), &mut history, &revoked), Next::GiveUp(_)));
    }

    #[test]
    fn a_given_token_cannot_be_replaced() {
        let given = Facts {
            can_replace_token: false,
            ..facts()
        };
        let next = next(
            failed(RetryRule::NewToken, None),
            &mut History::new(3, false),
            &given,
        );
        let Next::GiveUp(error) = next else {
            panic!("expected the call to give up")
        };
        assert_eq!(error.hint(), Some(Text::from(CANNOT_REPLACE).as_str()));
    }
}
