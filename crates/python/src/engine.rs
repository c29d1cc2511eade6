//! The one tokio runtime of a process, and the thread that drives it.
//!
//! The thread never touches Python, so the runtime never waits for the GIL.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, yield_now};

use crate::process::PerProcess;

pub(crate) struct Engine {
    runtime: Handle,
    /// The thread ends when this is dropped: where two callers made an engine at once, one of the two is.
    _lives: oneshot::Sender<()>,
}

static ENGINE: PerProcess<Engine> = PerProcess::new();

/// This process's engine. Its thread starts with the first call.
pub(crate) fn engine() -> io::Result<&'static Engine> {
    ENGINE.get_or_try_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (lives, ended) = oneshot::channel();
        thread::Builder::new()
            .name("feishu-feed-card".to_owned())
            .spawn(move || runtime.block_on(ended))?;
        Ok(Engine {
            runtime: handle,
            _lives: lives,
        })
    })
}

impl Engine {
    /// Runs a task until it ends or is aborted.
    ///
    /// Yields twice before the task starts, because a request sent on a connection that the server has already closed
    /// would be lost. The first turn polls the sockets; the second lets the connections see the close.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let task = async move {
            yield_now().await;
            yield_now().await;
            task.await;
        };
        self.runtime.spawn(task).abort_handle()
    }
}
