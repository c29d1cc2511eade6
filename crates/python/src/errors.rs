//! Conversion of the core's errors to Python's exceptions. The exception classes are written in Python.

use std::error::Error as StdError;
use std::{io, iter};

use feishu_feed_card::{
    ConnectionReason, Error, FieldViolation as CoreField, PermissionViolation as CorePermission, Station,
    binding,
};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{IntoPyObjectExt, PyTraverseError};

use crate::arguments;
use crate::outcome;
use crate::provider::Raised;
use crate::records::record;

record! {
    /// A missing permission, as reported by the platform.
    ///
    /// Attributes:
    ///     type: The platform's name for the type of permission.
    ///     subject: The scope's name, such as "im:datasync.feed_card.time_sensitive:write".
    ///
    /// Example:
    ///     >>> PermissionViolation("action_scope_required", "contact:user.base:readonly").subject
    ///     'contact:user.base:readonly'
    struct PermissionViolation {
        r#type: String = String::new(),
        subject: String = String::new(),
    }
    {}
}

record! {
    /// A field of the request that the platform refused.
    ///
    /// Attributes:
    ///     field: The field's name.
    ///     value: The refused value as text.
    ///     description: The platform's description of the problem.
    ///
    /// Example:
    ///     >>> FieldViolation("user_ids", "", "user_ids is required").field
    ///     'user_ids'
    struct FieldViolation {
        field: String = String::new(),
        value: String = String::new(),
        description: String = String::new(),
    }
    {}
}

/// The exception classes by their kinds.
///
/// Each import of the package creates new classes. A client raises those of the import that created it, because `except`
/// would not catch the classes of another import, such as after a reload.
#[derive(FromPyObject)]
pub(crate) struct Errors(Py<PyAny>);

impl Errors {
    /// Returns the classes of the package that is imported now.
    pub(crate) fn imported(py: Python<'_>) -> PyResult<Self> {
        let errors = py.import("feishu_feed_card._errors")?;
        Ok(Self(errors.getattr("CLASSES")?.unbind()))
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self(self.0.clone_ref(py))
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }

    /// Returns the exception to raise for an error.
    pub(crate) fn raised(&self, py: Python<'_>, error: &Error) -> PyErr {
        match self.to_python(py, error) {
            Ok(exception) => PyErr::from_value(exception),
            Err(error) => error,
        }
    }

    /// Returns the exception for a call for which the system had no thread or file descriptor.
    pub(crate) fn out_of_resources(&self, py: Python<'_>, error: io::Error, user_ids: Vec<String>) -> PyErr {
        self.raised(py, &binding::out_of_resources(error, user_ids))
    }

    /// Converts an error to an exception.
    pub(crate) fn to_python<'py>(&self, py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
        let class = self.0.bind(py).get_item(error.kind().as_str())?;
        // Not the error's `Display`, which omits the cause because Rust has `source` for it.
        let printed = binding::spelled(error, str::to_owned).printed;
        let exception = class.call((printed,), Some(&self.facts(py, error)?))?;
        if let Some(cause) = causes(error).find_map(|cause| cause.downcast_ref::<Raised>()) {
            exception.setattr("__cause__", cause.exception(py))?;
        }
        Ok(exception)
    }

    /// Returns the error's fields by the exception's keywords.
    fn facts<'py>(&self, py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyDict>> {
        let facts = PyDict::new(py);
        macro_rules! put {
            ($($name:ident: $value:expr),+ $(,)?) => {
                $(if let Some(value) = $value { facts.set_item(stringify!($name), value)?; })+
            };
        }
        let users = error.users();
        let missing = error.permission_violations();
        put!(
            field: error.field(),
            platform_code: error.platform_code(),
            msg: error.msg(),
            http_status: error.http_status(),
            log_id: error.log_id(),
            retryable: error.retryable().then_some(true),
            retry_after: error.retry_after().map(|wait| wait.as_secs_f64()),
            attempts: Some(error.attempts()).filter(|attempts| *attempts > 0),
            call: error.call(),
            station: error.station().map(Station::as_str),
            reason: error.reason().map(ConnectionReason::as_str),
            hint: error.hint(),
            permission_violations: tuple(py, missing.iter().map(PermissionViolation::of))?,
            field_violations: tuple(py, error.field_violations().iter().map(FieldViolation::of))?,
            reached: tuple(py, &users.reached)?,
            failed: tuple(py, &users.failed)?,
            unknown: tuple(py, &users.unknown)?,
            not_attempted: tuple(py, &users.not_attempted)?,
            outcome: error.outcome().map(|outcome| outcome::to_python(py, self, outcome)).transpose()?,
        );
        Ok(facts)
    }
}

/// Returns `None` if there are no items.
fn tuple<'py, T: IntoPyObject<'py>>(
    py: Python<'py>,
    items: impl IntoIterator<Item = T>,
) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let items = items.into_iter().map(|item| item.into_bound_py_any(py));
    let items = items.collect::<PyResult<Vec<_>>>()?;
    (!items.is_empty()).then(|| PyTuple::new(py, items)).transpose()
}

impl PermissionViolation {
    fn of(violation: &CorePermission) -> Self {
        Self {
            r#type: violation.kind.clone(),
            subject: violation.subject.clone(),
        }
    }
}

impl FieldViolation {
    fn of(violation: &CoreField) -> Self {
        Self {
            field: violation.field.clone(),
            value: violation.value.clone(),
            description: violation.description.clone(),
        }
    }
}

fn causes<'a>(error: &'a Error) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    iter::successors(error.source(), |cause: &&'a _| StdError::source(*cause))
}

/// Why an argument was refused.
pub(crate) enum Refusal {
    Wrong(Error),
    /// The caller's code raised an exception, for example in `__iter__`.
    Raised(PyErr),
}

impl Refusal {
    /// Adds the call's user ids to the error.
    pub(crate) fn with_users(self, user_ids: Vec<String>) -> Self {
        match self {
            Self::Wrong(error) => Self::Wrong(binding::not_attempted(error, user_ids)),
            Self::Raised(error) => Self::Raised(error),
        }
    }

    pub(crate) fn raised(self, py: Python<'_>, errors: &Errors) -> PyErr {
        match self {
            Self::Wrong(error) => errors.raised(py, &error),
            Self::Raised(error) => error,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Wrong(error)
    }
}

impl From<PyErr> for Refusal {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

/// Returns the exception for a wrong argument that Python code found. `user_ids` is the call's argument of that name.
#[pyfunction]
#[pyo3(signature = (errors, field, value, expected, user_ids=None))]
pub(crate) fn invalid_input<'py>(
    py: Python<'py>,
    errors: Bound<'py, PyAny>,
    field: &str,
    value: &str,
    expected: &str,
    user_ids: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let user_ids = user_ids.map(arguments::ids_in).unwrap_or_default();
    let error = binding::not_attempted(binding::invalid_input(field, value, expected), user_ids);
    Errors(errors.unbind()).to_python(py, &error)
}
