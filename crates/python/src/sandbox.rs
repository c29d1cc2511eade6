//! The local stand-in for the platform, for `feishu_feed_card.sandbox`.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use feishu_feed_card_sandbox::{Sandbox as Platform, World};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::process;

#[pyclass(module = "feishu_feed_card._native", frozen)]
pub(crate) struct Sandbox {
    process: u64,
    platform: Mutex<Option<Platform>>,
    #[pyo3(get)]
    base_url: String,
    #[pyo3(get)]
    https_base_url: Option<String>,
    #[pyo3(get)]
    ca_pem: Option<String>,
}

#[pymethods]
impl Sandbox {
    /// Starts a sandbox. `world` is its initial state as JSON.
    #[new]
    fn new(py: Python<'_>, world: &str, https: bool, port: u16, https_port: u16) -> PyResult<Self> {
        let world: World = serde_json::from_str(world)
            .map_err(|error| PyValueError::new_err(format!("invalid world: {error}")))?;
        let builder = Platform::builder()
            .world(world)
            .https(https)
            .port(port)
            .https_port(https_port);
        let platform = py.detach(|| builder.start())?;
        Ok(Self {
            process: process::id(),
            base_url: platform.base_url(),
            https_base_url: platform.https_base_url(),
            ca_pem: platform.ca_pem().map(ToOwned::to_owned),
            platform: Mutex::new(Some(platform)),
        })
    }

    /// Runs a control. Argument and result are JSON.
    fn control(&self, py: Python<'_>, control: &str) -> PyResult<String> {
        if self.process != process::id() {
            return Err(PyRuntimeError::new_err(
                "this sandbox belongs to the process that created it; this process was forked from it",
            ));
        }
        let answer = py.detach(|| {
            let platform = self.lock();
            platform.as_ref().map(|platform| platform.control_json(control))
        });
        match answer {
            Some(answer) => answer.map_err(PyValueError::new_err),
            None => Err(PyRuntimeError::new_err("this sandbox is closed")),
        }
    }

    /// Stops the server.
    fn close(&self, py: Python<'_>) {
        if self.process == process::id() {
            py.detach(|| {
                let platform = self.lock().take();
                drop(platform);
            });
        }
    }
}

impl Sandbox {
    fn lock(&self) -> MutexGuard<'_, Option<Platform>> {
        self.platform.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.process != process::id() {
            // A fork does not copy the server's thread, so `drop` would wait for it forever.
            let platform = self.platform.get_mut().unwrap_or_else(PoisonError::into_inner);
            mem::forget(platform.take());
        }
    }
}

/// Returns a sandbox's default initial state as JSON.
#[pyfunction]
pub(crate) fn example_world() -> PyResult<String> {
    serde_json::to_string(&World::example()).map_err(|error| PyRuntimeError::new_err(error.to_string()))
}
