//! Whether to retry a failed attempt, and after how long.

use std::time::Duration;

use crate::platform::codes::RetryRule;

/// Longest wait before the first retry. It doubles with each further one.
const BASE: Duration = Duration::from_millis(250);

/// No retry waits longer than this unless the platform asks for it.
const CAP: Duration = Duration::from_secs(10);

/// Exponential backoff with full jitter: a random wait between zero and the bound, so that callers who failed
/// together do not retry together.
pub(crate) fn backoff(retries: u32) -> Duration {
    let bound = BASE
        .saturating_mul(1_u32.checked_shl(retries).unwrap_or(u32::MAX))
        .min(CAP);
    bound.mul_f64(fastrand::f64())
}

/// A requested wait below the platform's shortest window is not taken as its pacing: retries would then be
/// unlimited and without delay.
const LEAST_PACING: Duration = Duration::from_secs(1);

/// Requests that the server certainly did not process are sent again without counting as retries. Limited,
/// because a server may never process any.
const FREE_RESENDS: u32 = 3;

/// The retries of one call.
#[derive(Debug)]
pub(crate) struct Retries {
    most: u32,
    used: u32,
    resent: u32,
    counts_pauses: bool,
}

impl Retries {
    pub(crate) fn new(most: u32, counts_pauses: bool) -> Self {
        Self {
            most,
            used: 0,
            resent: 0,
            counts_pauses,
        }
    }

    /// Returns the wait before the next retry, or `None` to give up. `requested` is the wait that the platform asks
    /// for.
    ///
    /// A frequency limit with a wait is the platform's pacing and not a failure: it does not count as a retry
    /// where the deadline limits it. Otherwise two processes that share an app's quota would fail each other's
    /// calls.
    pub(crate) fn next(&mut self, rule: RetryRule, requested: Option<Duration>) -> Option<Duration> {
        match (rule, requested) {
            (RetryRule::No | RetryRule::NewToken, _) => None,
            (RetryRule::Pause, Some(wait))
                if self.most > 0 && wait >= LEAST_PACING && !self.counts_pauses =>
            {
                Some(wait)
            }
            // The first resend uses another connection at once. A server that refuses that too is busy.
            (RetryRule::Resend, _) if self.resent < FREE_RESENDS => {
                self.resent += 1;
                Some(if self.resent == 1 {
                    Duration::ZERO
                } else {
                    backoff(self.resent)
                })
            }
            _ if self.used >= self.most => None,
            _ => {
                // A wait of 0 has no information: the platform rounds down.
                let wait = requested
                    .filter(|wait| !wait.is_zero())
                    .unwrap_or_else(|| backoff(self.used));
                self.used += 1;
                Some(wait)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_cap() {
        fastrand::seed(7);
        for (replays, bound) in [
            (0, 0.25),
            (1, 0.5),
            (2, 1.0),
            (5, 8.0),
            (6, 10.0),
            (31, 10.0),
            (32, 10.0),
            (u32::MAX, 10.0),
        ] {
            let waits: Vec<f64> = (0..2000).map(|_| backoff(replays).as_secs_f64()).collect();
            let most = waits.iter().copied().fold(0.0, f64::max);
            let least = waits.iter().copied().fold(f64::MAX, f64::min);
            assert!(
                most <= bound && most > 0.99 * bound,
                "replay {replays}: {most} of {bound}"
            );
            assert!(
                least < 0.01 * bound,
                "replay {replays}: full jitter starts at nothing, not {least}"
            );
        }
    }

    #[test]
    fn replays_are_counted() {
        let mut replays = Retries::new(2, false);
        assert!(replays.next(RetryRule::Backoff, None).is_some());
        assert_eq!(
            replays.next(RetryRule::Backoff, Some(Duration::from_secs(3))),
            Some(Duration::from_secs(3))
        );
        assert_eq!(replays.next(RetryRule::Backoff, None), None);
        assert_eq!(replays.next(RetryRule::Pause, None), None);
    }

    #[test]
    fn a_pause_with_a_wait_does_not_count() {
        let mut replays = Retries::new(1, false);
        for _ in 0..10 {
            assert_eq!(
                replays.next(RetryRule::Pause, Some(Duration::from_secs(1))),
                Some(Duration::from_secs(1))
            );
        }
        assert!(replays.next(RetryRule::Pause, None).is_some());
        assert_eq!(replays.next(RetryRule::Pause, None), None);
    }

    #[test]
    fn unless_no_deadline_limits_it() {
        let mut replays = Retries::new(1, true);
        let told = Some(Duration::from_secs(1));
        assert_eq!(replays.next(RetryRule::Pause, told), told);
        assert_eq!(replays.next(RetryRule::Pause, told), None);
    }

    #[test]
    fn a_wait_of_zero_is_replaced_by_backoff_and_counts() {
        fastrand::seed(3);
        for replay in [RetryRule::Pause, RetryRule::Backoff] {
            let mut replays = Retries::new(2, false);
            assert!(replays.next(replay, Some(Duration::ZERO)).unwrap() > Duration::ZERO);
            assert!(replays.next(replay, Some(Duration::from_millis(1))).is_some());
            assert_eq!(replays.next(replay, Some(Duration::ZERO)), None);
        }
    }

    #[test]
    fn a_request_that_was_not_processed_is_resent_at_once_and_not_for_ever() {
        let mut replays = Retries::new(1, false);
        assert_eq!(replays.next(RetryRule::Resend, None), Some(Duration::ZERO));
        for _ in 1..FREE_RESENDS {
            assert!(replays.next(RetryRule::Resend, None).is_some());
        }
        assert!(
            replays.next(RetryRule::Resend, None).is_some(),
            "counted as a retry"
        );
        assert_eq!(replays.next(RetryRule::Resend, None), None);
    }

    #[test]
    fn no_replays_means_none() {
        let mut replays = Retries::new(0, false);
        assert_eq!(replays.next(RetryRule::Pause, Some(Duration::from_secs(1))), None);
        assert_eq!(replays.next(RetryRule::Backoff, None), None);
        assert_eq!(replays.next(RetryRule::No, None), None);
        assert_eq!(replays.next(RetryRule::NewToken, None), None);
    }
}
