//! The result classes of many calls: `Item`, `Progress`, `Unfinished`, `Report`.

use feishu_feed_card::binding::many::summary;
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::records::{Tuple, record};

record! {
    /// The result of one of many requests. Either `outcome` or `error` is set.
    ///
    /// Attributes:
    ///     index: The request's position in the iterable, from 0.
    ///     request: The request, the same object that was in the iterable.
    ///     outcome: The outcome of the call. It may include users that were not reached: see `outcome.ok`.
    ///     error: The error of a call that failed.
    ///     tag: The request's `tag`, or None.
    ///
    /// Example:
    ///     >>> item = Item(0, {"feed_card_id": "oc_…", "user_ids": ["ou_…"], "time_sensitive": True})
    ///     >>> item.error is None
    ///     True
    struct Item {
        index: usize,
        request: Py<PyAny>,
        outcome: Option<Py<PyAny>> = None,
        error: Option<Py<PyAny>> = None,
        tag: Option<Py<PyAny>> = None,
    }
    {
        fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
            visit.call(&self.request)?;
            visit.call(&self.outcome)?;
            visit.call(&self.error)?;
            visit.call(&self.tag)
        }
    }
}

record! {
    /// The progress of many calls.
    ///
    /// Attributes:
    ///     done: Number of finished requests, including failed ones.
    ///     total: Number of all requests, or None if the iterable has no length.
    ///     failed: Number of requests that ended with an error or with users not reached.
    ///     waiting_for_quota: Number of requests that wait for a slot of the quota.
    ///     eta: Shortest time in seconds in which the quota allows the remaining requests. None if `total` is None.
    ///
    /// Example:
    ///     >>> Progress(done=3, total=4, failed=0, waiting_for_quota=1, eta=0.2).done
    ///     3
    struct Progress {
        done: usize,
        total: Option<usize>,
        failed: usize,
        waiting_for_quota: usize,
        eta: Option<f64>,
    }
    {}
}

record! {
    /// A request that was stopped before it finished. Each of its user ids is in one of the four lists.
    ///
    /// Attributes:
    ///     index: The request's position in the iterable, from 0.
    ///     request: The request, the same object that was in the iterable.
    ///     reached: User ids for which the platform accepted the new state.
    ///     failed: User ids that the platform refused.
    ///     unknown: User ids that were sent and whose result is not known.
    ///     not_attempted: User ids that were never sent.
    ///     tag: The request's `tag`, or None.
    ///
    /// Example:
    ///     >>> request = {"feed_card_id": "oc_…", "user_ids": ["ou_1"], "time_sensitive": True}
    ///     >>> Unfinished(7, request, not_attempted=["ou_1"]).not_attempted
    ///     ('ou_1',)
    struct Unfinished {
        index: usize,
        request: Py<PyAny>,
        reached: Tuple = Tuple::default(),
        failed: Tuple = Tuple::default(),
        unknown: Tuple = Tuple::default(),
        not_attempted: Tuple = Tuple::default(),
        tag: Option<Py<PyAny>> = None,
    }
    {
        fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
            visit.call(&self.request)?;
            visit.call(&self.tag)
        }
    }
}

record! {
    /// The final results of many calls, including those stopped early.
    ///
    /// `taken` is the sum of `succeeded`, `failed` and the number of `unfinished`. `str()` returns a summary in one line.
    ///
    /// Attributes:
    ///     taken: Number of requests that were read from the iterable.
    ///     succeeded: Number of requests that reached all their users.
    ///     failed: Number of requests that ended with an error or with users not reached.
    ///     unread: Items that were available but not taken from the iterator. They are counted above.
    ///     unfinished: Requests that were read but stopped before they finished.
    ///     failures: Items with an error or with users not reached, by index, including those in `unread`. At most the
    ///         first 10,000 that finished; `failed` counts all.
    ///     not_read: Number of requests that were not read from the iterable. None if it is not known.
    ///
    /// Example:
    ///     >>> print(Report(taken=2, succeeded=2, failed=0, not_read=0))
    ///     2 taken: 2 succeeded, 0 failed, 0 unfinished; 0 not read
    struct Report {
        taken: usize,
        succeeded: usize,
        failed: usize,
        unread: Tuple = Tuple::default(),
        unfinished: Tuple = Tuple::default(),
        failures: Tuple = Tuple::default(),
        not_read: Option<usize> = Some(0),
    }
    {
        fn __str__(&self, py: Python<'_>) -> String {
            let unfinished = self.unfinished.0.bind(py).len();
            summary(self.taken, self.succeeded, self.failed, unfinished, self.not_read)
        }

        fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
            visit.call(&self.unread.0)?;
            visit.call(&self.unfinished.0)?;
            visit.call(&self.failures.0)
        }
    }
}
