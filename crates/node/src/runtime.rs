//! The one tokio runtime of the process, whatever the number of clients and of worker threads of Node.

use std::future::pending;
use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use tokio::runtime::{Builder, Runtime};

/// Never dropped: at the end of the process its thread ends with it.
static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// One thread moves more requests than the JavaScript thread can make. It is started here and not by tokio, whose
/// runtimes with threads panic when the system refuses one.
pub(crate) fn runtime() -> io::Result<&'static Runtime> {
    static BEING_MADE: Mutex<()> = Mutex::new(());

    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let _being_made = BEING_MADE.lock().unwrap_or_else(PoisonError::into_inner);
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
