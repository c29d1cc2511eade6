//! The thread that wakes event loops.
//!
//! The runtime's thread must not wait for the GIL, and `call_soon_threadsafe` needs it. This thread calls it for every
//! loop with something in its mailbox, once for all that lies there. It runs no other Python code.

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

/// Set when the interpreter is about to end: from then on no event loop is woken.
static IS_OVER: AtomicBool = AtomicBool::new(false);

pub(crate) struct Waker {
    due: Arc<Due>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The mailboxes whose loops have to be woken.
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

/// This process's waker. Its thread starts with the first call of an event loop.
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

/// Where two threads made a waker at once, one of the two is dropped.
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
            // `None` if the interpreter is about to end: nobody waits any more.
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

/// Has the interpreter stop the thread before it ends: a thread that comes back to it later may crash the process.
pub(crate) fn stop_at_exit(py: Python<'_>) -> PyResult<()> {
    let stop = wrap_pyfunction!(stop_waker, py)?;
    py.import("atexit")?.call_method1("register", (stop,)).map(drop)
}

/// Raises once the interpreter is about to end: the call's end could not come back to the loop.
pub(crate) fn check_not_over() -> PyResult<()> {
    if IS_OVER.load(Ordering::Acquire) {
        return Err(PyRuntimeError::new_err(
            "the interpreter is ending: an AsyncClient makes no more calls. An atexit handler that needs one must be \
             registered after feishu_feed_card was imported, or use a Client",
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
