//! The core's outcomes as Python's, and back.

use std::ptr;

use feishu_feed_card::{FailedUserReason, Outcome};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyTuple, PyType};
use pyo3::{IntoPyObjectExt, ffi, intern};

use crate::errors::raised;

/// The Python object of an outcome.
pub(crate) fn to_python<'py>(py: Python<'py>, outcome: &Outcome) -> PyResult<Bound<'py, PyAny>> {
    static OUTCOME: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = OUTCOME.import(py, "feishu_feed_card._outcome", "Outcome")?;
    let reasons = outcome
        .failed_user_reasons
        .iter()
        .map(|reason| reason_to_python(py, reason))
        .collect::<PyResult<Vec<_>>>()?;
    let users = &outcome.users;
    record(
        class,
        [
            (
                intern!(py, "failed_user_reasons"),
                PyTuple::new(py, reasons)?.into_any(),
            ),
            (intern!(py, "log_ids"), texts(py, &outcome.log_ids)?),
            (intern!(py, "requests"), outcome.requests.into_bound_py_any(py)?),
            (intern!(py, "reached"), texts(py, &users.reached)?),
            (intern!(py, "failed"), texts(py, &users.failed)?),
            (intern!(py, "unknown"), texts(py, &users.unknown)?),
            (intern!(py, "not_attempted"), texts(py, &users.not_attempted)?),
        ],
    )
}

fn texts<'py>(py: Python<'py>, texts: &[String]) -> PyResult<Bound<'py, PyAny>> {
    PyTuple::new(py, texts).map(Bound::into_any)
}

fn reason_to_python<'py>(py: Python<'py>, reason: &FailedUserReason) -> PyResult<Bound<'py, PyAny>> {
    static REASON: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let FailedUserReason {
        error_code,
        error_message,
        user_id,
        ..
    } = reason;
    REASON
        .import(py, "feishu_feed_card._outcome", "FailedUserReason")?
        .call1((error_code, error_message, user_id))
}

/// One of the package's records with all its slots. Its own `__init__` would take 1 µs for an outcome.
pub(crate) fn record<'py, const N: usize>(
    class: &Bound<'py, PyType>,
    slots: [(&Bound<'py, PyString>, Bound<'py, PyAny>); N],
) -> PyResult<Bound<'py, PyAny>> {
    let py = class.py();
    #[allow(
        unsafe_code,
        reason = "there is no safe way around a class's `__init__` and `__setattr__`"
    )]
    // SAFETY: the class is a plain one with slots, made by a `class` statement, for which this is what its
    // `__new__` does; names and values are Python's objects, borrowed for the calls.
    unsafe {
        let record = ffi::PyType_GenericNew(class.as_type_ptr(), ptr::null_mut(), ptr::null_mut());
        let record = Bound::from_owned_ptr_or_err(py, record)?;
        for (name, value) in slots {
            if ffi::PyObject_GenericSetAttr(record.as_ptr(), name.as_ptr(), value.as_ptr()) != 0 {
                return Err(PyErr::fetch(py));
            }
        }
        Ok(record)
    }
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
