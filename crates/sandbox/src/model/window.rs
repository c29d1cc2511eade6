//! The frequency limit, as strict as possible: two sliding windows over the accepted calls.

use std::collections::VecDeque;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The arrivals of the last minute that count. A window of length `w` is `(now - w, now]`: an arrival exactly `w` ago
/// is not in it.
#[derive(Debug, Default)]
pub(super) struct Windows {
    arrivals: VecDeque<Duration>,
}

/// A refusal, with the values of the `x-ogw-ratelimit-limit` and `x-ogw-ratelimit-reset` headers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LimitReached {
    pub(super) limit: u32,
    pub(super) reset_s: u64,
}

impl Windows {
    pub(super) fn admit(
        &mut self,
        now: Duration,
        per_second: Option<u32>,
        per_minute: Option<u32>,
        count_refused: bool,
    ) -> Result<(), LimitReached> {
        if per_second.is_none() && per_minute.is_none() {
            return Ok(());
        }
        while self.arrivals.front().is_some_and(|&at| at + MINUTE <= now) {
            self.arrivals.pop_front();
        }
        // Report the longer wait, so that a call after that time is accepted.
        let full = [(per_second, SECOND), (per_minute, MINUTE)]
            .into_iter()
            .filter_map(|(limit, window)| {
                let limit = limit?;
                let wait = self.free_at(limit, window, now)?.checked_sub(now)?;
                (!wait.is_zero()).then_some((wait, limit))
            })
            .max();
        if full.is_none() || count_refused {
            self.arrivals.push_back(now);
        }
        match full {
            None => Ok(()),
            Some((wait, limit)) => Err(LimitReached {
                limit,
                reset_s: wait.as_secs() + u64::from(wait.subsec_nanos() > 0),
            }),
        }
    }

    /// When the window has room for a call: one window after the arrival that makes it full.
    fn free_at(&self, limit: u32, window: Duration, now: Duration) -> Option<Duration> {
        if limit == 0 {
            return Some(now + window);
        }
        let index = self.arrivals.len().checked_sub(limit as usize)?;
        self.arrivals.get(index).map(|&at| at + window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(windows: &mut Windows, ms: u64) -> Result<(), LimitReached> {
        windows.admit(Duration::from_millis(ms), Some(50), Some(1000), false)
    }

    #[test]
    fn the_51st_call_is_accepted_one_second_after_the_first() {
        let mut windows = Windows::default();
        for n in 0..50 {
            assert_eq!(admit(&mut windows, n * 10), Ok(()));
        }
        for ms in [500, 990, 999] {
            assert_eq!(
                admit(&mut windows, ms),
                Err(LimitReached {
                    limit: 50,
                    reset_s: 1
                })
            );
        }
        assert_eq!(admit(&mut windows, 1000), Ok(()));
        assert!(admit(&mut windows, 1009).is_err());
        assert_eq!(admit(&mut windows, 1010), Ok(()));
    }

    #[test]
    fn the_1001st_call_is_accepted_one_minute_after_the_first() {
        let mut windows = Windows::default();
        for n in 0..1000 {
            assert_eq!(admit(&mut windows, n * 25), Ok(()), "{n}");
        }
        assert_eq!(
            admit(&mut windows, 25_000),
            Err(LimitReached {
                limit: 1000,
                reset_s: 35
            })
        );
        assert_eq!(
            admit(&mut windows, 25_001),
            Err(LimitReached {
                limit: 1000,
                reset_s: 35
            })
        );
        assert_eq!(
            admit(&mut windows, 59_999),
            Err(LimitReached {
                limit: 1000,
                reset_s: 1
            })
        );
        assert_eq!(admit(&mut windows, 60_000), Ok(()));
        assert!(admit(&mut windows, 60_024).is_err());
    }

    #[test]
    fn if_both_windows_are_full_the_longer_wait_is_reported() {
        let mut windows = Windows::default();
        let mut at = |ms| windows.admit(Duration::from_millis(ms), Some(2), Some(3), false);
        for ms in [0, 20_000, 20_100] {
            assert_eq!(at(ms), Ok(()));
        }
        assert_eq!(
            at(20_200),
            Err(LimitReached {
                limit: 3,
                reset_s: 40
            })
        );
    }

    #[test]
    fn refused_calls_fill_the_window_if_they_count() {
        let mut windows = Windows::default();
        let mut at = |ms| windows.admit(Duration::from_millis(ms), Some(2), None, true);
        assert!(at(0).is_ok());
        assert!(at(0).is_ok());
        assert!(at(900).is_err());
        assert!(at(950).is_err());
        assert!(at(1_100).is_err(), "the two refused calls fill the window");
        assert!(at(2_200).is_ok());
    }

    #[test]
    fn no_limit_accepts_all_calls_and_a_limit_of_zero_none() {
        let mut windows = Windows::default();
        for _ in 0..5000 {
            assert_eq!(windows.admit(Duration::ZERO, None, None, false), Ok(()));
        }
        assert!(windows.admit(Duration::ZERO, Some(0), None, false).is_err());
    }
}
