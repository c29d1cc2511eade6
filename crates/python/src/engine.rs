//! The process's tokio runtime, and the thread that drives it.
//!
//! The thread never calls Python, so the runtime never waits for the GIL.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, yield_now};

use crate::process::PerProcess;

pub(crate) struct Engine {
    runtime: Handle,
    /// The thread ends when this is dropped. This happens if two callers create an engine at the same time: one of the
    /// two is dropped.
    _keep_alive: oneshot::Sender<()>,
}

static ENGINE: PerProcess<Engine> = PerProcess::new();

/// Returns this process's engine. Its thread starts with the first call.
pub(crate) fn engine() -> io::Result<&'static Engine> {
    ENGINE.get_or_try_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (keep_alive, dropped) = oneshot::channel();
        thread::Builder::new()
            .name("feishu-feed-card".to_owned())
            .spawn(move || runtime.block_on(dropped))?;
        Ok(Engine {
            runtime: handle,
            _keep_alive: keep_alive,
        })
    })
}

impl Engine {
    /// Runs a task until it ends or is aborted.
    ///
    /// Yields twice before the task starts, so that a request is not sent on a connection that the server has already
    /// closed: the first time, the runtime polls the sockets; the second time, the connections handle the close.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let task = async move {
            yield_now().await;
            yield_now().await;
            task.await;
        };
        self.runtime.spawn(task).abort_handle()
    }
}
