//! Whether a failed attempt is worth another, and after how long.

use std::time::Duration;

use crate::codes::Replay;

/// The first replay waits up to this, and each further one up to twice as long.
const BASE: Duration = Duration::from_millis(250);

/// No replay waits longer than this unless the platform says so.
const CAP: Duration = Duration::from_secs(10);

/// Exponential backoff with full jitter: anything between nothing and the doubled bound, so that
/// callers who failed together do not come back together.
pub(crate) fn backoff(replays: u32) -> Duration {
    let bound = BASE
        .saturating_mul(1_u32.checked_shl(replays).unwrap_or(u32::MAX))
        .min(CAP);
    bound.mul_f64(fastrand::f64())
}

/// A told wait shorter than the platform's shortest window is no pacing: taken as such it would cost no
/// replay, and loop.
const LEAST_PACING: Duration = Duration::from_secs(1);

/// Requests that the server provably did not process are sent again without counting as retries, but a server that never
/// processes any must not be asked for ever.
const FREE_RESENDS: u32 = 3;

/// How many replays a call has left, and what they are for.
#[derive(Debug)]
pub(crate) struct Replays {
    most: u32,
    used: u32,
    resent: u32,
    counts_pauses: bool,
}

impl Replays {
    pub(crate) fn new(most: u32, counts_pauses: bool) -> Self {
        Self {
            most,
            used: 0,
            resent: 0,
            counts_pauses,
        }
    }

    /// The wait before the next replay; `None` to give up.
    ///
    /// A frequency limit that says when it ends is the platform's own pacing and not a failure: it
    /// costs no replay where the deadline bounds it. Otherwise two processes that share an app's
    /// quota would fail each other's calls.
    pub(crate) fn next(&mut self, replay: Replay, told: Option<Duration>) -> Option<Duration> {
        match (replay, told) {
            (Replay::No | Replay::NewToken, _) => None,
            (Replay::Pause, Some(wait)) if self.most > 0 && wait >= LEAST_PACING && !self.counts_pauses => {
                Some(wait)
            }
            // The first goes out on another connection; a server that refuses that too is busy.
            (Replay::Resend, _) if self.resent < FREE_RESENDS => {
                self.resent += 1;
                Some(if self.resent == 1 {
                    Duration::ZERO
                } else {
                    backoff(self.resent)
                })
            }
            _ if self.used >= self.most => None,
            (_, told) => {
                // "0" says nothing: the platform rounds down.
                let wait = told
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
        let mut replays = Replays::new(2, false);
        assert!(replays.next(Replay::Backoff, None).is_some());
        assert_eq!(
            replays.next(Replay::Backoff, Some(Duration::from_secs(3))),
            Some(Duration::from_secs(3))
        );
        assert_eq!(replays.next(Replay::Backoff, None), None);
        assert_eq!(replays.next(Replay::Pause, None), None);
    }

    #[test]
    fn a_told_pause_costs_none() {
        let mut replays = Replays::new(1, false);
        for _ in 0..10 {
            assert_eq!(
                replays.next(Replay::Pause, Some(Duration::from_secs(1))),
                Some(Duration::from_secs(1))
            );
        }
        assert!(replays.next(Replay::Pause, None).is_some());
        assert_eq!(replays.next(Replay::Pause, None), None);
    }

    #[test]
    fn unless_nothing_else_bounds_them() {
        let mut replays = Replays::new(1, true);
        let told = Some(Duration::from_secs(1));
        assert_eq!(replays.next(Replay::Pause, told), told);
        assert_eq!(replays.next(Replay::Pause, told), None);
    }

    #[test]
    fn a_told_wait_of_nothing_is_backed_off_and_counted() {
        fastrand::seed(3);
        for replay in [Replay::Pause, Replay::Backoff] {
            let mut replays = Replays::new(2, false);
            assert!(replays.next(replay, Some(Duration::ZERO)).unwrap() > Duration::ZERO);
            assert!(replays.next(replay, Some(Duration::from_millis(1))).is_some());
            assert_eq!(replays.next(replay, Some(Duration::ZERO)), None);
        }
    }

    #[test]
    fn a_request_that_was_not_processed_is_resent_at_once_and_not_for_ever() {
        let mut replays = Replays::new(1, false);
        assert_eq!(replays.next(Replay::Resend, None), Some(Duration::ZERO));
        for _ in 1..FREE_RESENDS {
            assert!(replays.next(Replay::Resend, None).is_some());
        }
        assert!(replays.next(Replay::Resend, None).is_some(), "counted as a retry");
        assert_eq!(replays.next(Replay::Resend, None), None);
    }

    #[test]
    fn no_replays_means_none() {
        let mut replays = Replays::new(0, false);
        assert_eq!(replays.next(Replay::Pause, Some(Duration::from_secs(1))), None);
        assert_eq!(replays.next(Replay::Backoff, None), None);
        assert_eq!(replays.next(Replay::No, None), None);
        assert_eq!(replays.next(Replay::NewToken, None), None);
    }
}
