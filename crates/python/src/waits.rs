//! Blocking calls: the runtime runs a future while a thread of Python's waits for it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::task::AbortHandle;

use crate::engine::Engine;
use crate::greenlets;
use crate::logs::Listening;
use crate::provider::Board;

/// How often a blocking call looks whether a signal came: Ctrl-C ends it well within 100 ms.
const LOOKS_EVERY: Duration = Duration::from_millis(40);

/// What wakes the thread that waits.
enum Wakeup<T> {
    End(T),
    /// A token provider is to be run.
    Question,
}

/// A future that the runtime runs. Dropping this stops it.
pub(crate) struct Running<T> {
    task: AbortHandle,
    wakeups: Receiver<Wakeup<T>>,
    board: Option<Arc<Board>>,
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits for a future's end without the GIL: under gevent in the hub's thread pool, else on this thread. Runs the token
/// provider whose questions come to `board`. An exception that a signal's handler raises stops the future.
pub(crate) fn wait<F>(
    py: Python<'_>,
    engine: &Engine,
    future: F,
    board: Option<Arc<Board>>,
) -> PyResult<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let running = Running::start(engine, future, board);
    end(py, running, None)
}

/// Like [`wait`], for a call that someone listens to: handles what is reported of it.
pub(crate) fn wait_listening<F>(
    py: Python<'_>,
    engine: &Engine,
    call: F,
    board: Option<Arc<Board>>,
    listening: &Listening,
) -> PyResult<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let running = Running::start(engine, listening.around(call), board);
    let end = end(py, running, Some(listening));
    listening.handle_reports(py)?;
    end
}

fn end<T: Send + 'static>(py: Python<'_>, running: Running<T>, listening: Option<&Listening>) -> PyResult<T> {
    let end = match greenlets::pool(py)? {
        // Not in the pool's thread: handlers belong into the greenlet that calls.
        Some(pool) => greenlets::wait_in(&pool, running)?,
        None => running.wait(py, listening)?,
    };
    end.ok_or_else(|| PyRuntimeError::new_err("a bug in feishu_feed_card: the call ended without a result"))
}

impl<T: Send + 'static> Running<T> {
    fn start(
        engine: &Engine,
        future: impl Future<Output = T> + Send + 'static,
        board: Option<Arc<Board>>,
    ) -> Self {
        let (wake, wakeups) = channel();
        let task = engine.spawn(run(future, wake, board.clone()));
        Self { task, wakeups, board }
    }

    /// Stops the future. A thread that waits for it returns at once.
    pub(crate) fn stopper(&self) -> AbortHandle {
        self.task.clone()
    }

    /// Waits on this thread. Returns `None` if the future was stopped, or panicked.
    pub(crate) fn wait(mut self, py: Python<'_>, listening: Option<&Listening>) -> PyResult<Option<T>> {
        loop {
            let wakeups = &mut self.wakeups;
            let wakeup = py.detach(move || wakeups.recv_timeout(LOOKS_EVERY));
            py.check_signals()?;
            if let Some(board) = &self.board {
                board.answer_questions(py)?;
            }
            if let Some(listening) = listening {
                listening.handle_reports(py)?;
            }
            match wakeup {
                Ok(Wakeup::End(end)) => return Ok(Some(end)),
                Ok(Wakeup::Question) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }
}

/// Runs the future. Where it panics, `wake` is dropped, and the thread that waits learns of it.
async fn run<T>(future: impl Future<Output = T>, wake: Sender<Wakeup<T>>, board: Option<Arc<Board>>) {
    let mut future = pin!(future);
    let end = match board {
        None => future.await,
        Some(board) => loop {
            tokio::select! {
                biased;
                () = board.posted() => drop(wake.send(Wakeup::Question)),
                end = &mut future => break end,
            }
        },
    };
    // An error says that nobody waits any more.
    drop(wake.send(Wakeup::End(end)));
}
