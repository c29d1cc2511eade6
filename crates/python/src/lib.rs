//! The native half of the Python package `feishu_feed_card`: it translates between Python and the core,
//! and decides nothing.
//!
//! - `client`: the two calls, blocking and for event loops, over `engine`, the process's runtime.
//! - `waits`: how a blocking call waits; `greenlets`: how it does under gevent.
//! - `loops`: how a call's end comes back to its event loop, which `waker` wakes.
//! - `many`: many calls, from an iterable.
//! - `arguments`, `options`, `outcome`, `errors`, `quota`, `provider`: one kind of value each.
//! - `records`: what results have in common; `items`: those of many calls.
//! - `logs`: from the core's `tracing` to Python's `logging`.
//! - `process`: what must not cross a fork.
//! - `sandbox`: the stand-in platform.

#![allow(
    clippy::doc_markdown,
    clippy::doc_link_with_quotes,
    reason = "the docs of classes are for Python"
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
    module.add_class::<provider::Answer>()?;
    module.add_class::<provider::Attendant>()?;
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
