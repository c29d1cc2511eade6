//! The thread that wakes event loops.
//!
//! `call_soon_threadsafe` needs the GIL, for which the runtime's thread must not wait. So this thread calls it, once for
//! each loop with letters in its mailbox. It runs no other Python code.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::loops::Mailbox;
use crate::process::PerProcess;

static WAKER: PerProcess<Waker> = PerProcess::new();

/// Set when the interpreter begins to exit. After that, no event loop is woken.
static IS_OVER: AtomicBool = AtomicBool::new(false);

pub(crate) struct Waker {
    due: Arc<Due>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The mailboxes whose loops must be woken.
#[derive(Default)]
struct Due {
    state: Mutex<DueState>,
    changed: Condvar,
}

#[derive(Default)]
struct DueState {
    mailboxes: Vec<Arc<Mailbox>>,
    is_stopped: bool,
}

/// Returns this process's waker. Its thread starts with the first call on an event loop.
pub(crate) fn waker() -> io::Result<&'static Waker> {
    WAKER.get_or_try_init(|| {
        let due = Arc::<Due>::default();
        let thread = thread::Builder::new().name("feishu-feed-card-waker".to_owned());
        let thread = thread.spawn({
            let due = due.clone();
            move || due.wake_loops()
        })?;
        Ok(Waker {
            due,
            thread: Mutex::new(Some(thread)),
        })
    })
}

impl Waker {
    pub(crate) fn wake(&self, mailbox: Arc<Mailbox>) {
        self.due.lock().mailboxes.push(mailbox);
        self.due.changed.notify_one();
    }

    fn stop(&self) {
        self.due.lock().is_stopped = true;
        self.due.changed.notify_one();
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            drop(thread.join());
        }
    }
}

/// If two threads create a waker at the same time, one of the two is dropped.
impl Drop for Waker {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Due {
    fn lock(&self) -> MutexGuard<'_, DueState> {
        lock(&self.state)
    }

    fn wake_loops(&self) {
        while let Some(mailboxes) = self.next() {
            // Returns `None` while the interpreter exits: nobody waits for results then.
            Python::try_attach(|py| {
                for mailbox in mailboxes {
                    mailbox.wake_loop(py);
                }
            });
        }
    }

    /// Returns `None` once the waker is stopped.
    fn next(&self) -> Option<Vec<Arc<Mailbox>>> {
        let mut state = self.lock();
        loop {
            if state.is_stopped {
                return None;
            }
            if !state.mailboxes.is_empty() {
                return Some(mem::take(&mut state.mailboxes));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Registers an `atexit` handler that stops the thread. A thread that needs the GIL later may crash the process.
pub(crate) fn stop_at_exit(py: Python<'_>) -> PyResult<()> {
    let stop = wrap_pyfunction!(stop_waker, py)?;
    py.import("atexit")?.call_method1("register", (stop,)).map(drop)
}

/// Returns an error once the interpreter exits, because the call's result could no longer be passed to the loop.
pub(crate) fn check_not_over() -> PyResult<()> {
    if IS_OVER.load(Ordering::Acquire) {
        return Err(PyRuntimeError::new_err(
            "an AsyncClient cannot make calls while the interpreter exits; use a Client, or register the atexit \
             handler after the import of feishu_feed_card",
        ));
    }
    Ok(())
}

#[pyfunction]
fn stop_waker(py: Python<'_>) {
    IS_OVER.store(true, Ordering::Release);
    if let Some(waker) = WAKER.get() {
        // The thread may be waiting for the GIL.
        py.detach(|| waker.stop());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
