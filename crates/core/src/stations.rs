//! What a call waits for or asks on its way. No station knows another one's turn: the call leads from one to the next.

pub(crate) mod closing;
pub(crate) mod deadline;
pub(crate) mod order;
pub(crate) mod quota;
pub(crate) mod retry;
pub(crate) mod token;
