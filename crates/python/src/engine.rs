//! The one tokio runtime of a process, and who drives it.
//!
//! The runtime has a single scheduler that any thread may drive. A blocking call drives it itself: its
//! request, the connection and the timers all run on the calling thread, without a thread switch. Calls
//! of an event loop, and what is left to do between blocking calls (a connection that closes, a token
//! that is being renewed), are driven by a thread of our own. That thread never touches Python.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::runtime::{Builder, EnterGuard, Runtime};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, yield_now};

use crate::process::PerProcess;

/// For how long the thread stays out of the way after a blocking call: the next one may be about to
/// come. Long enough for a caller's own work between two calls, short for a connection to be left alone.
const STANDS_BACK_FOR: Duration = Duration::from_millis(20);

pub(crate) struct Engine {
    runtime: Runtime,
    thread: OnceLock<Thread>,
    /// Whether the thread drives, or is about to.
    driving: AtomicBool,
    /// Tasks of event loops that have not ended.
    tasks: AtomicUsize,
    /// Blocking calls begun so far.
    calls: AtomicUsize,
    /// A blocking call wants to drive.
    wanted: Notify,
}

static ENGINE: PerProcess<Engine> = PerProcess::new();

/// This process's engine.
pub(crate) fn engine() -> io::Result<&'static Engine> {
    let engine = ENGINE.get_or_try_init(|| {
        Ok::<_, io::Error>(Engine {
            runtime: Builder::new_current_thread().enable_all().build()?,
            thread: OnceLock::new(),
            driving: AtomicBool::new(false),
            tasks: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            wanted: Notify::new(),
        })
    })?;
    if engine.thread.get().is_none() {
        let name = "feishu-feed-card".to_owned();
        let thread = thread::Builder::new().name(name).spawn(|| engine.drive())?;
        // A second thread, where two callers came at once, does no harm: it waits for the runtime.
        let _ = engine.thread.set(thread.thread().clone());
    }
    Ok(engine)
}

impl Engine {
    /// Runs a task until it ends or is aborted.
    pub(crate) fn spawn(&'static self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.tasks.fetch_add(1, Ordering::SeqCst);
        let counted = Counted(&self.tasks);
        let handle = self.runtime.spawn(async move {
            let _counted = counted;
            task.await;
        });
        if !self.driving.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
        handle.abort_handle()
    }

    /// Says that blocking calls are being made, so that the thread leaves the runtime to them.
    pub(crate) fn begin_blocking(&self) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.driving.load(Ordering::SeqCst) && self.tasks.load(Ordering::SeqCst) == 0 {
            self.wanted.notify_one();
        }
    }

    /// Runs a future on this thread.
    ///
    /// Nobody may have driven since the last blocking call, and a request that goes out on a connection whose
    /// end lies unread is lost: one turn hears what the system has to tell, the next runs what that wakes.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(async {
            yield_now().await;
            yield_now().await;
            future.await
        })
    }

    /// What is made or dropped while this is held may spawn and set timers.
    pub(crate) fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    fn drive(&self) {
        loop {
            self.stand_back();
            self.driving.store(true, Ordering::SeqCst);
            self.block_on(self.wanted.notified());
            self.driving.store(false, Ordering::SeqCst);
        }
    }

    /// Returns when blocking calls have paused, or at once when there are tasks.
    fn stand_back(&self) {
        while self.tasks.load(Ordering::SeqCst) == 0 {
            let before = self.calls.load(Ordering::SeqCst);
            thread::park_timeout(STANDS_BACK_FOR);
            if self.calls.load(Ordering::SeqCst) == before {
                return;
            }
        }
    }
}

struct Counted(&'static AtomicUsize);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
