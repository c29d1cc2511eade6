//! The core's outcomes as Python's, and back.

use feishu_feed_card::{FailedUserReason, Outcome};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};

use crate::errors::raised;

fn class<'py>(
    py: Python<'py>,
    lock: &'static PyOnceLock<Py<PyType>>,
    name: &str,
) -> PyResult<&'py Bound<'py, PyType>> {
    lock.import(py, "feishu_feed_card._outcome", name)
}

/// The Python object of an outcome.
pub(crate) fn to_python<'py>(py: Python<'py>, outcome: &Outcome) -> PyResult<Bound<'py, PyAny>> {
    static OUTCOME: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let reasons = outcome
        .failed_user_reasons
        .iter()
        .map(|reason| reason_to_python(py, reason))
        .collect::<PyResult<Vec<_>>>()?;
    let users = &outcome.users;
    class(py, &OUTCOME, "Outcome")?.call1((
        PyTuple::new(py, reasons)?,
        PyTuple::new(py, &outcome.log_ids)?,
        outcome.requests,
        PyTuple::new(py, &users.reached)?,
        PyTuple::new(py, &users.failed)?,
        PyTuple::new(py, &users.unknown)?,
        PyTuple::new(py, &users.not_attempted)?,
    ))
}

fn reason_to_python<'py>(py: Python<'py>, reason: &FailedUserReason) -> PyResult<Bound<'py, PyAny>> {
    static REASON: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let FailedUserReason {
        error_code,
        error_message,
        user_id,
        ..
    } = reason;
    class(py, &REASON, "FailedUserReason")?.call1((error_code, error_message, user_id))
}

fn of_python(outcome: &Bound<'_, PyAny>) -> PyResult<Outcome> {
    let py = outcome.py();
    let mut core = Outcome::default();
    for reason in outcome.getattr(intern!(py, "failed_user_reasons"))?.try_iter()? {
        let reason = reason?;
        let mut core_reason = FailedUserReason::default();
        core_reason.error_code = reason.getattr(intern!(py, "error_code"))?.extract()?;
        core_reason.error_message = reason.getattr(intern!(py, "error_message"))?.extract()?;
        core_reason.user_id = reason.getattr(intern!(py, "user_id"))?.extract()?;
        core.failed_user_reasons.push(core_reason);
    }
    core.log_ids = outcome.getattr(intern!(py, "log_ids"))?.extract()?;
    core.requests = outcome.getattr(intern!(py, "requests"))?.extract()?;
    core.users.reached = outcome.getattr(intern!(py, "reached"))?.extract()?;
    core.users.failed = outcome.getattr(intern!(py, "failed"))?.extract()?;
    core.users.unknown = outcome.getattr(intern!(py, "unknown"))?.extract()?;
    core.users.not_attempted = outcome.getattr(intern!(py, "not_attempted"))?.extract()?;
    Ok(core)
}

/// Raises what the core makes of an outcome in which users were not reached.
#[pyfunction]
pub(crate) fn raise_for_failed(outcome: &Bound<'_, PyAny>) -> PyResult<()> {
    match of_python(outcome)?.into_result() {
        Ok(_) => Ok(()),
        Err(error) => Err(raised(outcome.py(), &error)),
    }
}
