//! The one tokio runtime of the process, whatever the number of clients and of worker threads of Node.

use std::sync::OnceLock;

use napi::bindgen_prelude::{Error, Result};
use tokio::runtime::{Builder, Runtime};

/// What a name lookup may occupy; they are the only work that blocks.
const MOST_LOOKUPS: usize = 4;

/// Never dropped: at the end of the process its thread ends with it.
static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// One thread moves more requests than the JavaScript thread can make; napi's own runtime would start one
/// for each core.
pub(crate) fn runtime() -> Result<&'static Runtime> {
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(MOST_LOOKUPS)
        .thread_name("feishu-feed-card")
        .enable_all()
        .build()
        .map_err(|error| Error::from_reason(format!("no thread for the network: {error}")))?;
    Ok(RUNTIME.get_or_init(|| runtime))
}
