//! Blocking calls under gevent wait in a thread of the hub's pool, so that other greenlets can run.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyCFunction;

use crate::process::modules;
use crate::waits::Running;

/// Returns the thread pool of this thread's gevent hub. Returns `None` without gevent, and in threads without a hub,
/// which have no other greenlets to block. Does not import gevent.
pub(crate) fn pool(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    let Some(local) = modules(py)?.get_item("gevent._hub_local")? else {
        return Ok(None);
    };
    let Some(get_hub) = local.getattr_opt("get_hub_if_exists")? else {
        return Ok(None); // another thread is importing gevent
    };
    let hub = get_hub.call0()?;
    if hub.is_none() {
        return Ok(None);
    }
    hub.getattr("threadpool").map(Some)
}

/// Waits for a future in a thread of the pool. An exception that is thrown into the waiting greenlet (`gevent.Timeout`,
/// `GreenletExit`) stops the future.
///
/// gevent moves the greenlet's stack, including this frame, while other greenlets run. So the pool's thread must not get
/// a pointer into this stack.
pub(crate) fn wait_in<T: Send + 'static>(
    pool: &Bound<'_, PyAny>,
    running: Running<T>,
) -> PyResult<Option<T>> {
    let py = pool.py();
    let stopper = running.stopper();
    let running = Mutex::new(Some(running));
    let end = Arc::new(Mutex::new(None));
    let wait = PyCFunction::new_closure(py, None, None, {
        let end = end.clone();
        move |arguments, _| -> PyResult<()> {
            let running = running.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(running) = running {
                let found = running.wait(arguments.py(), None)?;
                *end.lock().unwrap_or_else(PoisonError::into_inner) = found;
            }
            Ok(())
        }
    })?;
    let waited = pool.call_method1("apply", (wait,));
    stopper.abort();
    waited?;
    Ok(end.lock().unwrap_or_else(PoisonError::into_inner).take())
}
