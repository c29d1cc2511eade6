//! Waiting of blocking calls: a Python thread waits while the runtime runs a future.

use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::task::AbortHandle;

use crate::engine::Engine;
use crate::greenlets;
use crate::logs::CallListener;
use crate::provider::ProviderQueue;

/// How often a blocking call checks for signals. Ctrl-C takes effect within 100 ms.
const SIGNAL_CHECK_INTERVAL: Duration = Duration::from_millis(40);

/// Why the waiting thread wakes up.
enum Wakeup<T> {
    End(T),
    /// The token provider must be run.
    ProviderCall,
}

/// A future that the runtime runs. Dropping this value stops the future.
pub(crate) struct Running<T> {
    task: AbortHandle,
    wakeups: Receiver<Wakeup<T>>,
    queue: Option<Arc<ProviderQueue>>,
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits for a future without the GIL, in this thread or, under gevent, in the hub's thread pool. Meanwhile runs the
/// provider calls in `queue`. An exception of a signal handler stops the future.
pub(crate) fn wait<F>(
    py: Python<'_>,
    engine: &Engine,
    future: F,
    queue: Option<Arc<ProviderQueue>>,
) -> PyResult<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let running = Running::start(engine, future, queue);
    end(py, running, None)
}

/// Like [`wait`], and handles the log records and events of the call.
pub(crate) fn wait_with_listener<F>(
    py: Python<'_>,
    engine: &Engine,
    call: F,
    queue: Option<Arc<ProviderQueue>>,
    listener: &CallListener,
) -> PyResult<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let running = Running::start(engine, listener.around(call), queue);
    let end = end(py, running, Some(listener));
    listener.handle_reports(py)?;
    end
}

fn end<T: Send + 'static>(
    py: Python<'_>,
    running: Running<T>,
    listener: Option<&CallListener>,
) -> PyResult<T> {
    let end = match greenlets::pool(py)? {
        // Log handlers must run in the calling greenlet, not in the pool's thread.
        Some(pool) => greenlets::wait_in(&pool, running)?,
        None => running.wait(py, listener)?,
    };
    end.ok_or_else(|| PyRuntimeError::new_err("a bug in feishu_feed_card: the call ended without a result"))
}

impl<T: Send + 'static> Running<T> {
    fn start(
        engine: &Engine,
        future: impl Future<Output = T> + Send + 'static,
        queue: Option<Arc<ProviderQueue>>,
    ) -> Self {
        let (wake, wakeups) = channel();
        let task = engine.spawn(run(future, wake, queue.clone()));
        Self { task, wakeups, queue }
    }

    /// Returns a handle that stops the future. A thread that waits for the future then returns immediately.
    pub(crate) fn stopper(&self) -> AbortHandle {
        self.task.clone()
    }

    /// Waits in this thread. Returns `None` if the future was stopped or panicked.
    pub(crate) fn wait(mut self, py: Python<'_>, listener: Option<&CallListener>) -> PyResult<Option<T>> {
        loop {
            let wakeups = &mut self.wakeups;
            let wakeup = py.detach(move || wakeups.recv_timeout(SIGNAL_CHECK_INTERVAL));
            py.check_signals()?;
            if let Some(queue) = &self.queue {
                queue.run_calls(py)?;
            }
            if let Some(listener) = listener {
                listener.handle_reports(py)?;
            }
            match wakeup {
                Ok(Wakeup::End(end)) => return Ok(Some(end)),
                Ok(Wakeup::ProviderCall) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }
}

/// Runs the future. If it panics, `wake` is dropped, and the waiting thread gets `Disconnected`.
async fn run<T>(future: impl Future<Output = T>, wake: Sender<Wakeup<T>>, queue: Option<Arc<ProviderQueue>>) {
    let mut future = pin!(future);
    let end = match queue {
        None => future.await,
        Some(queue) => loop {
            tokio::select! {
                biased;
                () = queue.pushed() => drop(wake.send(Wakeup::ProviderCall)),
                end = &mut future => break end,
            }
        },
    };
    // Fails if no thread waits anymore.
    drop(wake.send(Wakeup::End(end)));
}
