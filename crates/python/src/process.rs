//! Values that must not cross a fork: the runtime, connections, locks, descriptors.

use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Forks between the first process that imported the package and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Differs between a process and its forked children. The pid alone does not: the first process of a PID namespace
/// has pid 1, like a parent that is the first of its own. The forks alone do not count those made outside of Python.
pub(crate) fn id() -> u64 {
    u64::from(FORKS.load(Ordering::Relaxed)) << 32 | u64::from(std::process::id())
}

/// Refuses a subinterpreter, as Python does itself from 3.12 on. The process's one waker would be stopped at its end, and
/// modules that are kept would be those of another interpreter.
pub(crate) fn check_interpreter() -> PyResult<()> {
    #[allow(unsafe_code, reason = "PyO3 has no safe way to ask for it")]
    // SAFETY: this thread is attached, so there is a current interpreter.
    let interpreter = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    if interpreter == 0 {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "module feishu_feed_card._native does not support loading in subinterpreters",
    ))
}

/// Has Python count forks, on systems that have them.
pub(crate) fn count_forks(py: Python<'_>) -> PyResult<()> {
    if let Some(register) = py.import("os")?.getattr_opt("register_at_fork")? {
        let after = PyDict::new(py);
        after.set_item("after_in_child", wrap_pyfunction!(forked, py)?)?;
        register.call((), Some(&after))?;
    }
    Ok(())
}

#[pyfunction]
fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// A value that each process makes for itself.
///
/// In a forked child the threads behind the parent's value are gone, and its locks may be held for ever.
/// The child therefore never touches that value, nor drops it, and makes its own. Nobody waits for another thread's
/// value either: that thread may wait for the GIL, or may be this one, below a signal handler.
pub(crate) struct PerProcess<T> {
    made: AtomicPtr<Made<T>>,
    owns: PhantomData<T>,
}

struct Made<T> {
    by: u64,
    value: T,
}

impl<T> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self {
            made: AtomicPtr::new(ptr::null_mut()),
            owns: PhantomData,
        }
    }
}

impl<T: Send + Sync> PerProcess<T> {
    /// This process's value, if it has made one.
    pub(crate) fn get(&self) -> Option<&T> {
        Self::of_this_process(self.made.load(Ordering::Acquire))
    }

    /// This process's value, made now if there is none yet.
    pub(crate) fn get_or_try_init<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        let before = self.made.load(Ordering::Acquire);
        if let Some(value) = Self::of_this_process(before) {
            return Ok(value);
        }
        let by = id();
        let own = Box::into_raw(Box::new(Made { by, value: make()? }));
        let published = self
            .made
            .compare_exchange(before, own, Ordering::AcqRel, Ordering::Acquire);
        match published {
            #[allow(unsafe_code, reason = "the cell hands out references to what it points to")]
            // SAFETY: `own` came from a box a moment ago, and is freed only with `self`.
            Ok(_parents) => Ok(unsafe { &(*own).value }),
            #[allow(unsafe_code, reason = "see above")]
            Err(others) => {
                // SAFETY: another thread of this process was first, so `own` was never shared; `others` is
                // freed only with `self`.
                unsafe {
                    drop(Box::from_raw(own));
                    Ok(&(*others).value)
                }
            }
        }
    }

    fn of_this_process<'a>(made: *mut Made<T>) -> Option<&'a T> {
        #[allow(unsafe_code, reason = "the cell hands out references to what it points to")]
        // SAFETY: the pointer is null or comes from a box that is freed only with `self`: within one
        // process it is set once, and a fork's child that replaces it leaks the parent's.
        let made = unsafe { made.as_ref() }?;
        (made.by == id()).then_some(&made.value)
    }
}

impl PerProcess<Py<PyModule>> {
    /// A module, imported at the first use. Kept because nothing can be imported any more as the interpreter ends.
    pub(crate) fn import<'py>(&self, py: Python<'py>, name: &str) -> PyResult<&Bound<'py, PyModule>> {
        let module = self.get_or_try_init(|| PyResult::Ok(py.import(name)?.unbind()))?;
        Ok(module.bind(py))
    }
}

/// Python's `sys.modules`.
pub(crate) fn modules(py: Python<'_>) -> PyResult<&Bound<'_, PyDict>> {
    static MODULES: PerProcess<Py<PyDict>> = PerProcess::new();
    let modules = MODULES.get_or_try_init(|| {
        let modules = py.import("sys")?.getattr("modules")?;
        PyResult::Ok(modules.cast_into::<PyDict>()?.unbind())
    })?;
    Ok(modules.bind(py))
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let made = *self.made.get_mut();
        #[allow(unsafe_code, reason = "the box was taken apart to share it")]
        // SAFETY: nobody else holds the pointer while `self` is dropped, and it is null or from a box.
        unsafe {
            if made.as_ref().is_some_and(|made| made.by == id()) {
                drop(Box::from_raw(made));
            }
        }
    }
}
