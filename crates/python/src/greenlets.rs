//! Blocking calls under gevent: they wait in a thread of the hub's pool, so that other greenlets run meanwhile.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyDict};
use tokio::sync::oneshot;

use crate::client::wait_here;
use crate::engine::Engine;
use crate::provider::Board;

/// The thread pool of this thread's gevent hub. `None` without gevent, and in threads without a hub: there are no
/// other greenlets to hold up. Nothing is imported for this.
pub(crate) fn pool(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    static MODULES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let modules = MODULES.import(py, "sys", "modules")?;
    let Some(local) = modules.get_item(intern!(py, "gevent._hub_local"))? else {
        return Ok(None);
    };
    let Some(get_hub) = local.getattr_opt(intern!(py, "get_hub_if_exists"))? else {
        return Ok(None); // another thread is importing it
    };
    let hub = get_hub.call0()?;
    if hub.is_none() {
        return Ok(None);
    }
    hub.getattr(intern!(py, "threadpool")).map(Some)
}

/// Runs a call, or a wait, to its end in the pool. An exception that is thrown into the waiting greenlet
/// (`gevent.Timeout`, `GreenletExit`) stops it.
///
/// The greenlet's stack, this frame included, is copied away while others run: the pool's thread gets nothing that
/// points into it.
pub(crate) fn wait_in<F>(
    pool: &Bound<'_, PyAny>,
    engine: &'static Engine,
    making: F,
    board: Option<&Arc<Board>>,
) -> PyResult<F::Output>
where
    F: Future + Unpin + Send + 'static,
    F::Output: Send + 'static,
{
    let py = pool.py();
    let (stop, stopped) = oneshot::channel::<()>();
    let stoppable = Box::pin(async move {
        tokio::select! {
            biased;
            end = making => Some(end),
            _ = stopped => None,
        }
    });
    let waiting = Arc::new(Mutex::new(Some(stoppable)));
    let end = Arc::new(Mutex::new(None));
    let board = board.cloned();
    let run = PyCFunction::new_closure(py, None, None, {
        let (waiting, end) = (waiting.clone(), end.clone());
        move |arguments, _| -> PyResult<()> {
            let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(waiting) = waiting {
                let found = wait_here(arguments.py(), engine, waiting, board.as_ref())?;
                *end.lock().unwrap_or_else(PoisonError::into_inner) = found;
            }
            Ok(())
        }
    })?;
    let waited = pool.call_method1(intern!(py, "apply"), (run,));
    drop(stop);
    {
        // What the pool did not begin is dropped here, and may need the runtime.
        let _entered = engine.enter();
        drop(waiting.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
    waited?;
    let end = end.lock().unwrap_or_else(PoisonError::into_inner).take();
    end.ok_or_else(|| PyRuntimeError::new_err("a bug in feishu_feed_card: the call ended without a result"))
}
