//! The origin of a task: a value that a binding attaches to it. Tasks started from that task inherit the value.

use std::any::Any;
use std::sync::Arc;

use tokio::task::futures::TaskLocalFuture;
use tokio::task_local;

task_local! {
    static ORIGIN: Option<Origin>;
}

/// A value defined by the binding, such as the event loop that waits for the call.
pub type Origin = Arc<dyn Any + Send + Sync>;

/// The origin of the task that is being polled.
pub fn origin() -> Option<Origin> {
    ORIGIN.try_with(Clone::clone).ok().flatten()
}

/// Gives a future this origin.
pub fn with_origin<F: Future>(origin: Option<Origin>, future: F) -> TaskLocalFuture<Option<Origin>, F> {
    ORIGIN.scope(origin, future)
}

/// Gives a future for another task the origin of the current task.
pub(crate) fn inherited<F: Future>(future: F) -> TaskLocalFuture<Option<Origin>, F> {
    with_origin(origin(), future)
}
