//! The core's errors as Python's exceptions, which are written in Python.

use std::error::Error as StdError;
use std::{io, iter};

use feishu_feed_card::{
    ConnectionReason, Error, ErrorKind, FieldViolation, PermissionViolation, Station, binding,
};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

use crate::outcome;
use crate::provider::Raised;

/// The exception to raise for an error.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    match to_python(py, error) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// An error as an exception.
pub(crate) fn to_python<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    let class = class(py, error.kind())?;
    let exception = class.call((error.to_string(),), Some(&facts(py, error)?))?;
    if let Some(cause) = causes(error).find_map(|cause| cause.downcast_ref::<Raised>()) {
        exception.setattr(intern!(py, "__cause__"), cause.exception(py))?;
    }
    Ok(exception)
}

fn class(py: Python<'_>, kind: ErrorKind) -> PyResult<Bound<'_, PyAny>> {
    static CLASSES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let classes = CLASSES.import(py, "feishu_feed_card._errors", "CLASSES")?;
    classes.get_item(kind.as_str())
}

/// Whether an exception says that an argument is wrong, as ours do.
pub(crate) fn is_invalid_input(py: Python<'_>, error: &PyErr) -> PyResult<bool> {
    error.value(py).is_instance(&class(py, ErrorKind::InvalidInput)?)
}

/// The exception for a wrong argument, with the user ids that were handed in beside it.
pub(crate) fn refused(py: Python<'_>, error: PyErr, user_ids: Vec<String>) -> PyErr {
    let with_ids = || {
        if is_invalid_input(py, &error)? {
            let refused = binding::refused(binding::invalid_input("", "", ""), user_ids);
            let not_attempted = PyTuple::new(py, &refused.users().not_attempted)?;
            error
                .value(py)
                .setattr(intern!(py, "not_attempted"), not_attempted)?;
        }
        Ok(())
    };
    match with_ids() {
        Ok(()) => error,
        Err(error) => error,
    }
}

/// The exception of a call for which the system refused a thread or a file descriptor.
pub(crate) fn out_of_resources(py: Python<'_>, error: io::Error, user_ids: Vec<String>) -> PyErr {
    raised(py, &binding::out_of_resources(error, user_ids))
}

/// What an error knows, by the exception's keyword.
fn facts<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyDict>> {
    let facts = PyDict::new(py);
    macro_rules! put {
        ($($name:ident: $value:expr),+ $(,)?) => {
            $(if let Some(value) = $value { facts.set_item(intern!(py, stringify!($name)), value)?; })+
        };
    }
    let users = error.users();
    put!(
        field: error.field(),
        platform_code: error.platform_code(),
        msg: error.msg(),
        http_status: error.http_status(),
        log_id: error.log_id(),
        retryable: error.retryable().then_some(true),
        retry_after: error.retry_after().map(|wait| wait.as_secs_f64()),
        attempts: Some(error.attempts()).filter(|attempts| *attempts > 0),
        station: error.station().map(Station::as_str),
        reason: error.reason().map(ConnectionReason::as_str),
        hint: error.hint(),
        permission_violations: tuple(py, error.permission_violations(), permission)?,
        field_violations: tuple(py, error.field_violations(), field)?,
        reached: texts(py, &users.reached)?,
        failed: texts(py, &users.failed)?,
        unknown: texts(py, &users.unknown)?,
        not_attempted: texts(py, &users.not_attempted)?,
        outcome: error.outcome().map(|outcome| outcome::to_python(py, outcome)).transpose()?,
    );
    Ok(facts)
}

fn tuple<'py, T>(
    py: Python<'py>,
    items: &[T],
    convert: fn(Python<'py>, &T) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Option<Bound<'py, PyTuple>>> {
    if items.is_empty() {
        return Ok(None);
    }
    let items = items
        .iter()
        .map(|item| convert(py, item))
        .collect::<PyResult<Vec<_>>>()?;
    PyTuple::new(py, items).map(Some)
}

fn texts<'py>(py: Python<'py>, items: &[String]) -> PyResult<Option<Bound<'py, PyTuple>>> {
    (!items.is_empty()).then(|| PyTuple::new(py, items)).transpose()
}

fn permission<'py>(py: Python<'py>, violation: &PermissionViolation) -> PyResult<Bound<'py, PyAny>> {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let class = CLASS.import(py, "feishu_feed_card._errors", "PermissionViolation")?;
    class.call1((&violation.kind, &violation.subject))
}

fn field<'py>(py: Python<'py>, violation: &FieldViolation) -> PyResult<Bound<'py, PyAny>> {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let class = CLASS.import(py, "feishu_feed_card._errors", "FieldViolation")?;
    class.call1((&violation.field, &violation.value, &violation.description))
}

fn causes<'a>(error: &'a Error) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    iter::successors(error.source(), |cause: &&'a _| StdError::source(*cause))
}

/// Makes the exception for a wrong argument that only Python can see.
#[pyfunction]
pub(crate) fn invalid_input<'py>(
    py: Python<'py>,
    field: &str,
    value: &str,
    expected: &str,
) -> PyResult<Bound<'py, PyAny>> {
    to_python(py, &binding::invalid_input(field, value, expected))
}
