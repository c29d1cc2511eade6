//! The extension module of the Python package `feishu_feed_card`. It converts between Python and the core, and makes no
//! decisions about the platform.
//!
//! - `client`: the client; `engine`: the process's tokio runtime.
//! - `waits`: waiting of blocking calls; `greenlets`: the same under gevent.
//! - `loops`: results of calls on event loops; `waker`: the thread that wakes the loops.
//! - `many`: many calls from an iterable.
//! - `arguments`, `options`, `outcome`, `errors`, `quota`, `provider`: conversion of one kind of value each.
//! - `records`: the macro for result classes; `items`: the result classes of many calls.
//! - `logs`: log records and events, from `tracing` to Python's `logging` and `on_event`.
//! - `process`: values that must not be used after a fork.
//! - `sandbox`: the local stand-in for the platform.

#![allow(
    clippy::doc_markdown,
    clippy::doc_link_with_quotes,
    reason = "doc comments of classes are Python docstrings"
)]

use feishu_feed_card::{ErrorKind, RateLimit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

mod arguments;
mod client;
mod engine;
mod errors;
mod greenlets;
mod items;
mod logs;
mod loops;
mod many;
mod options;
mod outcome;
mod process;
mod provider;
mod quota;
mod records;
mod sandbox;
mod waits;
mod waker;

#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    process::check_interpreter()?;
    process::count_forks(py)?;
    waker::stop_at_exit(py)?;
    module.add_class::<client::Client>()?;
    module.add_class::<loops::CallHandle>()?;
    module.add_class::<loops::Calls>()?;
    module.add_class::<loops::WakeUp>()?;
    module.add_class::<many::Many>()?;
    module.add_class::<provider::ProviderResult>()?;
    module.add_class::<provider::QueueReader>()?;
    module.add_class::<quota::Quota>()?;
    module.add_class::<outcome::Outcome>()?;
    module.add_class::<outcome::FailedUserReason>()?;
    module.add_class::<errors::FieldViolation>()?;
    module.add_class::<errors::PermissionViolation>()?;
    module.add_class::<items::Item>()?;
    module.add_class::<items::Progress>()?;
    module.add_class::<items::Report>()?;
    module.add_class::<items::Unfinished>()?;
    module.add_class::<sandbox::Sandbox>()?;
    module.add_function(wrap_pyfunction!(logs::flush_logs, module)?)?;
    module.add_function(wrap_pyfunction!(loops::running_loop, module)?)?;
    module.add_function(wrap_pyfunction!(errors::invalid_input, module)?)?;
    module.add_function(wrap_pyfunction!(records::plain, module)?)?;
    module.add_function(wrap_pyfunction!(sandbox::example_world, module)?)?;
    module.add("BOT", arguments::Bot.into_pyobject(py)?)?;
    module.add("CLIENT_OPTIONS", options::names())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add(
        "ERROR_KINDS",
        PyTuple::new(py, ErrorKind::ALL.iter().map(|kind| kind.as_str()))?,
    )?;
    let RateLimit {
        per_second,
        per_minute,
        ..
    } = RateLimit::default();
    module.add("PLATFORM_RATE_LIMIT", (per_second, per_minute))
}
