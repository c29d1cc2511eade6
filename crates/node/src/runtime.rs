//! The process's only tokio runtime, shared by all clients and all worker threads of Node.

use std::future::pending;
use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use tokio::runtime::{Builder, Runtime};

/// Never dropped. Its thread ends with the process.
static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// Returns the runtime. Its single thread can send more requests than the JavaScript thread can create. The thread is
/// started here, because tokio's multi-threaded runtimes panic if the system has no thread left.
pub(crate) fn runtime() -> io::Result<&'static Runtime> {
    static BEING_CREATED: Mutex<()> = Mutex::new(());

    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let _being_created = BEING_CREATED.lock().unwrap_or_else(PoisonError::into_inner);
    if RUNTIME.get().is_none() {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let name = "feishu-feed-card".to_owned();
        thread::Builder::new()
            .name(name)
            .spawn(|| RUNTIME.wait().block_on(pending::<()>()))?;
        return Ok(RUNTIME.get_or_init(|| runtime));
    }
    Ok(RUNTIME.wait())
}
