//! Whether to retry a failed attempt, and after how long.

use std::time::Duration;

use crate::platform::codes::RetryRule;

/// Longest wait before the first retry. It doubles with each further retry.
const BASE: Duration = Duration::from_millis(250);

/// Longest wait before any retry, unless the platform asks for a longer one.
const CAP: Duration = Duration::from_secs(10);

/// Exponential backoff with full jitter: a random wait between zero and the bound, so that calls that failed
/// together are not retried together.
pub(crate) fn backoff(retries: u32) -> Duration {
    let bound = BASE
        .saturating_mul(1_u32.checked_shl(retries).unwrap_or(u32::MAX))
        .min(CAP);
    bound.mul_f64(fastrand::f64())
}

/// Shortest wait that counts as the platform's pacing, which is the length of its shortest window. Retries after pacing
/// are not limited, so with shorter waits they would be unlimited and almost without delay.
const MIN_PACING: Duration = Duration::from_secs(1);

/// How often a call sends a request again, without counting a retry, after the server has proved that it did not process
/// the request. Limited, because a server may refuse every request.
const FREE_RESENDS: u32 = 3;

/// The retries of one call.
#[derive(Debug)]
pub(crate) struct Retries {
    max: u32,
    used: u32,
    resent: u32,
    /// Whether pacing by the platform counts as a retry.
    counts_pauses: bool,
}

impl Retries {
    pub(crate) fn new(max: u32, counts_pauses: bool) -> Self {
        Self {
            max,
            used: 0,
            resent: 0,
            counts_pauses,
        }
    }

    /// Returns the wait before the next retry, or `None` to give up. `requested` is the wait that the platform asks
    /// for.
    ///
    /// A frequency limit with a wait is the platform's pacing and not a failure. It does not count as a retry if the
    /// call's deadline limits it. If it did, two processes that share an app's quota would make each other's calls fail.
    pub(crate) fn next(&mut self, rule: RetryRule, requested: Option<Duration>) -> Option<Duration> {
        match (rule, requested) {
            (RetryRule::No | RetryRule::NewToken, _) => None,
            (RetryRule::Pause, Some(wait)) if self.max > 0 && wait >= MIN_PACING && !self.counts_pauses => {
                Some(wait)
            }
            // The first resend uses another connection immediately. If the server refuses that one too, it is busy.
            (RetryRule::Resend, _) if self.resent < FREE_RESENDS => {
                self.resent += 1;
                Some(if self.resent == 1 {
                    Duration::ZERO
                } else {
                    backoff(self.resent)
                })
            }
            _ if self.used >= self.max => None,
            _ => {
                // Ignore a wait of 0, because the platform rounds down to whole seconds.
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
        for (retries, bound) in [
            (0, 0.25),
            (1, 0.5),
            (2, 1.0),
            (5, 8.0),
            (6, 10.0),
            (31, 10.0),
            (32, 10.0),
            (u32::MAX, 10.0),
        ] {
            let waits: Vec<f64> = (0..2000).map(|_| backoff(retries).as_secs_f64()).collect();
            let most = waits.iter().copied().fold(0.0, f64::max);
            let least = waits.iter().copied().fold(f64::MAX, f64::min);
            assert!(
                most <= bound && most > 0.99 * bound,
                "retry {retries}: the longest wait is {most} of {bound}"
            );
            assert!(
                least < 0.01 * bound,
                "retry {retries}: the shortest wait is {least}, but full jitter starts at 0"
            );
        }
    }

    #[test]
    fn retries_are_counted() {
        let mut retries = Retries::new(2, false);
        assert!(retries.next(RetryRule::Backoff, None).is_some());
        assert_eq!(
            retries.next(RetryRule::Backoff, Some(Duration::from_secs(3))),
            Some(Duration::from_secs(3))
        );
        assert_eq!(retries.next(RetryRule::Backoff, None), None);
        assert_eq!(retries.next(RetryRule::Pause, None), None);
    }

    #[test]
    fn a_pause_with_a_wait_does_not_count() {
        let mut retries = Retries::new(1, false);
        for _ in 0..10 {
            assert_eq!(
                retries.next(RetryRule::Pause, Some(Duration::from_secs(1))),
                Some(Duration::from_secs(1))
            );
        }
        assert!(retries.next(RetryRule::Pause, None).is_some());
        assert_eq!(retries.next(RetryRule::Pause, None), None);
    }

    #[test]
    fn a_pause_with_a_wait_counts_without_a_deadline() {
        let mut retries = Retries::new(1, true);
        let wait = Some(Duration::from_secs(1));
        assert_eq!(retries.next(RetryRule::Pause, wait), wait);
        assert_eq!(retries.next(RetryRule::Pause, wait), None);
    }

    #[test]
    fn a_wait_of_zero_is_replaced_by_backoff_and_counts() {
        fastrand::seed(3);
        for rule in [RetryRule::Pause, RetryRule::Backoff] {
            let mut retries = Retries::new(2, false);
            assert!(retries.next(rule, Some(Duration::ZERO)).unwrap() > Duration::ZERO);
            assert!(retries.next(rule, Some(Duration::from_millis(1))).is_some());
            assert_eq!(retries.next(rule, Some(Duration::ZERO)), None);
        }
    }

    #[test]
    fn unprocessed_requests_are_resent_a_limited_number_of_times() {
        let mut retries = Retries::new(1, false);
        assert_eq!(retries.next(RetryRule::Resend, None), Some(Duration::ZERO));
        for _ in 1..FREE_RESENDS {
            assert!(retries.next(RetryRule::Resend, None).is_some());
        }
        assert!(
            retries.next(RetryRule::Resend, None).is_some(),
            "counted as a retry"
        );
        assert_eq!(retries.next(RetryRule::Resend, None), None);
    }

    #[test]
    fn without_retries_nothing_is_retried() {
        let mut retries = Retries::new(0, false);
        assert_eq!(retries.next(RetryRule::Pause, Some(Duration::from_secs(1))), None);
        assert_eq!(retries.next(RetryRule::Backoff, None), None);
        assert_eq!(retries.next(RetryRule::No, None), None);
        assert_eq!(retries.next(RetryRule::NewToken, None), None);
    }
}
