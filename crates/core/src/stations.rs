//! The stations of a call: what it waits for before and between its requests. `call.rs` asks them one after the other.

pub(crate) mod closing;
pub(crate) mod deadline;
pub(crate) mod order;
pub(crate) mod quota;
pub(crate) mod retry;
pub(crate) mod token;
