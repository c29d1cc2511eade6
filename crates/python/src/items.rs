//! What many calls give: each one's result, the progress, the report.

use feishu_feed_card::binding::many::summary;
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::records::{Tuple, record};

record! {
    /// One request of many, and what it came back with: exactly one of `outcome` and `error`.
    ///
    /// Attributes:
    ///     index: The request's place in what was handed in, from 0.
    ///     request: The request, the very object that was handed in.
    ///     outcome: What the call came back with. Users may have failed one by one: see `outcome.ok`.
    ///     error: Why the call failed.
    ///     tag: The request's `tag`; None if it has none.
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
    /// How far many calls have come.
    ///
    /// Attributes:
    ///     done: How many have come back, those that failed included.
    ///     total: How many there are, where what was handed in has a length.
    ///     failed: How many came back with an error, or with users not reached.
    ///     waiting_for_quota: How many wait for a slot of the quota.
    ///     eta: The least seconds that the quota allows for what is left, where `total` is known.
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
    /// A request that was stopped on its way. Every user id of it is in exactly one of the four.
    ///
    /// Attributes:
    ///     index: The request's place in what was handed in, from 0.
    ///     request: The request, the very object that was handed in.
    ///     reached: User ids for which the platform took the new state.
    ///     failed: User ids that the platform refused.
    ///     unknown: User ids that were sent, and of which nobody can say what became.
    ///     not_attempted: User ids that were never sent.
    ///     tag: The request's `tag`; None if it has none.
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
    /// What became of many calls, also of those stopped early.
    ///
    /// `taken` is the sum of `succeeded`, `failed` and the number of `unfinished`. As a str it is a summary in one line.
    ///
    /// Attributes:
    ///     taken: How many requests were read from what was handed in.
    ///     succeeded: How many came back with every user reached.
    ///     failed: How many came back with an error, or with users not reached.
    ///     unread: Results that were there, and are counted above, but had not been handed out.
    ///     unfinished: Requests that were read and stopped on their way.
    ///     failures: Items with an error, or with users not reached, by index. Includes those of `unread`. At most the
    ///         first 10,000 that finished; `failed` counts all.
    ///     not_read: How many requests were not read. 0 if all were; None if that is not known.
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
