//! A client's quota as a Python object, to be shared with other clients.

use feishu_feed_card::{QuotaHandle, RateLimit, binding};
use pyo3::prelude::*;

use crate::process::PerProcess;

/// A client's quota, to be shared with other clients of the same app: `Client(…, quota=client.quota)`.
///
/// After a fork, the child process has a separate quota.
#[pyclass(module = "feishu_feed_card", frozen)]
pub(crate) struct Quota {
    limit: RateLimit,
    handle: PerProcess<QuotaHandle>,
}

impl Quota {
    pub(crate) fn of(limit: RateLimit, handle: QuotaHandle) -> Self {
        let quota = Self {
            limit,
            handle: PerProcess::new(),
        };
        let _ = quota.handle.get_or_try_init(|| Ok::<_, ()>(handle));
        quota
    }

    pub(crate) fn handle(&self) -> QuotaHandle {
        let handle = self
            .handle
            .get_or_try_init(|| Ok::<_, std::convert::Infallible>(binding::fresh_quota(self.limit)));
        match handle {
            Ok(handle) => handle.clone(),
        }
    }
}

#[pymethods]
impl Quota {
    fn __repr__(&self) -> String {
        let RateLimit {
            per_second,
            per_minute,
            ..
        } = self.limit;
        format!("<feishu_feed_card.Quota of {per_second} a second, {per_minute} a minute>")
    }
}
