//! The core's outcomes as Python's, and back.

use std::ffi::c_void;
use std::{mem, ptr};

use feishu_feed_card::{FailedUserReason, Outcome};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};
use pyo3::{IntoPyObjectExt, ffi, intern};

use crate::errors::raised;

/// The Python object of an outcome.
pub(crate) fn to_python<'py>(py: Python<'py>, outcome: &Outcome) -> PyResult<Bound<'py, PyAny>> {
    to_python_with(py, outcome, texts(py, &outcome.users.reached)?)
}

/// The same with Python's own texts of the ids that were reached.
pub(crate) fn to_python_with<'py>(
    py: Python<'py>,
    outcome: &Outcome,
    reached: Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    static OUTCOME: RecordClass<7> = RecordClass::new(
        "feishu_feed_card._outcome",
        "Outcome",
        [
            "failed_user_reasons",
            "log_ids",
            "requests",
            "reached",
            "failed",
            "unknown",
            "not_attempted",
        ],
    );
    let reasons = outcome
        .failed_user_reasons
        .iter()
        .map(|reason| reason_to_python(py, reason))
        .collect::<PyResult<Vec<_>>>()?;
    let users = &outcome.users;
    OUTCOME.make(
        py,
        &[
            PyTuple::new(py, reasons)?.into_any(),
            texts(py, &outcome.log_ids)?.into_any(),
            outcome.requests.into_bound_py_any(py)?,
            reached.into_any(),
            texts(py, &users.failed)?.into_any(),
            texts(py, &users.unknown)?.into_any(),
            texts(py, &users.not_attempted)?.into_any(),
        ],
    )
}

fn texts<'py>(py: Python<'py>, texts: &[String]) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, texts)
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

/// How one of the package's records is made. Its own `__init__` would take 1 µs for an outcome, and finding each
/// slot by its name half of what is left.
pub(crate) struct RecordClass<const N: usize> {
    module: &'static str,
    class: &'static str,
    slots: [&'static str; N],
    found: PyOnceLock<FoundClass<N>>,
}

struct FoundClass<const N: usize> {
    class: Py<PyType>,
    slots: [SlotSetter; N],
}

/// A slot's descriptor, and what sets it.
struct SlotSetter(Py<PyAny>, ffi::descrsetfunc);

impl<const N: usize> RecordClass<N> {
    pub(crate) const fn new(module: &'static str, class: &'static str, slots: [&'static str; N]) -> Self {
        Self {
            module,
            class,
            slots,
            found: PyOnceLock::new(),
        }
    }

    /// One of these with values for all of its slots.
    pub(crate) fn make<'py>(
        &self,
        py: Python<'py>,
        values: &[Bound<'py, PyAny>; N],
    ) -> PyResult<Bound<'py, PyAny>> {
        let found = self.found.get_or_try_init(py, || self.find(py))?;
        #[allow(
            unsafe_code,
            reason = "there is no safe way around a class's `__init__` and `__setattr__`"
        )]
        // SAFETY: the class is a plain one with slots, made by a `class` statement, for which this is what its
        // `__new__` does; each descriptor is set by its own type's function; the values are Python's objects,
        // borrowed for the calls.
        unsafe {
            let class = found.class.bind(py).as_type_ptr();
            let record = ffi::PyType_GenericNew(class, ptr::null_mut(), ptr::null_mut());
            let record = Bound::from_owned_ptr_or_err(py, record)?;
            for (SlotSetter(descriptor, set), value) in found.slots.iter().zip(values) {
                if set(descriptor.as_ptr(), record.as_ptr(), value.as_ptr()) != 0 {
                    return Err(PyErr::fetch(py));
                }
            }
            Ok(record)
        }
    }

    fn find(&self, py: Python<'_>) -> PyResult<FoundClass<N>> {
        let class = py
            .import(self.module)?
            .getattr(self.class)?
            .cast_into::<PyType>()?;
        let mut slots = Vec::with_capacity(N);
        for name in self.slots {
            slots.push(SlotSetter::of(&class.getattr(name)?)?);
        }
        let slots = slots.try_into();
        let slots = slots.map_err(|_| PyRuntimeError::new_err("a bug in feishu_feed_card: lost a slot"))?;
        Ok(FoundClass {
            class: class.unbind(),
            slots,
        })
    }
}

impl SlotSetter {
    fn of(descriptor: &Bound<'_, PyAny>) -> PyResult<Self> {
        #[allow(unsafe_code, reason = "a type's functions are had from its C interface alone")]
        // SAFETY: this slot of a type is null or holds such a function, and a null pointer is `None`.
        let set = unsafe {
            let set = ffi::PyType_GetSlot(descriptor.get_type_ptr(), ffi::Py_tp_descr_set);
            mem::transmute::<*mut c_void, Option<ffi::descrsetfunc>>(set)
        };
        let set = set.ok_or_else(|| PyTypeError::new_err("a bug in feishu_feed_card: not a slot"))?;
        Ok(Self(descriptor.clone().unbind(), set))
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
