//! Values that must not be used after a fork: the runtime, connections, locks, file descriptors.

use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Number of forks between the process that imported the package and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Returns a number that differs between a process and its forked children. The pid alone can be the same: a child can
/// be process 1 of a new PID namespace while its parent is process 1 of another one. The number of forks alone can be
/// the same, too: Python does not count forks made by other code.
pub(crate) fn id() -> u64 {
    u64::from(FORKS.load(Ordering::Relaxed)) << 32 | u64::from(std::process::id())
}

/// Returns an error in a subinterpreter, as Python itself does from 3.12 on. When a subinterpreter ends, it would stop
/// the process's only waker, and our statics hold modules of one interpreter only.
pub(crate) fn check_interpreter() -> PyResult<()> {
    #[allow(unsafe_code, reason = "PyO3 has no safe function for it")]
    // SAFETY: this thread is attached, so there is a current interpreter.
    let interpreter = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    if interpreter == 0 {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "module feishu_feed_card._native does not support loading in subinterpreters",
    ))
}

/// Registers a callback that counts forks, on systems with `fork`.
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

/// A value that each process creates separately.
///
/// In a forked child the threads of the parent's value do not exist, and its locks may be held forever. So the child
/// neither uses nor drops the parent's value, and creates its own. A thread does not wait for another one that is
/// creating the value: that one may wait for the GIL, or may be the same thread, interrupted by a signal handler.
pub(crate) struct PerProcess<T> {
    created: AtomicPtr<Created<T>>,
    owns: PhantomData<T>,
}

struct Created<T> {
    /// The process that created the value.
    by: u64,
    value: T,
}

impl<T> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self {
            created: AtomicPtr::new(ptr::null_mut()),
            owns: PhantomData,
        }
    }
}

impl<T: Send + Sync> PerProcess<T> {
    /// Returns this process's value, if it exists.
    pub(crate) fn get(&self) -> Option<&T> {
        Self::of_this_process(self.created.load(Ordering::Acquire))
    }

    /// Returns this process's value. Creates it if it does not exist.
    pub(crate) fn get_or_try_init<E>(&self, create: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        let before = self.created.load(Ordering::Acquire);
        if let Some(value) = Self::of_this_process(before) {
            return Ok(value);
        }
        let by = id();
        let own = Box::into_raw(Box::new(Created { by, value: create()? }));
        let published = self
            .created
            .compare_exchange(before, own, Ordering::AcqRel, Ordering::Acquire);
        match published {
            #[allow(
                unsafe_code,
                reason = "the cell returns references to the value behind its pointer"
            )]
            // SAFETY: `own` comes from the box above, and is freed only with `self`.
            Ok(_parents) => Ok(unsafe { &(*own).value }),
            #[allow(unsafe_code, reason = "see above")]
            Err(others) => {
                // SAFETY: another thread of this process was faster, so `own` was not shared, and `others` is freed only
                // with `self`.
                unsafe {
                    drop(Box::from_raw(own));
                    Ok(&(*others).value)
                }
            }
        }
    }

    fn of_this_process<'a>(created: *mut Created<T>) -> Option<&'a T> {
        #[allow(
            unsafe_code,
            reason = "the cell returns references to the value behind its pointer"
        )]
        // SAFETY: the pointer is null or from a box that is freed only with `self`. A process sets it once. A forked
        // child that replaces it does not free the parent's box.
        let created = unsafe { created.as_ref() }?;
        (created.by == id()).then_some(&created.value)
    }
}

impl PerProcess<Py<PyModule>> {
    /// Returns a module, imported on first use. Keeps it, because imports fail while the interpreter exits.
    pub(crate) fn import<'py>(&self, py: Python<'py>, name: &str) -> PyResult<&Bound<'py, PyModule>> {
        let module = self.get_or_try_init(|| PyResult::Ok(py.import(name)?.unbind()))?;
        Ok(module.bind(py))
    }
}

/// Returns `sys.modules`.
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
        let created = *self.created.get_mut();
        #[allow(unsafe_code, reason = "the value was shared as a raw pointer")]
        // SAFETY: no reference to the value exists while `self` is dropped, and the pointer is null or from a box.
        unsafe {
            if created.as_ref().is_some_and(|created| created.by == id()) {
                drop(Box::from_raw(created));
            }
        }
    }
}
