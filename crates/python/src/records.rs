//! Immutable Python classes for results, with comparison, hash, pickling and `repr` by their fields.

use std::cell::Cell;

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyRecursionError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple};

/// A field with several values. The constructor accepts any iterable and stores a tuple.
pub(crate) struct Tuple(pub(crate) Py<PyTuple>);

impl Tuple {
    pub(crate) fn of<'py, T: IntoPyObject<'py>>(
        py: Python<'py>,
        items: impl IntoIterator<Item = T>,
    ) -> PyResult<Self> {
        let items = items.into_iter().map(|item| item.into_bound_py_any(py));
        let items = items.collect::<PyResult<Vec<_>>>()?;
        PyTuple::new(py, items).map(|tuple| Self(tuple.unbind()))
    }
}

impl Default for Tuple {
    fn default() -> Self {
        Python::attach(|py| Self(PyTuple::empty(py).unbind()))
    }
}

impl<'py> FromPyObject<'_, 'py> for Tuple {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let tuple = value.py().get_type::<PyTuple>().call1((value,))?;
        Ok(Self(tuple.cast_into()?.unbind()))
    }
}

impl<'py> IntoPyObject<'py> for &Tuple {
    type Target = PyTuple;
    type Output = Bound<'py, PyTuple>;
    type Error = std::convert::Infallible;

    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Self::Error> {
        self.0.bind(py).into_pyobject(py).map(Borrowed::to_owned)
    }
}

/// Defines a Python class by a struct. The constructor takes the fields in their order, with their defaults. The field
/// after `;` is hidden from Python. `also` lists properties that `to_dict` includes. The last braces have more methods.
macro_rules! record {
    (
        $(#[$doc:meta])*
        struct $Record:ident {
            $($field:ident: $Type:ty $(= $default:expr)?,)+
            $(; $hidden:ident: $Hidden:ty,)?
        }
        $(also $($property:ident),+;)?
        { $($method:tt)* }
    ) => {
        $(#[$doc])*
        #[pyclass(module = "feishu_feed_card", frozen)]
        pub(crate) struct $Record {
            $(#[pyo3(get)] pub(crate) $field: $Type,)+
            $(pub(crate) $hidden: $Hidden,)?
        }

        #[pymethods]
        impl $Record {
            #[new]
            #[pyo3(signature = ($($field $(= $default)?),+))]
            #[allow(clippy::too_many_arguments, reason = "one for each field of the class")]
            fn new($($field: $Type),+) -> Self {
                Self { $($field,)+ $($hidden: <$Hidden>::default(),)? }
            }

            #[classattr]
            fn __match_args__(py: Python<'_>) -> PyResult<Bound<'_, pyo3::types::PyTuple>> {
                pyo3::types::PyTuple::new(py, [$(stringify!($field).trim_start_matches("r#")),+])
            }

            fn __eq__(slf: &Bound<'_, Self>, other: &Bound<'_, Self>) -> PyResult<bool> {
                $crate::records::equal(slf, other)
            }

            fn __hash__(slf: &Bound<'_, Self>) -> PyResult<isize> {
                $crate::records::values(slf)?.hash()
            }

            fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
                $crate::records::shown(slf)
            }

            fn __reduce__<'py>(
                slf: &Bound<'py, Self>,
            ) -> PyResult<(Bound<'py, pyo3::types::PyType>, Bound<'py, pyo3::types::PyTuple>)> {
                Ok((slf.get_type(), $crate::records::values(slf)?))
            }

            /// Returns the fields as plain data for JSON, without those that are None.
            fn to_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, pyo3::types::PyDict>> {
                $crate::records::to_dict(slf, &[$($(stringify!($property)),+)?])
            }

            $($method)*
        }
    };
}

pub(crate) use record;

fn names(record: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    record.getattr("__match_args__")?.extract()
}

pub(crate) fn values<'py>(record: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    let names = names(record)?;
    let values = names.into_iter().map(|name| record.getattr(name));
    PyTuple::new(record.py(), values.collect::<PyResult<Vec<_>>>()?)
}

pub(crate) fn equal(record: &Bound<'_, PyAny>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
    let _nested = Nested::enter()?;
    values(record)?.eq(values(other)?)
}

pub(crate) fn shown(record: &Bound<'_, PyAny>) -> PyResult<String> {
    let shown = |name: String| {
        let value = record.getattr(&*name)?.repr()?;
        Ok(format!("{name}={}", value.to_string_lossy()))
    };
    let fields = names(record)?
        .into_iter()
        .map(shown)
        .collect::<PyResult<Vec<_>>>()?;
    Ok(format!("{}({})", record.get_type().name()?, fields.join(", ")))
}

pub(crate) fn to_dict<'py>(record: &Bound<'py, PyAny>, also: &[&str]) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(record.py());
    let also = also.iter().map(|name| (*name).to_owned());
    for name in also.chain(names(record)?) {
        let value = record.getattr(&*name)?;
        if !value.is_none() {
            dict.set_item(name, plain(&value)?)?;
        }
    }
    Ok(dict)
}

/// Converts a value to one that `json` can encode. Also converts requests: mappings with any iterable of user ids.
#[pyfunction]
pub(crate) fn plain<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    let is_plain = value.is_none()
        || value.is_instance_of::<PyString>()
        || value.is_instance_of::<PyBool>()
        || value.is_instance_of::<PyInt>()
        || value.is_instance_of::<PyFloat>();
    if is_plain {
        return Ok(value.clone());
    }
    let _nested = Nested::enter()?;
    if let Some(to_dict) = value.getattr_opt("to_dict")? {
        return to_dict.call0();
    }
    if value.hasattr("keys")? {
        let dict = PyDict::new(py);
        dict.call_method1("update", (value,))?;
        for (key, item) in dict.copy()? {
            dict.set_item(key, plain(&item)?)?;
        }
        return Ok(dict.into_any());
    }
    let has_items = value.is_instance_of::<PyTuple>()
        || value.is_instance_of::<PyList>()
        || value.is_instance_of::<PySet>()
        || value.is_instance_of::<PyFrozenSet>();
    if has_items {
        let items = value.try_iter()?.map(|item| plain(&item?));
        return PyList::new(py, items.collect::<PyResult<Vec<_>>>()?).map(Bound::into_any);
    }
    // For example a generator, which cannot be read twice.
    value.repr().map(Bound::into_any)
}

/// Limits the nesting of values, because a request may contain itself. CPython's own limit allows more of our frames
/// than fit on the stack.
struct Nested;

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

impl Nested {
    fn enter() -> PyResult<Self> {
        const DEEPEST: usize = 100;
        if DEPTH.get() == DEEPEST {
            return Err(PyRecursionError::new_err(format!(
                "the value contains itself, or is nested more than {DEEPEST} levels deep"
            )));
        }
        DEPTH.set(DEPTH.get() + 1);
        Ok(Self)
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}
